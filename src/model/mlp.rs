//! SwiGLU feed-forward layer (arXiv 2002.05202).

use tch::Tensor;

use super::linear::Linear;
use super::pass::Pass;
use super::spec::Params;
use crate::config::LoraConfig;

/// `down(silu(gate(x)) * up(x))`.
#[derive(Debug)]
pub struct Mlp {
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Mlp {
    /// The layer called `name`, as in `model.layers.0.mlp`.
    pub fn new(params: &Params<'_>, name: &str, lora: &LoraConfig) -> Self {
        let linear = |projection: &str| Linear::new(params, &format!("{name}.{projection}"), lora);
        Self { gate: linear("gate_proj"), up: linear("up_proj"), down: linear("down_proj") }
    }

    /// `[B, T, D]` to `[B, T, D]`.
    pub fn forward(&self, x_btd: &Tensor, pass: &Pass<'_>) -> Tensor {
        let gated = self.gate.forward(x_btd, pass).silu() * self.up.forward(x_btd, pass);
        self.down.forward(&gated, pass)
    }
}
