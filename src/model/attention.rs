//! Causal grouped-query self-attention.
//!
//! Shapes: B = batch, T = tokens, D = hidden width, H = heads, E = head width.

use tch::Tensor;

use super::linear::Linear;
use super::mask::MaskSeed;
use super::rope::RopeTable;
use super::spec::Params;
use crate::config::{LoraConfig, ModelConfig};

/// Projections around libtorch's fused attention. Right padding needs no mask: no real position
/// attends to a later one.
#[derive(Debug)]
pub struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    heads: i64,
    kv_heads: i64,
}

impl Attention {
    /// The layer called `name`, as in `model.layers.0.self_attn`.
    pub fn new(params: &Params<'_>, name: &str, model: &ModelConfig, lora: &LoraConfig) -> Self {
        let linear = |projection: &str| Linear::new(params, &format!("{name}.{projection}"), lora);
        Self {
            q: linear("q_proj"),
            k: linear("k_proj"),
            v: linear("v_proj"),
            o: linear("o_proj"),
            heads: model.heads,
            kv_heads: model.kv_heads,
        }
    }

    /// `[B, T, D]` to `[B, T, D]`.
    pub fn forward(&self, x_btd: &Tensor, rope: &RopeTable, masks: Option<&MaskSeed>) -> Tensor {
        let (batch, length, _) = x_btd.size3().expect("frames have three dimensions");
        let split = |projected: Tensor, heads: i64| {
            projected.view([batch, length, heads, -1]).transpose(1, 2)
        };
        let q_bhte = rope.apply(&split(self.q.forward(x_btd, masks), self.heads));
        let k_bhte = rope.apply(&split(self.k.forward(x_btd, masks), self.kv_heads));
        let v_bhte = split(self.v.forward(x_btd, masks), self.kv_heads);
        let mixed_bhte = Tensor::scaled_dot_product_attention::<&Tensor>(
            &q_bhte,
            &k_bhte,
            &v_bhte,
            None,
            0.0,
            true,
            None,
            self.kv_heads < self.heads,
        );
        let mixed_btd = mixed_bhte.transpose(1, 2).reshape([batch, length, -1]);
        self.o.forward(&mixed_btd, masks)
    }
}
