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
        let parts = [u64::from(self.client.0), self.step.round.0, self.step.step];
        let mut rng = seed::rng(self.run_seed, layer, &parts);
        let draws = match device {
            Device::Cpu => {
                let numel: i64 = size.iter().product();
                let mut bytes = vec![0u8; numel as usize * 2];
                rng.fill_bytes(&mut bytes);
                Tensor::from_data_size(&bytes, size, Kind::Int16)
            }
            // Nothing as large as the activations is copied to a GPU.
            device => counter_draws(rng.next_u64(), size, device),
        };
        let threshold = (p * 65536.0).round();
        // Draws are uniform on [-32768, 32767]; the lowest `threshold` of them drop.
        let kept = draws.ge((threshold - 32768.0) as i64);
        kept.to_kind(Kind::Float) * (65536.0 / (65536.0 - threshold))
    }
}

/// Draws uniform on [-32768, 32767], made where they are needed: the finaliser of MurmurHash3 (public
/// domain, Appleby) over a counter and a key, in 64-bit integers that wrap.
fn counter_draws(key: u64, size: &[i64], device: Device) -> Tensor {
    /// 2^64 over the golden ratio: neighbouring counters start far apart (Weyl sequence).
    const STEP: i64 = 0x9e37_79b9_7f4a_7c15_u64 as i64;
    const MIX: [i64; 2] = [0xff51_afd7_ed55_8ccd_u64 as i64, 0xc4ce_b9fe_1a85_ec53_u64 as i64];
    let numel: i64 = size.iter().product();
    // A shift of signed numbers repeats the sign; these are the bits that are not it.
    let folded = |x: &Tensor| {
        let shifted = x.bitwise_right_shift_tensor_scalar(33).bitwise_and(0x7fff_ffff);
        x.bitwise_xor_tensor(&shifted)
    };
    let mut x = Tensor::arange(numel, (Kind::Int64, device)) * STEP + key as i64;
    for mix in MIX {
        x = folded(&x) * mix;
    }
    (folded(&x).bitwise_and(0xffff) - 32768).view(size)
}

/// Drops elements of `x` in training; `x` itself when `p` is 0 or in evaluation.
pub fn dropout(x: &Tensor, p: f64, layer: &str, masks: Option<&MaskSeed>) -> Tensor {
    match masks {
        Some(seed) if p > 0.0 => x * seed.mask(layer, &x.size(), p, x.device()).to_kind(x.kind()),
        _ => x.shallow_clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(key: u64, count: i64) -> Vec<i64> {
        Vec::try_from(counter_draws(key, &[count], Device::Cpu)).expect("integers")
    }

    /// The same arithmetic in unsigned integers of the language.
    #[test]
    fn counter_draws_are_those_of_the_hash() {
        let hash = |index: u64, key: u64| {
            let mut x = index.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(key);
            for mix in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
                x = (x ^ (x >> 33)).wrapping_mul(mix);
            }
            ((x ^ (x >> 33)) & 0xffff) as i64 - 32768
        };
        for key in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef] {
            let expected: Vec<i64> = (0..1000).map(|index| hash(index, key)).collect();
            assert_eq!(draws(key, 1000), expected);
        }
    }

    /// Chi-square over 256 cells: 255 degrees of freedom, so 1 in 10,000 exceeds 347 and 1 in 10,000 is
    /// below 181.
    #[test]
    fn counter_draws_are_uniform_and_keys_independent() {
        let count = 1 << 18;
        let (first, second) = (draws(7, count), draws(8, count));
        let chi_square = |cells: &[u32; 256]| {
            let expected = count as f64 / 256.0;
            cells.iter().map(|n| (f64::from(*n) - expected).powi(2) / expected).sum::<f64>()
        };
        let mut cells = [[0u32; 256]; 3];
        for (a, b) in first.iter().zip(&second) {
            cells[0][((a + 32768) >> 8) as usize] += 1;
            cells[1][((b + 32768) >> 8) as usize] += 1;
            // Joint: 16 by 16 cells of both keys at the same counter.
            cells[2][((((a + 32768) >> 12) << 4) + ((b + 32768) >> 12)) as usize] += 1;
        }
        for cells in &cells {
            let value = chi_square(cells);
            assert!((181.0..347.0).contains(&value), "chi-square {value}");
        }
        let dropped = first.iter().filter(|draw| **draw < 6554 - 32768).count() as f64;
        let (mean, sd) = (0.1 * count as f64, (0.09 * count as f64).sqrt());
        assert!((dropped - mean).abs() < 4.0 * sd, "{dropped} of {count} dropped at 0.1");
    }
}
