//! Root mean square normalisation (arXiv 1910.07467), as Llama has it.

use tch::Tensor;

use super::spec::Params;

/// `y = x / sqrt(mean(x^2) + eps) * w` over the last dimension.
#[derive(Debug)]
pub struct RmsNorm {
    /// `[D]`.
    weight: Tensor,
    eps: f64,
}

impl RmsNorm {
    /// The layer called `name`.
    pub fn new(params: &Params<'_>, name: &str, eps: f64) -> Self {
        Self { weight: params.tensor(&format!("{name}.weight")), eps }
    }

    /// `[.., D]` to `[.., D]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.rms_norm(self.weight.size(), Some(&self.weight), self.eps)
    }
}
