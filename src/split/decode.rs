//! Decoding token by token over the cut: what each side keeps of the tokens so far.
//!
//! A decoding is a batch of prompts and what is written after them. Front and back keep their
//! keys and values on the client, every stage of the body on its shard; the beams are re-ordered on
//! all of them alike (protocol.md 5).
//!
//! Shapes: B = rows, T = tokens of the longest prompt, D = hidden width.

use tch::{Kind, Tensor, no_grad};

use super::SplitError;
use super::hidden::HiddenStates;
use super::stack::BlockStack;
use crate::model::attention::{KeyValues, NewToken};

/// One step of a decoding, as every side is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Tokens of every row's prompt, `[B]`.
    lengths_b: Tensor,
    /// T, the columns that prompts take, padding included.
    prompt_columns: i64,
    /// Columns of written tokens.
    written: i64,
    /// Whether some prompt is shorter than the others, so that its padding has to be masked.
    padded: bool,
}

impl DecodeCache {
    /// Bytes of keys and values.
    pub fn bytes(&self) -> u64 {
        self.layers.iter().map(KeyValues::bytes).sum()
    }

    /// Rows that are decoded.
    pub fn rows(&self) -> i64 {
        self.lengths_b.size()[0]
    }

    fn reorder(&mut self, parents: &[i64]) {
        let same = parents.len() as i64 == self.rows()
            && parents.iter().enumerate().all(|(row, parent)| row as i64 == *parent);
        if same {
            return;
        }
        let parents_b = Tensor::from_slice(parents).to_device(self.lengths_b.device());
        self.lengths_b = self.lengths_b.index_select(0, &parents_b);
        self.layers.iter_mut().for_each(|layer| layer.reorder(&parents_b));
    }

    /// Where the next token of every row stands.
    fn next_token(&self) -> NewToken {
        let positions_b = &self.lengths_b + self.written;
        let visible = self.padded.then(|| {
            let columns = self.prompt_columns + self.written + 1;
            let device = self.lengths_b.device();
            let columns_c = Tensor::arange(columns, (Kind::Int64, device)).unsqueeze(0);
            let in_prompt = columns_c.lt_tensor(&self.lengths_b.unsqueeze(1));
            let written = columns_c.ge(self.prompt_columns);
            in_prompt.logical_or(&written).unsqueeze(1).unsqueeze(1)
        });
        NewToken { positions_b, visible }
    }
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
        let prompt_columns = hidden_btd.size()[1];
        let padded = lengths_b.min().int64_value(&[]) < prompt_columns;
        let mut layers = Vec::with_capacity(self.blocks().len());
        let mut hidden_btd = hidden_btd.shallow_clone();
        for block in self.blocks() {
            let block = block.as_decoder().ok_or(SplitError::NotCausal)?;
            let (output, layer) = no_grad(|| block.prefill(&hidden_btd));
            hidden_btd = output;
            layers.push(layer);
        }
        let lengths_b = lengths_b.shallow_clone();
        Ok((hidden_btd, DecodeCache { layers, lengths_b, prompt_columns, written: 0, padded }))
    }

    /// Runs one new token a row `[B, 1, D]`; row b continues row `parents[b]` of the cache.
    ///
    /// # Errors
    /// [`SplitError::Parents`] if a parent is no row of the cache, or their number is not B.
    pub fn extend(
        &self,
        hidden_btd: &Tensor,
        parents: &[i64],
        cache: &mut DecodeCache,
    ) -> Result<Tensor, SplitError> {
        let (rows, held) = (hidden_btd.size(), cache.rows());
        let fits = rows[0] == parents.len() as i64 && rows[1] == 1;
        if !fits || parents.iter().any(|parent| !(0..held).contains(parent)) {
            return Err(SplitError::Parents { got: parents.to_vec(), rows, held });
        }
        cache.reorder(parents);
        let token = cache.next_token();
        let mut hidden_btd = hidden_btd.shallow_clone();
        for (block, layer) in self.blocks().iter().zip(&mut cache.layers) {
            let block = block.as_decoder().ok_or(SplitError::NotCausal)?;
            hidden_btd = no_grad(|| block.extend(&hidden_btd, &token, layer));
        }
        cache.written += 1;
        Ok(hidden_btd)
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
    /// One new token a row, `[B, 1, D]`.
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
    /// `None` comes back if it is not there any more: the decoding has to start over.
    pub fn turn(
        held: &mut Option<Self>,
        stack: &BlockStack,
        turn: &DecodeTurn,
        hidden: &HiddenStates,
    ) -> Result<Option<HiddenStates>, SplitError> {
        let same = |held: &&mut Self| held.decoding == turn.decoding;
        let (answer, cache) = match held.as_mut().filter(same) {
            Some(held) if held.position == turn.position => {
                return Ok(Some(held.answer.share()));
            }
            Some(held) if held.position + 1 == turn.position => {
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
