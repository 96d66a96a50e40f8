//! Layer normalisation (arXiv 1607.06450).

use tch::Tensor;

use crate::model::spec::{Init, Params, TensorSpec};

/// `y = (x - mean(x)) / sqrt(var(x) + eps) * w + b` over the last dimension.
#[derive(Debug)]
pub struct LayerNorm {
    /// `[D]`.
    weight: Tensor,
    /// `[D]`.
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// The layer called `name`.
    pub fn new(params: &Params<'_>, name: &str, eps: f64) -> Self {
        Self {
            weight: params.tensor(&format!("{name}.weight")),
            bias: params.tensor(&format!("{name}.bias")),
            eps,
        }
    }

    /// `[.., D]` to `[.., D]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), self.eps, false)
    }
}

/// Tensors of the layer `name`, `width` features wide: at first it only normalises.
pub(super) fn norm_specs(name: &str, width: i64) -> [TensorSpec; 2] {
    [
        TensorSpec::new(format!("{name}.weight"), &[width], Init::Ones),
        TensorSpec::new(format!("{name}.bias"), &[width], Init::Zeros),
    ]
}
