//! Arithmetic of a training step, counted.

use fellrec::config::{LoraConfig, Projection};
use fellrec::model::architecture::Architecture;

/// FLOPs of one token in an optimiser step with LoRA over `layers` blocks, and over the head where the
/// role has it: forward and backward, each product counted once, recomputation not counted.
///
/// A frozen matrix of n elements costs 2 n a token forward and 2 n backward (no weight gradient).
/// Causal attention costs 2 T D a token and layer forward and twice that backward. An adapter of
/// rank r costs 2 r (in + out) forward and twice that backward.
pub fn token_flops(
    architecture: &Architecture,
    lora: &LoraConfig,
    layers: i64,
    head: bool,
    seq: i64,
) -> f64 {
    let (d, f) = (architecture.hidden as f64, architecture.ffn as f64);
    let queries = (architecture.head_dim * architecture.heads) as f64;
    let keys = (architecture.head_dim * architecture.kv_heads) as f64;
    let layers = layers as f64;
    let block = 2.0 * d * queries + 2.0 * d * keys + 3.0 * d * f;
    let vocab = if head { architecture.vocab as f64 } else { 0.0 };
    let frozen = layers * block + d * vocab;
    let attention = layers * 3.0 * 2.0 * seq as f64 * queries;
    let widths = |target: &Projection| match target {
        Projection::QProj | Projection::OProj => d + queries,
        Projection::KProj | Projection::VProj => d + keys,
        Projection::GateProj | Projection::UpProj | Projection::DownProj => d + f,
    };
    let adapted: f64 = lora.targets.iter().map(widths).sum();
    let adapters = layers * 6.0 * lora.rank as f64 * adapted;
    4.0 * frozen + attention + adapters
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: 32 blocks of 202,375,168 matrix elements and a head of 131,072,000, four times; attention
    /// 32 * 6 * 512 * 4096; rank 8 on q and v, 32 * 6 * 8 * 2 * 8192.
    #[test]
    fn llama_2_7b_is_counted_as_by_hand() {
        let architecture = Architecture::named("llama-2-7b").expect("listed");
        let lora = LoraConfig {
            rank: 8,
            targets: vec![Projection::QProj, Projection::VProj],
            ..LoraConfig::none()
        };
        let expected = 4.0 * (32.0 * 202_375_168.0 + 131_072_000.0)
            + 32.0 * 6.0 * 512.0 * 4096.0
            + 32.0 * 6.0 * 8.0 * 2.0 * 8192.0;
        assert_eq!(token_flops(&architecture, &lora, 32, true, 512), expected);
        // The roles of a cut add up to the whole.
        let part = |layers, head| token_flops(&architecture, &lora, layers, head, 512);
        assert_eq!(part(2, true) + part(30, false), expected);
    }
}
