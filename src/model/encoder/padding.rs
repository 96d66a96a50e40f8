//! Which positions of right-padded rows hold something.
//!
//! Shapes: B = batch, T = positions.

use tch::{Device, Kind, Tensor};

/// Real positions of a batch, made once and read by every block.
#[derive(Debug)]
pub struct Padding {
    /// True where a row has a token, `[B, T]`; absent where no row is padded.
    real_bt: Option<Tensor>,
}

impl Padding {
    /// Rows with `lengths` real positions each, at least 1, padded to `width`.
    pub fn new(lengths: &[i64], width: i64, device: Device) -> Self {
        if lengths.iter().all(|length| *length == width) {
            return Self { real_bt: None };
        }
        let positions_t = Tensor::arange(width, (Kind::Int64, device));
        let lengths_b = Tensor::from_slice(lengths).to_device(device);
        Self { real_bt: Some(positions_t.lt_tensor(&lengths_b.unsqueeze(1))) }
    }

    /// Bool `[B, T]`, true at real positions; `None` where all are.
    pub fn real_bt(&self) -> Option<&Tensor> {
        self.real_bt.as_ref()
    }
}
