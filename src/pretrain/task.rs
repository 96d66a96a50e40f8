//! What a base is taught: texts of the catalogue, as its backbone will read them.
//!
//! Shapes: B = texts, T = tokens, D = hidden width, M = labelled positions, V = candidates.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor, no_grad};

use super::neighbours::Neighbours;
use crate::data::{Catalogue, ItemTexts, Prompts, TokenError};
use crate::ids::ItemId;
use crate::model::backbone::{Batch, Ends, Inputs};
use crate::model::encoder::EncoderInputs;
use crate::model::mask::MaskSeed;
use crate::split::{ClientModel, SplitError, unit_rows};
use crate::training::{LabelledText, causal_batch};

/// One text in this many is not a prompt: a sentence about the item, or the item alone.
const PLAIN: u32 = 4;

/// Sum of a loss in nats, and over how many labels.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossSum {
    /// In nats.
    pub sum: f64,
    /// Labels.
    pub labels: u64,
}

impl LossSum {
    /// Mean over the labels, in nats.
    pub fn mean(self) -> f64 {
        self.sum / self.labels.max(1) as f64
    }

    /// With another one.
    pub fn and(self, other: Self) -> Self {
        Self { sum: self.sum + other.sum, labels: self.labels + other.labels }
    }
}

/// The training texts of a kind of model.
pub enum Task {
    /// A causal model writes sentences about items, and prompts with their answers (method.md 6.1).
    Write {
        /// Of the catalogue.
        prompts: Box<Prompts>,
        /// A sentence about every item.
        facts: Vec<Vec<u32>>,
    },
    /// An encoder finds the item that goes with a history among those of the batch: RecFormer's item-item
    /// contrastive pretraining (arXiv 2305.13731, 2.3.1), without its masked language model.
    Match {
        /// Of the catalogue.
        texts: Box<ItemTexts>,
    },
}

impl Task {
    /// Writing over the prompts of a catalogue, whose items are called `item`.
    ///
    /// # Errors
    /// Text that the tokenizer refuses.
    pub fn write(
        catalogue: &Catalogue,
        prompts: Prompts,
        item: &str,
        longest: usize,
    ) -> Result<Self, TokenError> {
        let fact = |text: String| {
            let mut ids = prompts.text_ids(&text)?;
            ids.truncate(longest - 1);
            ids.push(prompts.end());
            Ok(ids)
        };
        let facts = facts(catalogue, item).map(fact).collect::<Result<_, _>>()?;
        Ok(Self::Write { prompts: Box::new(prompts), facts })
    }

    /// Adds a step's gradients on texts about `items`.
    pub fn learn(
        &self,
        model: &ClientModel,
        items: &[ItemId],
        neighbours: &Neighbours,
        rng: &mut ChaCha8Rng,
        masks: MaskSeed,
    ) -> LossSum {
        let (ends, batch) = self.batch(model, items, neighbours, rng, Some(&masks));
        let output_btd = model.unsplit_output(&ends, &batch.inputs, Some(&masks));
        let sum = model.head_backward(&ends, &output_btd, &batch);
        ends.backward();
        LossSum { sum, labels: batch.labels() }
    }

    /// The loss on texts about `items`; of prompts, that of the answers.
    ///
    /// # Errors
    /// None that the model of this task has.
    pub fn loss(
        &self,
        model: &ClientModel,
        items: &[ItemId],
        neighbours: &Neighbours,
        rng: &mut ChaCha8Rng,
    ) -> Result<LossSum, SplitError> {
        let (ends, batch) = no_grad(|| self.batch(model, items, neighbours, rng, None));
        let hidden = model.evaluate_front(&ends, &batch.inputs);
        let scores_mv = model.evaluate_back(&ends, &hidden, &batch.rows_m)?;
        let losses_m =
            scores_mv.log_softmax(-1, Kind::Float).gather(1, &batch.labels_m.unsqueeze(1), false);
        Ok(LossSum { sum: -losses_m.sum(Kind::Double).double_value(&[]), labels: batch.labels() })
    }

    /// `masks` tells training from measuring.
    fn batch(
        &self,
        model: &ClientModel,
        items: &[ItemId],
        neighbours: &Neighbours,
        rng: &mut ChaCha8Rng,
        masks: Option<&MaskSeed>,
    ) -> (Ends, Batch) {
        let mut ends = model.ends();
        match self {
            Self::Write { prompts, facts } => {
                let training = masks.is_some();
                let row = |item: &ItemId| {
                    if rng.random_ratio(1, PLAIN) {
                        return LabelledText { tokens: facts[item.index()].clone(), unlabelled: 1 };
                    }
                    let history = neighbours.draw(*item, prompts.max_items(), rng);
                    let mut tokens = prompts.prompt_ids(&history);
                    let unlabelled = if training { 1 } else { tokens.len() };
                    tokens.extend(prompts.response_ids(*item));
                    LabelledText { tokens, unlabelled }
                };
                let rows: Vec<LabelledText> = items.iter().map(row).collect();
                (ends, causal_batch(&rows, Device::Cpu))
            }
            Self::Match { texts } => {
                let most = texts.max_items() as usize;
                let mut histories = Vec::with_capacity(items.len());
                for item in items {
                    let history = match rng.random_ratio(1, PLAIN) {
                        true => vec![*item],
                        false => neighbours.draw(*item, most, rng),
                    };
                    histories.push(texts.history(&history));
                }
                let candidates: Vec<_> = items.iter().map(|item| texts.item(*item)).collect();
                let candidates = EncoderInputs::new(&candidates, Device::Cpu);
                let first_b = candidates.first_positions();
                let states_btd = model.unsplit_output(&ends, &Inputs::Texts(candidates), masks);
                let width = model.width();
                ends.outputs_vd =
                    unit_rows(&states_btd.reshape([-1, width]).index_select(0, &first_b));
                let inputs = EncoderInputs::new(&histories, Device::Cpu);
                let rows_m = inputs.first_positions();
                let labels_m = Tensor::arange(items.len() as i64, (Kind::Int64, Device::Cpu));
                (ends, Batch { inputs: Inputs::Texts(inputs), rows_m, labels_m })
            }
        }
    }
}

/// `"Alien (1979)" is a movie: Horror, Sci-Fi.`, one an item.
pub fn facts<'a>(catalogue: &'a Catalogue, item: &'a str) -> impl Iterator<Item = String> + 'a {
    catalogue.items.iter().map(move |entry| {
        let of = match entry.category.is_empty() {
            true => String::new(),
            false => format!(": {}", entry.category.replace('|', ", ")),
        };
        format!("\"{}\" is a {item}{of}.", entry.title)
    })
}
