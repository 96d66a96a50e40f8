//! Known histories as what enters the model.

use std::sync::Arc;

use tch::{Device, Tensor};

use crate::data::ItemTexts;
use crate::ids::ItemId;
use crate::model::backbone::Inputs;
use crate::model::encoder::EncoderInputs;

/// How a backbone sees a history.
#[derive(Clone, Debug)]
pub enum HistoryInputs {
    /// As the ids of its newest items, at most so many; scored at the last one.
    Items(usize),
    /// As text; scored at its first token.
    Texts(Arc<ItemTexts>),
}

impl HistoryInputs {
    /// Positions that a history takes.
    pub fn length(&self, history: &[ItemId]) -> usize {
        match self {
            Self::Items(newest) => history.len().min(*newest),
            Self::Texts(texts) => texts.history_length(history),
        }
    }

    /// Inputs `[B, T]` of non-empty histories, and the index of each row's scored position, `[B]`.
    pub fn batch(&self, histories: &[&[ItemId]], device: Device) -> (Inputs, Tensor) {
        match self {
            Self::Items(newest) => {
                let (ids_bt, last_b) = ids(histories, *newest);
                (Inputs::Ids(ids_bt.to_device(device)), last_b.to_device(device))
            }
            Self::Texts(texts) => {
                let rows: Vec<_> = histories.iter().map(|items| texts.history(items)).collect();
                let inputs = EncoderInputs::new(&rows, device);
                let first_b = inputs.first_positions();
                (Inputs::Texts(inputs), first_b)
            }
        }
    }
}

/// Newest items of every history `[B, T]`, right-padded, and the index of its last one `[B]`.
fn ids(histories: &[&[ItemId]], newest: usize) -> (Tensor, Tensor) {
    let newest = |history: &&[ItemId]| history.len().saturating_sub(newest);
    let width = histories.iter().map(|history| history.len() - newest(history)).max().unwrap_or(1);
    let mut ids = vec![0i64; histories.len() * width];
    let mut last = Vec::with_capacity(histories.len());
    for (row, history) in histories.iter().enumerate() {
        let history = &history[newest(history)..];
        for (column, item) in history.iter().enumerate() {
            ids[row * width + column] = i64::from(item.0);
        }
        last.push((row * width + history.len() - 1) as i64);
    }
    let ids_bt = Tensor::from_slice(&ids).view([histories.len() as i64, width as i64]);
    (ids_bt, Tensor::from_slice(&last))
}
