//! One Llama block and the tensors it is made of.

use std::ops::Range;

use tch::Tensor;

use super::attention::Attention;
use super::linear::adapter_specs;
use super::mask::MaskSeed;
use super::mlp::Mlp;
use super::norm::RmsNorm;
use super::rope::RopeTable;
use super::spec::{Init, Params, TensorSpec};
use crate::config::{LoraConfig, ModelConfig, Projection};

/// Pre-norm attention and feed-forward, each with a residual connection.
#[derive(Debug)]
pub struct Block {
    attention_norm: RmsNorm,
    attention: Attention,
    mlp_norm: RmsNorm,
    mlp: Mlp,
}

impl Block {
    /// Block `layer` of the whole model.
    pub fn new(params: &Params<'_>, layer: i64, model: &ModelConfig, lora: &LoraConfig) -> Self {
        let name = prefix(layer);
        let norm = |part: &str| RmsNorm::new(params, &format!("{name}.{part}"), model.norm_eps);
        Self {
            attention_norm: norm("input_layernorm"),
            attention: Attention::new(params, &format!("{name}.self_attn"), model, lora),
            mlp_norm: norm("post_attention_layernorm"),
            mlp: Mlp::new(params, &format!("{name}.mlp"), lora),
        }
    }

    /// `[B, T, D]` to `[B, T, D]`.
    pub fn forward(&self, x_btd: &Tensor, rope: &RopeTable, masks: Option<&MaskSeed>) -> Tensor {
        let attended = self.attention.forward(&self.attention_norm.forward(x_btd), rope, masks);
        let x_btd = x_btd + attended;
        let fed = self.mlp.forward(&self.mlp_norm.forward(&x_btd), masks);
        x_btd + fed
    }
}

fn prefix(layer: i64) -> String {
    format!("model.layers.{layer}")
}

/// Checkpoint name, inputs and outputs of a projection within its block.
fn projection(model: &ModelConfig, projection: Projection) -> (&'static str, i64, i64) {
    let (hidden, keys) = (model.hidden, model.head_dim() * model.kv_heads);
    match projection {
        Projection::QProj => ("self_attn.q_proj", hidden, hidden),
        Projection::KProj => ("self_attn.k_proj", hidden, keys),
        Projection::VProj => ("self_attn.v_proj", hidden, keys),
        Projection::OProj => ("self_attn.o_proj", hidden, hidden),
        Projection::GateProj => ("mlp.gate_proj", hidden, model.ffn),
        Projection::UpProj => ("mlp.up_proj", hidden, model.ffn),
        Projection::DownProj => ("mlp.down_proj", model.ffn, hidden),
    }
}

const PROJECTIONS: [Projection; 7] = [
    Projection::QProj,
    Projection::KProj,
    Projection::VProj,
    Projection::OProj,
    Projection::GateProj,
    Projection::UpProj,
    Projection::DownProj,
];

/// Base tensors of the blocks in `layers`.
pub fn block_specs(model: &ModelConfig, layers: Range<i64>) -> Vec<TensorSpec> {
    let mut specs = Vec::new();
    for layer in layers {
        let name = prefix(layer);
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            specs.push(TensorSpec::new(
                format!("{name}.{norm}.weight"),
                &[model.hidden],
                Init::Ones,
            ));
        }
        for target in PROJECTIONS {
            let (path, inputs, outputs) = projection(model, target);
            let init = Init::Normal(model.init_std);
            specs.push(TensorSpec::new(format!("{name}.{path}.weight"), &[outputs, inputs], init));
        }
    }
    specs
}

/// Adapter tensors of the blocks in `layers`.
pub fn lora_specs(model: &ModelConfig, lora: &LoraConfig, layers: Range<i64>) -> Vec<TensorSpec> {
    let mut specs = Vec::new();
    for layer in layers {
        for target in &lora.targets {
            let (path, inputs, outputs) = projection(model, *target);
            let name = format!("{}.{path}", prefix(layer));
            specs.extend(adapter_specs(&name, inputs, outputs, lora.rank));
        }
    }
    specs
}
