//! Linear layer with an optional low-rank adapter (LoRA, arXiv 2106.09685).

use tch::{Kind, Tensor};

use super::mask::{MaskSeed, dropout};
use super::pass::Pass;
use super::spec::{Init, Params, TensorSpec};
use crate::config::LoraConfig;

/// `y = x W' + b`, plus `(alpha / r) dropout(x) A' B'` where an adapter is present.
#[derive(Debug)]
pub struct Linear {
    /// `[out, in]`.
    weight: Tensor,
    /// `[out]`.
    bias: Option<Tensor>,
    /// Of each client in the passes, if there are any.
    adapters: Vec<Adapter>,
}

#[derive(Debug)]
struct Adapter {
    name: String,
    /// `[r, in]`.
    a: Tensor,
    /// `[out, r]`.
    b: Tensor,
    scale: f64,
    dropout: f64,
}

impl Linear {
    /// The layer called `name`, with an adapter if `params` hold one.
    pub fn new(params: &Params<'_>, name: &str, lora: &LoraConfig) -> Self {
        let (all_a, all_b) = (params.of_each(&lora_a(name)), params.of_each(&lora_b(name)));
        assert_eq!(all_a.len(), all_b.len(), "the specs name both matrices of `{name}`");
        let matrices = all_a.into_iter().zip(all_b);
        let adapter = |(a, b)| Adapter {
            name: lora_a(name),
            a,
            b,
            scale: lora.alpha / lora.rank as f64,
            dropout: lora.dropout,
        };
        Self {
            weight: params.tensor(&format!("{name}.weight")),
            bias: params.optional(&format!("{name}.bias")),
            adapters: matrices.map(adapter).collect(),
        }
    }

    /// `[.., in]` to `[.., out]`.
    pub fn forward(&self, x: &Tensor, pass: &Pass<'_>) -> Tensor {
        let base = x.linear(&self.weight, self.bias.as_ref());
        if self.adapters.is_empty() {
            return base;
        }
        debug_assert_eq!(self.adapters.len(), pass.clients());
        base + pass.each([x], |client, [x], inputs| {
            self.adapters[client].forward(&x, inputs.masks).to_kind(self.weight.kind())
        })
    }
}

impl Adapter {
    /// Computed in the adapter's own number type: a bf16 base keeps f32 adapters.
    fn forward(&self, x: &Tensor, masks: Option<&MaskSeed>) -> Tensor {
        let x = if x.kind() == self.a.kind() { x.shallow_clone() } else { x.to_kind(Kind::Float) };
        let low_rank =
            dropout(&x, self.dropout, &self.name, masks).linear::<&Tensor>(&self.a, None);
        (low_rank * self.scale).linear::<&Tensor>(&self.b, None)
    }
}

/// Adapter tensors of the linear layer `name`: B starts at zero, so an untrained adapter changes
/// nothing; A is uniform in `1 / sqrt(in)`, PEFT's default.
pub fn adapter_specs(name: &str, inputs: i64, outputs: i64, rank: i64) -> [TensorSpec; 2] {
    let bound = 1.0 / (inputs as f64).sqrt();
    [
        TensorSpec::new(lora_a(name), &[rank, inputs], Init::Uniform(bound)),
        TensorSpec::new(lora_b(name), &[outputs, rank], Init::Zeros),
    ]
}

/// Name of the matrix A of the linear layer `name`.
pub fn lora_a(name: &str) -> String {
    format!("{name}.lora_A.weight")
}

/// Name of the matrix B of the linear layer `name`.
pub fn lora_b(name: &str) -> String {
    format!("{name}.lora_B.weight")
}
