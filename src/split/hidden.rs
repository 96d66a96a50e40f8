//! What crosses the cut.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::SplitError;
use crate::model::mask::MaskSeed;
use crate::model::packed;
use crate::model::pass::BlockInputs;

/// What hidden states a shard takes: more than a client's config makes it send is a mistake, or worse.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FrameLimits {
    /// Hidden width of the model, D.
    pub width: i64,
    /// Number type of activations.
    pub kind: Kind,
    /// Largest batch, B.
    pub rows: i64,
    /// Longest input, T.
    pub positions: i64,
}

/// Hidden states or their gradients, `[B, T, D]`, cut off from the sender's graph.
///
/// Detached when made: otherwise a backward pass on the other side would walk into the sender's
/// graph in one process and not over nodes (protocol.md 3).
#[derive(Debug, Serialize, Deserialize)]
pub struct HiddenStates {
    #[serde(with = "packed")]
    hidden_btd: Tensor,
    /// Real positions of every row, `[B]`; with blocks that attend in both directions only.
    #[serde(with = "packed::option")]
    lengths_b: Option<Tensor>,
}

impl HiddenStates {
    /// Wraps a tensor.
    pub fn new(hidden_btd: &Tensor) -> Self {
        Self { hidden_btd: hidden_btd.detach(), lengths_b: None }
    }

    /// The same with the real positions of every row, `[B]` of i64: what follows them is padding.
    pub fn with_lengths(self, lengths_b: Option<&Tensor>) -> Self {
        Self { lengths_b: lengths_b.map(Tensor::shallow_clone), ..self }
    }

    /// The tensor, `[B, T, D]`.
    pub fn tensor(&self) -> &Tensor {
        &self.hidden_btd
    }

    /// Real positions of every row, `[B]`, where they were told.
    pub fn lengths(&self) -> Option<&Tensor> {
        self.lengths_b.as_ref()
    }

    /// Another handle on the same storage, for a message that may be sent twice.
    pub fn share(&self) -> Self {
        let lengths_b = self.lengths_b.as_ref().map(Tensor::shallow_clone);
        Self { hidden_btd: self.hidden_btd.shallow_clone(), lengths_b }
    }

    /// Size of the elements on a wire, in bytes.
    pub fn bytes(&self) -> u64 {
        let bytes = |t: &Tensor| (t.numel() * t.kind().elt_size_in_bytes()) as u64;
        bytes(&self.hidden_btd) + self.lengths_b.as_ref().map_or(0, bytes)
    }

    /// Checks what the receiver relies on: three dimensions, the width of the model, a float type,
    /// and one length within the row for every row where there are lengths.
    pub fn check(&self, width: i64) -> Result<(), SplitError> {
        let got = self.hidden_btd.size();
        let kind = self.hidden_btd.kind();
        let is_float = matches!(kind, Kind::Float | Kind::BFloat16 | Kind::Half);
        if got.len() != 3 || got[2] != width || !is_float {
            return Err(SplitError::ShapeMismatch { got, width });
        }
        match &self.lengths_b {
            Some(lengths_b) if !are_lengths(lengths_b, got[0], got[1]) => {
                let lengths = lengths_b.size();
                Err(SplitError::Lengths { got: lengths, rows: got[0], positions: got[1] })
            }
            _ => Ok(()),
        }
    }

    /// What blocks compute with beside these, with the dropout masks of a training step.
    pub fn inputs<'a>(&'a self, masks: Option<&'a MaskSeed>) -> BlockInputs<'a> {
        BlockInputs { masks, lengths_b: self.lengths() }
    }

    /// [`HiddenStates::check`], and that a shard with these limits takes them.
    pub fn check_limits(&self, limits: &FrameLimits) -> Result<(), SplitError> {
        self.check(limits.width)?;
        let (got, kind) = (self.hidden_btd.size(), self.hidden_btd.kind());
        let fits = (1..=limits.rows).contains(&got[0]) && (1..=limits.positions).contains(&got[1]);
        if fits && kind == limits.kind {
            return Ok(());
        }
        Err(SplitError::Beyond { got, kind, limits: *limits })
    }

    /// Checks that these are the answer to a half pass of hidden states of shape `expected`.
    pub fn check_shape(&self, expected: &[i64]) -> Result<(), SplitError> {
        self.check(expected.last().copied().unwrap_or_default())?;
        let got = self.hidden_btd.size();
        if got == expected {
            return Ok(());
        }
        Err(SplitError::OtherShape { got, expected: expected.to_vec() })
    }
}

fn are_lengths(lengths_b: &Tensor, rows: i64, positions: i64) -> bool {
    let within = || {
        let within = lengths_b.ge(1).logical_and(&lengths_b.le(positions));
        within.all().int64_value(&[]) != 0
    };
    lengths_b.kind() == Kind::Int64 && lengths_b.size() == [rows] && within()
}
