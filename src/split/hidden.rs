//! What crosses the cut.

use tch::{Kind, Tensor};

use super::SplitError;

/// Hidden states or their gradients, `[B, T, D]`, cut off from the sender's graph.
///
/// Detached when made: otherwise a backward pass on the other side would walk into the sender's
/// graph in one process and not over nodes (protocol.md 3).
#[derive(Debug)]
pub struct HiddenStates(Tensor);

impl HiddenStates {
    /// Wraps a tensor.
    pub fn new(hidden_btd: &Tensor) -> Self {
        Self(hidden_btd.detach())
    }

    /// The tensor, `[B, T, D]`.
    pub fn tensor(&self) -> &Tensor {
        &self.0
    }

    /// Another handle on the same storage, for a message that may be sent twice.
    pub fn share(&self) -> Self {
        Self(self.0.shallow_clone())
    }

    /// Size of the elements on a wire, in bytes.
    pub fn bytes(&self) -> u64 {
        (self.0.numel() * self.0.kind().elt_size_in_bytes()) as u64
    }

    /// Checks what the receiver relies on: three dimensions, the width of the model, a float type.
    pub fn check(&self, width: i64) -> Result<(), SplitError> {
        let got = self.0.size();
        let is_float = matches!(self.0.kind(), Kind::Float | Kind::BFloat16 | Kind::Half);
        if got.len() == 3 && got[2] == width && is_float {
            return Ok(());
        }
        Err(SplitError::ShapeMismatch { got, width })
    }

    /// Checks that these are the answer to a half pass of hidden states of shape `expected`.
    pub fn check_shape(&self, expected: &[i64]) -> Result<(), SplitError> {
        self.check(expected.last().copied().unwrap_or_default())?;
        let got = self.0.size();
        if got == expected {
            return Ok(());
        }
        Err(SplitError::OtherShape { got, expected: expected.to_vec() })
    }
}
