//! Which positions of right-padded rows hold something.
//!
//! Shapes: B = batch, T = positions.

use tch::{Kind, Tensor};

/// Real positions of a batch.
#[derive(Debug)]
pub struct Padding {
    /// True where a row has a token, `[B, T]`; absent where no row is padded.
    real_bt: Option<Tensor>,
}

impl Padding {
    /// Rows with `lengths_b` real positions each, `[B]` of i64 and at least 1, in `width` positions.
    /// Without lengths no position is padding.
    pub fn new(lengths_b: Option<&Tensor>, width: i64) -> Self {
        let real = |lengths_b: &Tensor| {
            let positions_t = Tensor::arange(width, (Kind::Int64, lengths_b.device()));
            positions_t.lt_tensor(&lengths_b.unsqueeze(1))
        };
        Self { real_bt: lengths_b.map(real) }
    }

    /// Bool `[B, T]`, true at real positions; `None` where all are.
    pub fn real_bt(&self) -> Option<&Tensor> {
        self.real_bt.as_ref()
    }
}
