//! The causal block of Llama, Qwen2 and Qwen3, and the tensors it is made of.

use std::ops::Range;

use tch::Tensor;

use super::architecture::{Architecture, Decoder};
use super::attention::Attention;
use super::key_values::{KeyValues, NewToken};
use super::linear::adapter_specs;
use super::mlp::Mlp;
use super::norm::RmsNorm;
use super::pass::{BlockInputs, Pass};
use super::rope::RopeTable;
use super::spec::{Init, Params, TensorSpec};
use crate::config::{LoraConfig, Projection};

/// Pre-norm attention and feed-forward, each with a residual connection.
#[derive(Debug)]
pub struct DecoderBlock {
    attention_norm: RmsNorm,
    attention: Attention,
    mlp_norm: RmsNorm,
    mlp: Mlp,
    rope: RopeTable,
}

impl DecoderBlock {
    /// Block `layer` of the whole model.
    pub fn new(
        params: &Params<'_>,
        layer: i64,
        architecture: &Architecture,
        decoder: &Decoder,
        lora: &LoraConfig,
        rope: RopeTable,
    ) -> Self {
        let name = prefix(layer);
        let norm =
            |part: &str| RmsNorm::new(params, &format!("{name}.{part}"), architecture.norm_eps);
        let attention = format!("{name}.self_attn");
        Self {
            attention_norm: norm("input_layernorm"),
            attention: Attention::new(params, &attention, architecture, decoder, lora),
            mlp_norm: norm("post_attention_layernorm"),
            mlp: Mlp::new(params, &format!("{name}.mlp"), lora),
            rope,
        }
    }

    /// `[B, T, D]` to `[B, T, D]`.
    pub fn forward(&self, x_btd: &Tensor, pass: &Pass<'_>) -> Tensor {
        let normed_btd = self.attention_norm.forward(x_btd);
        let attended_btd = self.attention.forward(&normed_btd, &self.rope, pass);
        self.feed(x_btd + attended_btd, pass)
    }

    /// As [`DecoderBlock::forward`] without a graph in mind, and what tokens to come attend to.
    pub fn prefill(&self, x_btd: &Tensor) -> (Tensor, KeyValues) {
        let pass = Pass::alone(x_btd, BlockInputs::default());
        let normed_btd = self.attention_norm.forward(x_btd);
        let (attended_btd, cache) = self.attention.prefill(&normed_btd, &self.rope, &pass);
        (self.feed(x_btd + attended_btd, &pass), cache)
    }

    /// One new token a row `[B, 1, D]`; it joins the cache.
    pub fn extend(&self, x_btd: &Tensor, token: &NewToken, cache: &mut KeyValues) -> Tensor {
        let normed_btd = self.attention_norm.forward(x_btd);
        let pass = Pass::alone(x_btd, BlockInputs::default());
        let attended_btd = self.attention.extend(&normed_btd, &self.rope, token, cache, &pass);
        self.feed(x_btd + attended_btd, &pass)
    }

    fn feed(&self, x_btd: Tensor, pass: &Pass<'_>) -> Tensor {
        let fed_btd = self.mlp.forward(&self.mlp_norm.forward(&x_btd), pass);
        x_btd + fed_btd
    }
}

fn prefix(layer: i64) -> String {
    format!("model.layers.{layer}")
}

/// A projection within its block.
struct Shape {
    /// Checkpoint name within the block.
    path: &'static str,
    inputs: i64,
    outputs: i64,
    bias: bool,
}

fn projection(architecture: &Architecture, decoder: &Decoder, projection: Projection) -> Shape {
    let (hidden, ffn) = (architecture.hidden, architecture.ffn);
    let queries = architecture.head_dim * architecture.heads;
    let keys = architecture.head_dim * architecture.kv_heads;
    let (path, inputs, outputs, bias) = match projection {
        Projection::QProj => ("self_attn.q_proj", hidden, queries, decoder.qkv_bias),
        Projection::KProj => ("self_attn.k_proj", hidden, keys, decoder.qkv_bias),
        Projection::VProj => ("self_attn.v_proj", hidden, keys, decoder.qkv_bias),
        Projection::OProj => ("self_attn.o_proj", queries, hidden, decoder.output_bias),
        Projection::GateProj => ("mlp.gate_proj", hidden, ffn, decoder.mlp_bias),
        Projection::UpProj => ("mlp.up_proj", hidden, ffn, decoder.mlp_bias),
        Projection::DownProj => ("mlp.down_proj", ffn, hidden, decoder.mlp_bias),
    };
    Shape { path, inputs, outputs, bias }
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
pub fn decoder_specs(
    architecture: &Architecture,
    decoder: &Decoder,
    layers: Range<i64>,
) -> Vec<TensorSpec> {
    let mut specs = Vec::new();
    let ones = |name: String, width: i64| TensorSpec::new(name, &[width], Init::Ones);
    for layer in layers {
        let name = prefix(layer);
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            specs.push(ones(format!("{name}.{norm}.weight"), architecture.hidden));
        }
        if decoder.qk_norm {
            for norm in ["self_attn.q_norm", "self_attn.k_norm"] {
                specs.push(ones(format!("{name}.{norm}.weight"), architecture.head_dim));
            }
        }
        for target in PROJECTIONS {
            let Shape { path, inputs, outputs, bias } = projection(architecture, decoder, target);
            let init = Init::Normal(architecture.init_std);
            specs.push(TensorSpec::new(format!("{name}.{path}.weight"), &[outputs, inputs], init));
            if bias {
                let name = format!("{name}.{path}.bias");
                specs.push(TensorSpec::new(name, &[outputs], Init::Zeros));
            }
        }
    }
    specs
}

/// Adapter tensors of the blocks in `layers`.
pub fn decoder_lora_specs(
    architecture: &Architecture,
    decoder: &Decoder,
    lora: &LoraConfig,
    layers: Range<i64>,
) -> Vec<TensorSpec> {
    let mut specs = Vec::new();
    for layer in layers {
        for target in &lora.targets {
            let Shape { path, inputs, outputs, .. } = projection(architecture, decoder, *target);
            let name = format!("{}.{path}", prefix(layer));
            specs.extend(adapter_specs(&name, inputs, outputs, lora.rank));
        }
    }
    specs
}
