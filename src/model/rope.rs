//! Rotary position embedding (arXiv 2104.09864) in Llama's layout: halves, not pairs.
//!
//! Shapes: B = batch, H = heads, T = positions, E = head width.

use tch::{Device, Kind, Tensor};

/// Cosines and sines of every position up to a length.
#[derive(Debug)]
pub struct RopeTable {
    /// `[T, E/2]`.
    cos: Tensor,
    /// `[T, E/2]`.
    sin: Tensor,
}

impl RopeTable {
    /// Tables for `length` positions of heads `head_dim` wide, computed in f64, kept as `kind`.
    pub fn new(length: i64, head_dim: i64, theta: f64, kind: Kind, device: Device) -> Self {
        let options = (Kind::Double, Device::Cpu);
        let exponents = Tensor::arange_start_step(0, head_dim, 2, options) / head_dim as f64;
        let frequencies = (exponents * -theta.ln()).exp();
        let angles = Tensor::arange(length, options).outer(&frequencies);
        Self {
            cos: angles.cos().to_kind(kind).to_device(device),
            sin: angles.sin().to_kind(kind).to_device(device),
        }
    }

    /// Handles on the same tables.
    pub fn share(&self) -> Self {
        Self { cos: self.cos.shallow_clone(), sin: self.sin.shallow_clone() }
    }

    /// Rotates queries or keys `[B, H, T, E]` by their positions 0..T.
    pub fn apply(&self, x_bhte: &Tensor) -> Tensor {
        let length = x_bhte.size()[2];
        let (cos, sin) = (self.cos.narrow(0, 0, length), self.sin.narrow(0, 0, length));
        let halves = x_bhte.chunk(2, -1);
        let (low, high) = (&halves[0], &halves[1]);
        Tensor::cat(&[low * &cos - high * &sin, high * &cos + low * &sin], -1)
    }
}
