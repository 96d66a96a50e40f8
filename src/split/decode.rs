//! Decoding token by token over the cut: what each side keeps of the tokens so far.
//!
//! A decoding is a batch of prompts and what is written after them. Front and back keep their
//! keys and values on the client, every stage of the body on its shard; the beams are re-ordered on
//! all of them alike (protocol.md 5).
//!
//! Shapes: B = prompts, T = tokens of the longest, R = rows that continue them, D = hidden width.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, no_grad};

use super::SplitError;
use super::hidden::HiddenStates;
use super::stack::BlockStack;
use crate::model::key_values::{KeyValues, NewToken, RowsOfPrompts};

/// One step of a decoding, as every side is told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecodeTurn {
    /// Tells a client's decodings apart.
    pub decoding: u64,
    /// Tokens written so far: 0 stands for the prompts themselves.
    pub position: u64,
    /// Row of the position before that each row continues; empty at position 0.
    pub parents: Vec<i64>,
}

/// Keys and values of one run of blocks.
#[derive(Debug)]
pub struct DecodeCache {
    layers: Vec<KeyValues>,
    /// Tokens of every prompt.
    lengths: Vec<i64>,
    /// Prompt that each row continues.
    prompts_r: Vec<i64>,
    /// As in [`NewToken`].
    padding: Option<Tensor>,
    /// Tokens that every row has written.
    written: i64,
    device: Device,
}

impl DecodeCache {
    /// Bytes of keys and values.
    pub fn bytes(&self) -> u64 {
        self.layers.iter().map(KeyValues::bytes).sum()
    }

    /// Rows that are decoded.
    pub fn rows(&self) -> i64 {
        self.prompts_r.len() as i64
    }

    /// Tokens of the longest text so far.
    fn longest(&self) -> i64 {
        self.lengths.iter().max().copied().unwrap_or_default() + self.written
    }

    fn reorder(&mut self, parents: &[i64]) {
        self.prompts_r = parents.iter().map(|parent| self.prompts_r[*parent as usize]).collect();
        let parents_r = Tensor::from_slice(parents).to_device(self.device);
        self.layers.iter_mut().for_each(|layer| layer.reorder(&parents_r));
        self.drop_finished();
    }

    /// Drops prompts that no row continues, a quarter of them at a time: dropping copies the others.
    fn drop_finished(&mut self) {
        let live: BTreeSet<i64> = self.prompts_r.iter().copied().collect();
        if live.len() * 4 > self.lengths.len() * 3 {
            return;
        }
        let kept: Vec<i64> = live.into_iter().collect();
        let place =
            |prompt: &i64| kept.binary_search(prompt).expect("some row continues it") as i64;
        self.prompts_r = self.prompts_r.iter().map(place).collect();
        self.lengths = kept.iter().map(|prompt| self.lengths[*prompt as usize]).collect();
        let kept_p = Tensor::from_slice(&kept).to_device(self.device);
        self.layers.iter_mut().for_each(|layer| layer.keep_prompts(&kept_p));
        self.padding = self.padding.take().map(|padding| padding.index_select(0, &kept_p));
    }

    /// Where the next token of every row stands.
    fn next_token(&self) -> NewToken {
        let positions: Vec<i64> = self
            .prompts_r
            .iter()
            .map(|prompt| self.lengths[*prompt as usize] + self.written)
            .collect();
        let prompts = self.lengths.len() as i64;
        NewToken {
            positions_r: Tensor::from_slice(&positions).to_device(self.device),
            rows: RowsOfPrompts::new(&self.prompts_r, prompts, self.device),
            padding: self.padding.as_ref().map(Tensor::shallow_clone),
        }
    }
}

/// What hides the padding of prompts in `columns` columns, `[P, 1, 1, C]`; `None` if all are as long.
fn padding(lengths: &[i64], columns: i64, device: Device) -> Option<Tensor> {
    if lengths.iter().all(|length| *length == columns) {
        return None;
    }
    let lengths_p1 = Tensor::from_slice(lengths).unsqueeze(1);
    let columns_c = Tensor::arange(columns, (Kind::Int64, Device::Cpu));
    let hidden_pc = columns_c.unsqueeze(0).ge_tensor(&lengths_p1);
    let mask_pc = Tensor::zeros(hidden_pc.size(), (Kind::Float, Device::Cpu))
        .masked_fill(&hidden_pc, f64::NEG_INFINITY);
    Some(mask_pc.unsqueeze(1).unsqueeze(1).to_device(device))
}

impl BlockStack {
    /// Runs prompts `[B, T, D]`, right-padded, with `lengths_b` tokens each, to `[B, T, D]` and keeps
    /// what the tokens to come attend to.
    ///
    /// # Errors
    /// [`SplitError::NotCausal`] for blocks that attend in both directions.
    pub fn prefill(
        &self,
        hidden_btd: &Tensor,
        lengths_b: &Tensor,
    ) -> Result<(Tensor, DecodeCache), SplitError> {
        let lengths = Vec::<i64>::try_from(lengths_b).expect("lengths are integers, one a prompt");
        let mut layers = Vec::with_capacity(self.blocks().len());
        let mut hidden_btd = hidden_btd.shallow_clone();
        for block in self.blocks() {
            let block = block.as_decoder().ok_or(SplitError::NotCausal)?;
            let (output, layer) = no_grad(|| block.prefill(&hidden_btd));
            hidden_btd = output;
            layers.push(layer);
        }
        let cache = DecodeCache {
            layers,
            prompts_r: (0..lengths.len() as i64).collect(),
            padding: padding(&lengths, hidden_btd.size()[1], hidden_btd.device()),
            lengths,
            written: 0,
            device: hidden_btd.device(),
        };
        Ok((hidden_btd, cache))
    }

    /// Runs one new token a row `[R, 1, D]`; row r continues row `parents[r]` of the cache.
    ///
    /// # Errors
    /// [`SplitError::Parents`] if a parent is no row of the cache, or their number is not R.
    pub fn extend(
        &self,
        hidden_r1d: &Tensor,
        parents: &[i64],
        cache: &mut DecodeCache,
    ) -> Result<Tensor, SplitError> {
        let (rows, held) = (hidden_r1d.size(), cache.rows());
        let fits = rows[0] == parents.len() as i64 && rows[1] == 1;
        if !fits || parents.iter().any(|parent| !(0..held).contains(parent)) {
            return Err(SplitError::Parents { got: parents.to_vec(), rows, held });
        }
        cache.reorder(parents);
        let token = cache.next_token();
        let mut hidden_r1d = hidden_r1d.shallow_clone();
        for (block, layer) in self.blocks().iter().zip(&mut cache.layers) {
            let block = block.as_decoder().ok_or(SplitError::NotCausal)?;
            hidden_r1d = no_grad(|| block.extend(&hidden_r1d, &token, layer));
        }
        cache.written += 1;
        Ok(hidden_r1d)
    }
}

/// What a run of blocks is given in one turn.
#[derive(Clone, Copy, Debug)]
pub enum Turn<'a> {
    /// The prompts, `[B, T, D]`.
    Prompts {
        /// Tokens of each, `[B]`.
        lengths_b: &'a Tensor,
    },
    /// One new token a row, `[R, 1, D]`.
    Tokens {
        /// Row of the turn before that each row continues.
        parents: &'a [i64],
    },
}

impl BlockStack {
    /// One turn; `held` is what the turns before left, and what the next one needs afterwards.
    ///
    /// # Errors
    /// As [`BlockStack::prefill`] and [`BlockStack::extend`]; tokens before any prompts.
    pub fn turn(
        &self,
        hidden_btd: &Tensor,
        turn: &Turn<'_>,
        held: &mut Option<DecodeCache>,
    ) -> Result<Tensor, SplitError> {
        match turn {
            Turn::Prompts { lengths_b } => {
                let (output_btd, cache) = self.prefill(hidden_btd, lengths_b)?;
                *held = Some(cache);
                Ok(output_btd)
            }
            Turn::Tokens { parents } => {
                let cache = held.as_mut().ok_or(SplitError::NoLengths)?;
                self.extend(hidden_btd, parents, cache)
            }
        }
    }
}

/// A shard's side of one client's decoding.
#[derive(Debug)]
pub struct BodyDecoding {
    decoding: u64,
    position: u64,
    cache: DecodeCache,
    /// Answers a repeated turn.
    answer: HiddenStates,
}

impl BodyDecoding {
    /// Bytes of keys and values.
    pub fn bytes(&self) -> u64 {
        self.cache.bytes()
    }

    /// Runs a turn on `stack`. `held` is what the client's earlier turns left, and is replaced.
    /// `None` comes back if it is not there any more: the decoding has to start over. Texts have at most
    /// `positions` tokens.
    pub fn turn(
        held: &mut Option<Self>,
        stack: &BlockStack,
        turn: &DecodeTurn,
        hidden: &HiddenStates,
        positions: i64,
    ) -> Result<Option<HiddenStates>, SplitError> {
        let same = |held: &&mut Self| held.decoding == turn.decoding;
        let (answer, cache) = match held.as_mut().filter(same) {
            Some(held) if held.position == turn.position => {
                return Ok(Some(held.answer.share()));
            }
            Some(held) if held.position + 1 == turn.position => {
                let position = held.cache.longest();
                if position >= positions {
                    return Err(SplitError::TooLong { position, positions });
                }
                let output = stack.extend(hidden.tensor(), &turn.parents, &mut held.cache)?;
                held.answer = HiddenStates::new(&output);
                held.position = turn.position;
                return Ok(Some(held.answer.share()));
            }
            _ if turn.position == 0 => {
                let lengths_b = hidden.lengths().ok_or(SplitError::NoLengths)?;
                stack.prefill(hidden.tensor(), lengths_b)?
            }
            _ => return Ok(None),
        };
        // The next stage starts from the prompts as well.
        let answer = HiddenStates::new(&answer).with_lengths(hidden.lengths());
        let output = answer.share();
        let (decoding, position) = (turn.decoding, turn.position);
        *held = Some(Self { decoding, position, cache, answer });
        Ok(Some(output))
    }
}
