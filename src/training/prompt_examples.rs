//! Prompts with their responses as training batches of a causal language model (method.md 6.1).
//!
//! Shapes: B = batch, T = positions, M = labelled positions.

use std::sync::Arc;

use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use tch::{Device, Tensor};

use super::Examples;
use super::examples::BUCKET_BATCHES;
use crate::config::PromptLoss;
use crate::data::{ClientData, Prompts, TrainingRows};
use crate::ids::ItemId;
use crate::model::backbone::{Batch, Inputs};

/// One row a user. Whenever it is visited, one of the user's training items but the first is drawn as
/// the answer; the prompt is over what precedes it.
#[derive(Debug)]
pub struct PromptExamples {
    histories: Vec<Vec<ItemId>>,
    prompts: Arc<Prompts>,
    loss: PromptLoss,
}

/// A text of which all tokens but the first few are to be predicted.
#[derive(Clone, Debug)]
pub struct LabelledText {
    /// The whole text, at least two tokens.
    pub tokens: Vec<u32>,
    /// Tokens at its start that the loss leaves out, at least 1: nothing predicts the first.
    pub unlabelled: usize,
}

impl PromptExamples {
    /// The users of `data` with at least two training items whom `rows` admits.
    pub fn new(
        data: &ClientData,
        rows: &TrainingRows,
        prompts: Arc<Prompts>,
        loss: PromptLoss,
    ) -> Self {
        let users = data.users.iter().filter(|user| user.is_row() && rows.admit(user));
        Self { histories: users.map(|user| user.train.clone()).collect(), prompts, loss }
    }

    /// A prompt and the response that follows it.
    fn exchange(&self, row: usize, rng: &mut ChaCha8Rng) -> LabelledText {
        let history = &self.histories[row];
        let target = rng.random_range(1..history.len());
        let mut tokens = self.prompts.prompt_ids(&history[..target]);
        let unlabelled = match self.loss {
            PromptLoss::Response => tokens.len(),
            PromptLoss::Text => 1,
        };
        tokens.extend(self.prompts.response_ids(history[target]));
        LabelledText { tokens, unlabelled }
    }
}

impl Examples for PromptExamples {
    fn rows(&self) -> usize {
        self.histories.len()
    }

    // The answers are not drawn yet, so rows are as long as the most titles they can bring.
    fn epoch(&self, batch: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..self.histories.len()).collect();
        order.shuffle(rng);
        for window in order.chunks_mut(batch * BUCKET_BATCHES) {
            let titles = |row: &usize| self.histories[*row].len().min(self.prompts.max_items() + 1);
            window.sort_by_key(titles);
        }
        let mut batches: Vec<Vec<usize>> = order.chunks(batch).map(<[usize]>::to_vec).collect();
        batches.shuffle(rng);
        batches
    }

    fn batch(&self, rows: &[usize], rng: &mut ChaCha8Rng, device: Device) -> Batch {
        let texts: Vec<LabelledText> = rows.iter().map(|row| self.exchange(*row, rng)).collect();
        causal_batch(&texts, device)
    }
}

/// Texts as rows of a causal language model, right-padded.
pub fn causal_batch(texts: &[LabelledText], device: Device) -> Batch {
    // Position p predicts token p + 1, so the last token is no input.
    let width = texts.iter().map(|text| text.tokens.len() - 1).max().unwrap_or(0);
    let mut ids = vec![0i64; texts.len() * width];
    let (mut positions, mut labels) = (Vec::new(), Vec::new());
    for (row, LabelledText { tokens, unlabelled }) in texts.iter().enumerate() {
        for (column, pair) in tokens.windows(2).enumerate() {
            let position = row * width + column;
            ids[position] = i64::from(pair[0]);
            if column + 1 >= *unlabelled {
                positions.push(position as i64);
                labels.push(i64::from(pair[1]));
            }
        }
    }
    let shape = [texts.len() as i64, width as i64];
    Batch {
        inputs: Inputs::Ids(Tensor::from_slice(&ids).view(shape).to_device(device)),
        rows_m: Tensor::from_slice(&positions).to_device(device),
        labels_m: Tensor::from_slice(&labels).to_device(device),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::num::NonZeroU32;

    use super::*;
    use crate::config::{GenerationConfig, PromptConfig};
    use crate::data::{Catalogue, END_OF_TEXT, Item, PromptTemplate, UserSplit, text_tokenizer};
    use crate::ids::{ClientId, UserId};
    use crate::seed;

    fn prompts() -> Arc<Prompts> {
        let number = |value| NonZeroU32::new(value).expect("above 0");
        let config = PromptConfig {
            item: "movie".to_owned(),
            items: "movies".to_owned(),
            verb: "watched".to_owned(),
            max_items: number(3),
            cutoff: number(512),
            loss: PromptLoss::Response,
        };
        let item =
            |n| Item { key: String::new(), title: format!("Part {n}"), category: String::new() };
        let catalogue = Catalogue { items: (0..40).map(item).collect() };
        let texts = PromptTemplate::new(&config).corpus(&catalogue);
        let tokenizer = text_tokenizer(texts, 600).expect("plain text");
        let end = tokenizer.token_to_id(END_OF_TEXT).expect("a special token");
        let generation =
            GenerationConfig { beams: number(1), max_new_tokens: number(16), length_penalty: 1.0 };
        let prompts = Prompts::new(&catalogue, tokenizer, end, &config, &generation);
        Arc::new(prompts.expect("fits"))
    }

    /// User u watched `lengths[u]` items, from item u on.
    fn examples(prompts: &Arc<Prompts>, lengths: &[u32], loss: PromptLoss) -> PromptExamples {
        let user = |(id, length): (u32, &u32)| UserSplit {
            user: UserId(u64::from(id)),
            train: (id..id + length).map(ItemId).collect(),
            validation: Vec::new(),
            test: Vec::new(),
        };
        let users = (0..).zip(lengths).map(user).collect();
        let data = ClientData { client: ClientId(0), users };
        PromptExamples::new(&data, &TrainingRows::All, prompts.clone(), loss)
    }

    fn numbers(tensor: &Tensor) -> Vec<i64> {
        Vec::try_from(tensor.reshape([-1])).expect("integers")
    }

    /// Tokens of each row of a batch, put together again from inputs and labels, and its labels' count.
    fn rows(batch: &Batch) -> Vec<(Vec<u32>, usize)> {
        let width = batch.inputs.ids().size()[1];
        let (ids, labels) = (numbers(batch.inputs.ids()), numbers(&batch.labels_m));
        let positions = numbers(&batch.rows_m);
        (0..batch.inputs.ids().size()[0])
            .map(|row| {
                let of_row = |position: &i64| position / width == row;
                let last = *positions.iter().rfind(|p| of_row(p)).expect("a labelled row");
                let at = positions.iter().position(|p| *p == last).expect("just found");
                let tokens =
                    ids[(row * width) as usize..=last as usize].iter().chain([&labels[at]]);
                let count = positions.iter().filter(|p| of_row(p)).count();
                (tokens.map(|id| *id as u32).collect(), count)
            })
            .collect()
    }

    #[test]
    fn a_row_is_the_prompt_of_inference_and_one_answer_of_the_user() {
        let prompts = prompts();
        let examples = examples(&prompts, &[5, 2, 1, 9], PromptLoss::Response);
        assert_eq!(examples.rows(), 3, "a single item teaches nothing");
        let mut rng = seed::rng(1, "test", &[]);
        let mut answers = BTreeSet::new();
        for _ in 0..60 {
            let batch = examples.batch(&[0, 1, 2], &mut rng, Device::Cpu);
            for (row, (tokens, labels)) in rows(&batch).into_iter().enumerate() {
                let history = &examples.histories[row];
                let target = (1..history.len()).find(|target| {
                    let response = prompts.response_ids(history[*target]);
                    tokens == [prompts.prompt_ids(&history[..*target]), response].concat()
                });
                let target = target.expect("the text of a prompt and its response");
                assert_eq!(labels, prompts.response_ids(history[target]).len());
                answers.insert((row, target));
            }
        }
        // Every training item but the first is drawn sooner or later: 4 + 1 + 8.
        assert_eq!(answers.len(), 13);
    }

    #[test]
    fn the_label_of_a_position_is_the_next_token_and_padding_has_none() {
        let prompts = prompts();
        for loss in [PromptLoss::Response, PromptLoss::Text] {
            let examples = examples(&prompts, &[2, 6], loss);
            let batch = examples.batch(&[0, 1], &mut seed::rng(1, "test", &[]), Device::Cpu);
            let (ids, width) = (numbers(batch.inputs.ids()), batch.inputs.ids().size()[1]);
            let (positions, labels) = (numbers(&batch.rows_m), numbers(&batch.labels_m));
            let end = i64::from(prompts.end());
            for (position, label) in positions.iter().zip(&labels) {
                assert_ne!(ids[*position as usize], 0, "padding is not labelled");
                let next = ids.get(*position as usize + 1).filter(|_| (position + 1) % width != 0);
                assert!(*label == end || next == Some(label));
            }
            assert_eq!(labels.iter().filter(|label| **label == end).count(), 2);
            let texts = rows(&batch);
            assert!(texts[0].0.len() < texts[1].0.len(), "the shorter one is padded");
            if loss == PromptLoss::Text {
                assert!(texts.iter().all(|(tokens, labels)| *labels == tokens.len() - 1));
            }
        }
    }

    #[test]
    fn an_epoch_visits_every_row_once_with_its_like() {
        let lengths: Vec<u32> = (0..32).map(|n| if n % 2 == 0 { 2 } else { 8 }).collect();
        let examples = examples(&prompts(), &lengths, PromptLoss::Response);
        let batches = examples.epoch(4, &mut seed::rng(1, "test", &[]));
        let mut visited = batches.concat();
        visited.sort_unstable();
        assert_eq!(visited, (0..32).collect::<Vec<_>>());
        assert!(batches.iter().all(|rows| rows.iter().all(|row| row % 2 == rows[0] % 2)));
    }

    #[test]
    fn equal_generators_give_equal_batches() {
        let examples = examples(&prompts(), &[9, 9, 9], PromptLoss::Text);
        let batch = |seed| {
            let mut rng = seed::rng(seed, "test", &[]);
            numbers(examples.batch(&[2, 0], &mut rng, Device::Cpu).inputs.ids())
        };
        assert_eq!(batch(1), batch(1));
        assert!((2..12).any(|seed| batch(seed) != batch(1)));
    }
}
