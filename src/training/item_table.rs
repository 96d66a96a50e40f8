//! The item table of backbone `recformer`: every item's own text, encoded over the cut like a history.
//!
//! The text of the catalogue is public, but its states at the cut pass through the shards like any
//! other, so that a table costs traffic: known beforehand, and counted.
//! Shapes: B = batch, T = tokens, D = hidden width, V = items.

use std::sync::Arc;
use std::time::Instant;

use tch::{Device, Kind, Tensor, no_grad};

use super::local_round::{BodyLink, timed};
use crate::cost::ClientCost;
use crate::data::ItemTexts;
use crate::ids::ItemId;
use crate::model::backbone::Inputs;
use crate::model::encoder::EncoderInputs;
use crate::split::{ClientModel, unit_rows};

/// Bytes of one row's length beside hidden states.
const LENGTH_BYTES: u64 = 8;

/// How the table of a catalogue is encoded: batches of items of similar length.
#[derive(Clone, Debug)]
pub struct ItemTable {
    texts: Arc<ItemTexts>,
    batches: Vec<Vec<ItemId>>,
}

impl ItemTable {
    /// A table whose items are encoded `batch` at a time.
    pub fn new(texts: Arc<ItemTexts>, batch: usize) -> Self {
        let mut items: Vec<ItemId> = (0..texts.items() as u32).map(ItemId).collect();
        items.sort_by_key(|item| texts.item_length(*item));
        let batches = items.chunks(batch).map(<[ItemId]>::to_vec).collect();
        Self { texts, batches }
    }

    /// Bytes that encoding it once sends over the cut, both ways together, with `stages` stages and
    /// `position_bytes` for the hidden state of one position.
    pub fn traffic(&self, stages: usize, position_bytes: u64) -> u64 {
        let one_way = |batch: &Vec<ItemId>| {
            let longest = batch.iter().map(|item| self.texts.item_length(*item)).max();
            let row = longest.unwrap_or_default() as u64 * position_bytes + LENGTH_BYTES;
            batch.len() as u64 * row
        };
        2 * stages as u64 * self.batches.iter().map(one_way).sum::<u64>()
    }
}

/// Encodes every item with the model as it is: `[V, D]`, rows of length 1 in catalogue order, and
/// what it cost.
pub async fn encode_table<L: BodyLink>(
    model: &ClientModel,
    link: &mut L,
    table: &ItemTable,
    stages: usize,
    device: Device,
) -> Result<(Tensor, ClientCost), L::Error> {
    let ends = no_grad(|| model.ends());
    let mut cost = ClientCost::default();
    let (mut rows, mut order) = (Vec::new(), Vec::new());
    for batch in &table.batches {
        let _permit = link.permit().await?;
        let texts: Vec<_> = batch.iter().map(|item| table.texts.item(*item)).collect();
        let inputs = EncoderInputs::new(&texts, device);
        let first_b = inputs.first_positions();
        let started = Instant::now();
        let mut hidden = model.evaluate_front(&ends, &Inputs::Texts(inputs));
        cost.front_secs += started.elapsed().as_secs_f64();
        for stage in 0..stages {
            cost.bytes_up += hidden.bytes();
            hidden = timed(link.evaluate(stage, hidden), &mut cost).await?;
            cost.bytes_down += hidden.bytes();
        }
        let started = Instant::now();
        let states_bd = model.last_hidden(&hidden, &first_b)?;
        rows.push(no_grad(|| unit_rows(&states_bd)));
        cost.back_secs += started.elapsed().as_secs_f64();
        order.extend(batch.iter().map(|item| i64::from(item.0)));
        link.working();
    }
    let order_v = Tensor::from_slice(&order).to_kind(Kind::Int64).to_device(device);
    Ok((Tensor::cat(&rows, 0).index_select(0, &order_v.argsort(0, false)), cost))
}
