//! Arithmetic of a training step, counted.

use fellrec::config::{Config, Projection};

/// FLOPs of one optimiser step of one client with LoRA: forward and backward, each product counted
/// once, recomputation not counted.
///
/// A frozen matrix of n elements costs 2 n a token forward and 2 n backward (no weight gradient).
/// Causal attention costs 2 T D a token and layer forward and twice that backward. An adapter of
/// rank r costs 2 r (in + out) forward and twice that backward.
pub fn step_flops(config: &Config, seq: i64, vocab: i64) -> f64 {
    let model = &config.model;
    let (d, f) = (model.hidden as f64, model.ffn as f64);
    let keys = (model.head_dim() * model.kv_heads) as f64;
    let block = 2.0 * d * d + 2.0 * d * keys + 3.0 * d * f;
    let frozen = model.layers as f64 * block + d * vocab as f64;
    let attention = model.layers as f64 * 3.0 * 2.0 * seq as f64 * d;
    let widths = |target: &Projection| match target {
        Projection::QProj | Projection::OProj => d + d,
        Projection::KProj | Projection::VProj => d + keys,
        Projection::GateProj | Projection::UpProj | Projection::DownProj => d + f,
    };
    let adapted: f64 = config.lora.targets.iter().map(widths).sum();
    let lora = model.layers as f64 * 6.0 * config.lora.rank as f64 * adapted;
    let tokens = f64::from(config.training.batch.get()) * seq as f64;
    tokens * (4.0 * frozen + attention + lora)
}
