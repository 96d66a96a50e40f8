//! `fellrec pretrain`: a small base from the public catalogue, so that adapters have a prior to adapt.
//!
//! Nothing here reads an interaction: those are their clients' secret. A causal base learns to write
//! the catalogue's titles in the words of the run's prompts, an encoder to tell items by their text.
//! What it makes is a Hugging Face folder that `model.checkpoint` takes.

mod base;
mod neighbours;
mod task;

use rand::seq::SliceRandom;
use thiserror::Error;
use tokenizers::Tokenizer;

use crate::config::{BackboneKind, Config, LoraConfig, OrNone, Trainable};
use crate::data::{
    Catalogue, END_OF_TEXT, ItemTexts, PromptTemplate, Prompts, TokenError, item_text_tokenizer,
    text_tokenizer,
};
use crate::ids::{ClientId, ItemId, Round, StepId};
use crate::model::architecture::Architecture;
use crate::model::mask::MaskSeed;
use crate::model::pretrained::{PretrainedError, SpecialTokens};
use crate::model::slice::{Digest, Slice};
use crate::model::start::StartingPoint;
use crate::seed;
use crate::split::{ClientModel, ClientSettings, SplitError, StepPlan, WholePlan};
use crate::training::clip_scale;
use task::{LossSum, Task};

pub use base::{Base, BaseRecord};
pub use neighbours::Neighbours;

/// Why no base came about.
#[derive(Debug, Error)]
pub enum PretrainError {
    /// The catalogue could not be tokenized.
    #[error(transparent)]
    Tokens(#[from] TokenError),
    /// The folder could not be written.
    #[error(transparent)]
    Pretrained(Box<PretrainedError>),
    /// The model does not fit the task.
    #[error(transparent)]
    Split(#[from] SplitError),
    /// The config starts from a model already.
    #[error("model.checkpoint: got {got}, expected \"none\": a base is made from nothing")]
    HasCheckpoint {
        /// The configured folder.
        got: String,
    },
    /// Everything would be held out, or there is too little to tell apart.
    #[error("the catalogue has {items} items, expected at least 4 after pretrain.held_out")]
    TooFew {
        /// Items that could be trained on.
        items: usize,
    },
}

impl From<PretrainedError> for PretrainError {
    fn from(error: PretrainedError) -> Self {
        Self::Pretrained(Box::new(error))
    }
}

/// A base before it is trained.
pub struct Pretraining {
    config: Config,
    catalogue: Catalogue,
    key: Digest,
}

/// A kind of base, and what it is taught.
struct Course {
    architecture: Architecture,
    tokenizer: Tokenizer,
    special: SpecialTokens,
    task: Task,
}

/// Where a training stands.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Steps made.
    pub step: u64,
    /// Mean loss of the last one, in nats a label.
    pub loss: f64,
}

impl Pretraining {
    /// A base over the text of a catalogue. Nothing is computed yet but the key.
    ///
    /// # Errors
    /// [`PretrainError::HasCheckpoint`].
    pub fn new(config: Config, catalogue: Catalogue) -> Result<Self, PretrainError> {
        if let OrNone::Some(folder) = &config.model.checkpoint {
            return Err(PretrainError::HasCheckpoint { got: folder.display().to_string() });
        }
        let key = key(&config, &catalogue);
        Ok(Self { config, catalogue, key })
    }

    /// Names what the base is made from: equal keys, equal bases.
    pub fn key(&self) -> &Digest {
        &self.key
    }

    /// Trains the tokenizer and the model. `progress` hears of every step.
    ///
    /// Bits depend on libtorch's intra-op threads of this process, and on nothing else that the key
    /// does not name.
    ///
    /// # Errors
    /// Text that cannot be tokenized; [`PretrainError::TooFew`].
    pub fn run(self, mut progress: impl FnMut(Progress)) -> Result<Base, PretrainError> {
        let (config, seed) = (&self.config, self.config.run.seed);
        let mut items: Vec<ItemId> = (0..self.catalogue.items.len() as u32).map(ItemId).collect();
        items.shuffle(&mut seed::rng(seed, "pretrain held out", &[]));
        let held_out = (items.len() as f64 * config.pretrain.held_out).round() as usize;
        let (held_out, trained) = items.split_at(held_out);
        if trained.len() < 4 {
            return Err(PretrainError::TooFew { items: trained.len() });
        }
        let neighbours = Neighbours::new(&self.catalogue);
        let Course { architecture, tokenizer, special, task } = match config.model.backbone {
            BackboneKind::ItemTokens | BackboneKind::Bigrec => writer(config, &self.catalogue)?,
            BackboneKind::Recformer => matcher(config, &self.catalogue)?,
        };
        let mut model = self.model(&architecture)?;
        // On the same texts whenever it is asked.
        let measured = |model: &ClientModel| {
            let mut rng = seed::rng(seed, "pretrain measure", &[]);
            let mut sum = LossSum::default();
            for items in held_out.chunks(config.pretrain.batch as usize) {
                sum = sum.and(task.loss(model, items, &neighbours, &mut rng)?);
            }
            Ok::<_, SplitError>(sum.mean())
        };
        let before = measured(&model)?;
        let batch = (config.pretrain.batch as usize).min(trained.len());
        let mut order: Vec<ItemId> = Vec::new();
        let mut epoch = 0;
        for step in 0..config.pretrain.steps {
            if order.len() < batch {
                order = trained.to_vec();
                order.shuffle(&mut seed::rng(seed, "pretrain order", &[epoch]));
                epoch += 1;
            }
            let items = order.split_off(order.len() - batch);
            let mut rng = seed::rng(seed, "pretrain texts", &[step]);
            let masks = masks(seed, step);
            let loss = task.learn(&model, &items, &neighbours, &mut rng, masks);
            let (front, back) = model.squared_grad_norms();
            let clip = config.optimizer.clip_norm.get();
            let grad_scale = clip_scale(front + back, clip);
            model.step(StepPlan { learning_rate: self.learning_rate(step), grad_scale });
            progress(Progress { step: step + 1, loss: loss.mean() });
        }
        let after = measured(&model)?;
        let (front, back) = model.close();
        let (front, back) = (front.into_parts().0, back.into_parts().0);
        let record = BaseRecord {
            key: self.key.to_string(),
            product: env!("CARGO_PKG_VERSION").to_owned(),
            seed,
            backbone: config.model.backbone,
            pretrain: config.pretrain.clone(),
            parameters: (front.numel() + back.numel()) as u64,
            tokens: tokenizer.get_vocab_size(true) as u64,
            held_out_items: held_out.len() as u64,
            held_out_loss: [before, after],
        };
        let tensors = Slice::new(front.tensors.into_iter().chain(back.tensors).collect());
        Ok(Base::new(architecture, tokenizer, special, tensors, record))
    }

    /// Rises linearly over the warm-up and falls linearly to 0.
    fn learning_rate(&self, step: u64) -> f64 {
        let pretrain = &self.config.pretrain;
        let warm = (step + 1) as f64 / pretrain.warmup_steps.max(1) as f64;
        let left = 1.0 - step as f64 / pretrain.steps as f64;
        pretrain.learning_rate * warm.min(1.0) * left
    }

    /// All of the network in one place, every tensor of it training.
    fn model(&self, architecture: &Architecture) -> Result<ClientModel, PretrainedError> {
        let plan = WholePlan {
            architecture,
            trainable: Trainable::Full,
            lora: LoraConfig::none(),
            optimizer: &self.config.optimizer,
            settings: ClientSettings::of(&self.config),
            longest: longest(&self.config) as i64,
        };
        plan.build(&StartingPoint::random(self.config.run.seed))
    }
}

/// A tokenizer over prompts and sentences, a tied Llama that knows its tokens, and what it writes.
fn writer(config: &Config, catalogue: &Catalogue) -> Result<Course, PretrainError> {
    let item = config.prompt.item.as_str();
    let mut texts = PromptTemplate::new(&config.prompt).corpus(catalogue);
    texts.extend(task::facts(catalogue, item));
    let tokenizer = text_tokenizer(texts, config.model.vocab)?;
    let id = |token: &str| tokenizer.token_to_id(token);
    let end = id(END_OF_TEXT).expect("a special token of every text tokenizer");
    let special =
        SpecialTokens { bos: id("<s>").map(i64::from), eos: vec![i64::from(end)], pad: None };
    let (prompt, generation) = (&config.prompt, &config.generation);
    let prompts = Prompts::new(catalogue, tokenizer.clone(), end, prompt, generation)?;
    let task = Task::write(catalogue, prompts, item, longest(config))?;
    let vocab = tokenizer.get_vocab_size(true) as i64;
    let architecture = Architecture::llama(&config.model, vocab);
    Ok(Course { architecture, tokenizer, special, task })
}

/// A tokenizer over item text, a RecFormer that knows its tokens, and what it is to match.
fn matcher(config: &Config, catalogue: &Catalogue) -> Result<Course, PretrainError> {
    let tokenizer = item_text_tokenizer(catalogue, config.model.vocab)?;
    let texts = ItemTexts::new(catalogue, &tokenizer, &config.recformer)?;
    let architecture = Architecture::recformer(&config.model, &config.recformer, texts.vocab());
    let special = SpecialTokens {
        bos: tokenizer.token_to_id("<s>").map(i64::from),
        eos: Vec::new(),
        pad: Some(0),
    };
    let task = Task::Match { texts: Box::new(texts) };
    Ok(Course { architecture, tokenizer, special, task })
}

/// Tokens of the longest text.
fn longest(config: &Config) -> usize {
    (config.prompt.cutoff.get() + config.generation.max_new_tokens.get()) as usize
}

fn masks(run_seed: u64, step: u64) -> MaskSeed {
    MaskSeed { run_seed, client: ClientId(0), step: StepId { round: Round(0), step } }
}

/// SHA-256 over everything that the base depends on.
fn key(config: &Config, catalogue: &Catalogue) -> Digest {
    let Config { run, model, recformer, optimizer, prompt, generation, pretrain, .. } = config;
    let mut text = format!(
        "fellrec pretrain 2\n{}\n{model:?}\n{recformer:?}\n{optimizer:?}\n{prompt:?}\n{generation:?}\n\
         {pretrain:?}\n",
        run.seed
    );
    for item in &catalogue.items {
        text.push_str(&format!("{:?} {:?}\n", item.title, item.category));
    }
    Digest::of(text.as_bytes())
}
