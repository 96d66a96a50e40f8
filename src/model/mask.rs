//! Dropout masks from our own counter-based generator.
//!
//! libtorch's generator is shared between threads, so its masks depend on who ran first
//! (architecture.md 3). Ours depend on (run seed, client, step, layer) and nothing else, which is
//! also what lets a recomputed block find the mask it had.

use rand::RngCore;
use tch::{Device, Kind, Tensor};

use crate::ids::{ClientId, StepId};
use crate::seed;

/// Identifies the masks of one training step. Absent in evaluation: then nothing is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaskSeed {
    /// Seed of the run.
    pub run_seed: u64,
    /// Client the step belongs to.
    pub client: ClientId,
    /// The step.
    pub step: StepId,
}

impl MaskSeed {
    /// Multipliers of shape `size`: 0 with probability `p`, else `1 / (1 - p)`; f32 on `device`.
    ///
    /// The probability is rounded to a multiple of 2^-16, and the scale uses the rounded one.
    pub fn mask(&self, layer: &str, size: &[i64], p: f64, device: Device) -> Tensor {
        let numel: i64 = size.iter().product();
        let parts = [u64::from(self.client.0), self.step.round.0, self.step.step];
        let mut bytes = vec![0u8; numel as usize * 2];
        seed::rng(self.run_seed, layer, &parts).fill_bytes(&mut bytes);
        let threshold = (p * 65536.0).round();
        let draws = Tensor::from_data_size(&bytes, size, Kind::Int16).to_device(device);
        // Int16 draws are uniform on [-32768, 32767]; the lowest `threshold` of them drop.
        let kept = draws.ge((threshold - 32768.0) as i64);
        kept.to_kind(Kind::Float) * (65536.0 / (65536.0 - threshold))
    }
}

/// Drops elements of `x` in training; `x` itself when `p` is 0 or in evaluation.
pub fn dropout(x: &Tensor, p: f64, layer: &str, masks: Option<&MaskSeed>) -> Tensor {
    match masks {
        Some(seed) if p > 0.0 => x * seed.mask(layer, &x.size(), p, x.device()).to_kind(x.kind()),
        _ => x.shallow_clone(),
    }
}
