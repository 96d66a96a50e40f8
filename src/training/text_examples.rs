//! Histories as text for an encoder: one sequence a user, one target.

use std::sync::Arc;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use tch::{Device, Tensor};

use super::examples::{Examples, buckets};
use crate::data::{ClientData, ItemTexts, TrainingRows};
use crate::ids::ItemId;
use crate::model::backbone::{Batch, Inputs};
use crate::model::encoder::EncoderInputs;

/// Next-item prediction from the text of what precedes it. Each time a user comes up, the target is
/// drawn anew among all their training items but the first.
#[derive(Debug)]
pub struct TextExamples {
    histories: Vec<Vec<ItemId>>,
    texts: Arc<ItemTexts>,
}

impl TextExamples {
    /// The users of `data` with at least two training items that `rows` admits.
    pub fn among(data: &ClientData, rows: &TrainingRows, texts: Arc<ItemTexts>) -> Self {
        let users = data.users.iter().filter(|user| user.is_row() && rows.admit(user));
        Self { histories: users.map(|user| user.train.clone()).collect(), texts }
    }
}

impl Examples for TextExamples {
    fn rows(&self) -> usize {
        self.histories.len()
    }

    fn epoch(&self, batch: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<usize>> {
        // By the longest text that a row can have: which one it will be is drawn later.
        let length = |row: usize| self.texts.history_length(&self.histories[row]);
        buckets(self.histories.len(), batch, length, rng)
    }

    fn batch(&self, rows: &[usize], rng: &mut ChaCha8Rng, device: Device) -> Batch {
        let (mut texts, mut labels) = (Vec::with_capacity(rows.len()), Vec::new());
        for row in rows {
            let history = &self.histories[*row];
            let target = rng.random_range(1..history.len());
            texts.push(self.texts.history(&history[..target]));
            labels.push(i64::from(history[target].0));
        }
        let inputs = EncoderInputs::new(&texts, device);
        let rows_m = inputs.first_positions();
        let labels_m = Tensor::from_slice(&labels).to_device(device);
        Batch { inputs: Inputs::Texts(inputs), rows_m, labels_m }
    }
}
