//! Rotary position embedding (arXiv 2104.09864) in Llama's layout: halves, not pairs.
//!
//! Shapes: B = batch, H = heads, T = positions, E = head width.

use tch::{Device, Kind, Tensor};

use super::architecture::{Architecture, BlockKind, Rope, RopeScaling};

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
    pub fn new(length: i64, head_dim: i64, rope: &Rope, kind: Kind, device: Device) -> Self {
        let options = (Kind::Double, Device::Cpu);
        let exponents = Tensor::arange_start_step(0, head_dim, 2, options) / head_dim as f64;
        let frequencies = scaled((exponents * -rope.theta.ln()).exp(), &rope.scaling);
        let angles = Tensor::arange(length, options).outer(&frequencies);
        Self {
            cos: angles.cos().to_kind(kind).to_device(device),
            sin: angles.sin().to_kind(kind).to_device(device),
        }
    }

    /// The tables of a network, for texts of at most `length` tokens.
    pub fn of(architecture: &Architecture, length: i64, kind: Kind, device: Device) -> Self {
        match &architecture.blocks {
            BlockKind::Decoder(decoder) => {
                Self::new(length, architecture.head_dim, &decoder.rope, kind, device)
            }
            BlockKind::Encoder(_) => Self::empty(),
        }
    }

    /// No positions: what blocks of another kind get, which never ask.
    pub fn empty() -> Self {
        let empty = || Tensor::empty([0, 0], (Kind::Float, Device::Cpu));
        Self { cos: empty(), sin: empty() }
    }

    /// Handles on the same tables.
    pub fn share(&self) -> Self {
        Self { cos: self.cos.shallow_clone(), sin: self.sin.shallow_clone() }
    }

    /// Rotates queries or keys `[B, H, T, E]` by their positions 0..T.
    pub fn apply(&self, x_bhte: &Tensor) -> Tensor {
        let length = x_bhte.size()[2];
        rotate(x_bhte, &self.cos.narrow(0, 0, length), &self.sin.narrow(0, 0, length))
    }

    /// Rotates queries or keys `[B, H, 1, E]` of one new token a row, each by its own position `[B]`.
    pub fn apply_at(&self, x_bhte: &Tensor, positions_b: &Tensor) -> Tensor {
        // [B, E/2] to [B, 1, 1, E/2].
        let rows = |table: &Tensor| table.index_select(0, positions_b).unsqueeze(1).unsqueeze(1);
        rotate(x_bhte, &rows(&self.cos), &rows(&self.sin))
    }
}

fn rotate(x_bhte: &Tensor, cos: &Tensor, sin: &Tensor) -> Tensor {
    let halves = x_bhte.chunk(2, -1);
    let (low, high) = (&halves[0], &halves[1]);
    Tensor::cat(&[low * cos - high * sin, high * cos + low * sin], -1)
}

/// The frequencies as the checkpoint's training had them, the same formula as in Hugging Face
/// transformers.
fn scaled(frequencies: Tensor, scaling: &RopeScaling) -> Tensor {
    match *scaling {
        RopeScaling::None => frequencies,
        RopeScaling::Linear { factor } => frequencies / factor,
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_positions } => {
            let wavelengths = frequencies.reciprocal() * std::f64::consts::TAU;
            let turns = wavelengths.reciprocal() * original_positions;
            // 0 for wavelengths so long that they are divided, 1 for those so short that they stay.
            let kept =
                ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
            (1.0 - &kept) * &frequencies / factor + kept * frequencies
        }
    }
}
