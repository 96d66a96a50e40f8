//! Writes text after prompts and embeds texts, through the split model.
//!
//! Prompts are decoded in batches of similar length; front and back keep their caches here, the body
//! on its shards. A shard that had to drop a cache says so, and the batch starts over.
//!
//! Shapes: B = rows, T = tokens of the longest row, R = live rows, V = vocabulary, D = hidden width,
//! N = texts.

use tch::{Device, Kind, Tensor, no_grad};

use super::beam::{BeamSearch, Hypothesis};
use crate::config::GenerationConfig;
use crate::model::backbone::{Ends, Inputs};
use crate::split::{ClientModel, DecodeTurn, HiddenStates, SplitError, Turn};
use crate::training::BodyLink;

/// Times that one batch is tried before a shard without room for its cache ends the ranking.
const TRIES: u64 = 5;

/// How texts are written and embedded.
#[derive(Clone, Debug)]
pub struct GenerationPlan {
    /// The search.
    pub search: GenerationConfig,
    /// Tokens that end a text.
    pub end: Vec<u32>,
    /// Prompts, or texts, that are computed at once.
    pub batch: usize,
    /// Stages of the body.
    pub stages: usize,
    /// Where the client computes.
    pub device: Device,
}

/// Up to `beams` continuations of every prompt, best first, in the order of the prompts. No prompt may
/// be empty. On one link, to be called once.
///
/// # Errors
/// What the link failed with; [`SplitError::CacheLost`] when a shard has no room again and again.
pub async fn generate<L: BodyLink>(
    model: &ClientModel,
    link: &mut L,
    prompts: &[Vec<u32>],
    plan: &GenerationPlan,
) -> Result<Vec<Vec<Hypothesis>>, L::Error> {
    let ends = no_grad(|| model.ends());
    let mut written: Vec<Vec<Hypothesis>> = vec![Vec::new(); prompts.len()];
    for (number, rows) in (0..).zip(by_length(prompts).chunks(plan.batch)) {
        let _permit = link.permit().await?;
        let texts: Vec<&[u32]> = rows.iter().map(|row| prompts[*row].as_slice()).collect();
        let mut found = None;
        for decoding in number * TRIES..(number + 1) * TRIES {
            let decoder = Decoder { model, ends: &ends, plan, decoding };
            found = decoder.decode(link, &texts).await?;
            if found.is_some() {
                break;
            }
        }
        let found = found.ok_or(SplitError::CacheLost { times: TRIES })?;
        for (row, hypotheses) in rows.iter().zip(found) {
            written[*row] = hypotheses;
        }
    }
    Ok(written)
}

/// Last hidden state, after the final norm, at the last token of every text: `[N, D]`, f32 on the CPU
/// (method.md 6.1). No text may be empty.
///
/// # Errors
/// What the link failed with.
pub async fn embed<L: BodyLink>(
    model: &ClientModel,
    link: &mut L,
    texts: &[Vec<u32>],
    plan: &GenerationPlan,
) -> Result<Tensor, L::Error> {
    let ends = no_grad(|| model.ends());
    let order = by_length(texts);
    let embedded_nd =
        Tensor::zeros([texts.len() as i64, model.width()], (Kind::Float, Device::Cpu));
    for rows in order.chunks(plan.batch) {
        let _permit = link.permit().await?;
        let of_batch: Vec<&[u32]> = rows.iter().map(|row| texts[*row].as_slice()).collect();
        let (ids_bt, lengths_b) = padded(&of_batch, plan.device);
        let width = ids_bt.size()[1];
        let mut hidden = model.evaluate_front(&ends, &Inputs::Ids(ids_bt));
        for stage in 0..plan.stages {
            hidden = link.evaluate(stage, hidden).await?.value;
        }
        let rows_b = Tensor::arange(rows.len() as i64, (Kind::Int64, plan.device));
        let last_b = rows_b * width + lengths_b - 1;
        let last_bd = model.last_hidden(&hidden, &last_b)?;
        let last_bd = last_bd.to_kind(Kind::Float).to_device(Device::Cpu);
        let places: Vec<i64> = rows.iter().map(|row| *row as i64).collect();
        let places = Tensor::from_slice(&places);
        let _ = embedded_nd.shallow_clone().index_copy_(0, &places, &last_bd);
    }
    Ok(embedded_nd)
}

/// Row numbers, short texts first: rows of a batch are padded little.
fn by_length(texts: &[Vec<u32>]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|row| texts[*row].len());
    order
}

/// Token ids `[B, T]`, right-padded with 0, and the number of real ones, `[B]`.
fn padded(texts: &[&[u32]], device: Device) -> (Tensor, Tensor) {
    let width = texts.iter().map(|text| text.len()).max().unwrap_or(1);
    let mut ids = vec![0i64; texts.len() * width];
    for (row, text) in texts.iter().enumerate() {
        for (column, id) in text.iter().enumerate() {
            ids[row * width + column] = i64::from(*id);
        }
    }
    let lengths: Vec<i64> = texts.iter().map(|text| text.len() as i64).collect();
    let ids_bt = Tensor::from_slice(&ids).view([texts.len() as i64, width as i64]);
    (ids_bt.to_device(device), Tensor::from_slice(&lengths).to_device(device))
}

/// One batch of prompts that is decoded.
struct Decoder<'a> {
    model: &'a ClientModel,
    ends: &'a Ends,
    plan: &'a GenerationPlan,
    decoding: u64,
}

impl Decoder<'_> {
    /// `None` if a shard dropped its cache on the way.
    async fn decode<L: BodyLink>(
        &self,
        link: &mut L,
        texts: &[&[u32]],
    ) -> Result<Option<Vec<Vec<Hypothesis>>>, L::Error> {
        let mut search = BeamSearch::new(texts.len(), &self.plan.end, &self.plan.search);
        let (ids_bt, lengths_b) = padded(texts, self.plan.device);
        let (mut front, mut back) = (None, None);
        let turn = Turn::Prompts { lengths_b: &lengths_b };
        let hidden = self.model.decode_front(self.ends, &ids_bt, &turn, &mut front)?;
        let Some(hidden) = self.through_body(link, hidden, 0, &[]).await? else {
            return Ok(None);
        };
        let mut log_probs_rv = self.model.decode_back(self.ends, &hidden, &turn, &mut back)?;
        let mut position = 0;
        while let Some(step) = search.advance(&log_probs_rv) {
            position += 1;
            let tokens_r1 = Tensor::from_slice(&step.tokens).unsqueeze(1);
            let tokens_r1 = tokens_r1.to_device(self.plan.device);
            let turn = Turn::Tokens { parents: &step.parents };
            let hidden = self.model.decode_front(self.ends, &tokens_r1, &turn, &mut front)?;
            let hidden = self.through_body(link, hidden, position, &step.parents).await?;
            let Some(hidden) = hidden else { return Ok(None) };
            log_probs_rv = self.model.decode_back(self.ends, &hidden, &turn, &mut back)?;
        }
        Ok(Some(search.finish()))
    }

    async fn through_body<L: BodyLink>(
        &self,
        link: &mut L,
        mut hidden: HiddenStates,
        position: u64,
        parents: &[i64],
    ) -> Result<Option<HiddenStates>, L::Error> {
        for stage in 0..self.plan.stages {
            let turn = DecodeTurn { decoding: self.decoding, position, parents: parents.to_vec() };
            let Some(answer) = link.decode(stage, turn, hidden).await? else { return Ok(None) };
            hidden = answer.value;
        }
        Ok(Some(hidden))
    }
}
