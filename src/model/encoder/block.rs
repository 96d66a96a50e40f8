//! One post-norm block and the tensors it is made of.

use std::ops::Range;

use tch::Tensor;

use super::attention::Attention;
use super::norm::{LayerNorm, norm_specs};
use crate::config::{LoraConfig, Projection};
use crate::model::architecture::{Architecture, Encoder};
use crate::model::linear::{Linear, adapter_specs};
use crate::model::pass::Pass;
use crate::model::spec::{Init, Params, TensorSpec};

/// Attention and feed-forward, each added to its input and then normalised.
#[derive(Debug)]
pub struct EncoderBlock {
    attention: Attention,
    attention_output: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    output: Linear,
    norm: LayerNorm,
}

impl EncoderBlock {
    /// Block `layer` of the whole model.
    pub fn new(
        params: &Params<'_>,
        layer: i64,
        architecture: &Architecture,
        encoder: &Encoder,
        lora: &LoraConfig,
    ) -> Self {
        let name = prefix(layer);
        let linear = |part: &str| Linear::new(params, &format!("{name}.{part}"), lora);
        let norm = |part: &str| {
            LayerNorm::new(params, &format!("{name}.{part}.LayerNorm"), architecture.norm_eps)
        };
        let attention = format!("{name}.attention");
        Self {
            attention: Attention::new(params, &attention, layer, architecture, encoder, lora),
            attention_output: linear("attention.output.dense"),
            attention_norm: norm("attention.output"),
            intermediate: linear("intermediate.dense"),
            output: linear("output.dense"),
            norm: norm("output"),
        }
    }

    /// `[B, T, D]` to `[B, T, D]`; what comes out at padded positions means nothing.
    pub fn forward(&self, x_btd: &Tensor, pass: &Pass<'_>) -> Tensor {
        let attended = self.attention.forward(x_btd, pass);
        let attended = self.attention_output.forward(&attended, pass);
        let x_btd = self.attention_norm.forward(&(attended + x_btd));
        let fed = self.intermediate.forward(&x_btd, pass).gelu("none");
        self.norm.forward(&(self.output.forward(&fed, pass) + x_btd))
    }
}

fn prefix(layer: i64) -> String {
    format!("encoder.layer.{layer}")
}

/// A linear layer within a block: name, inputs, outputs.
type Shape = (&'static str, i64, i64);

/// The layer that `projection` means here; these blocks have no gate.
fn projection(architecture: &Architecture, projection: Projection) -> Option<Shape> {
    let (hidden, ffn) = (architecture.hidden, architecture.ffn);
    match projection {
        Projection::QProj => Some(("attention.self.query", hidden, hidden)),
        Projection::KProj => Some(("attention.self.key", hidden, hidden)),
        Projection::VProj => Some(("attention.self.value", hidden, hidden)),
        Projection::OProj => Some(("attention.output.dense", hidden, hidden)),
        Projection::UpProj => Some(("intermediate.dense", hidden, ffn)),
        Projection::DownProj => Some(("output.dense", ffn, hidden)),
        Projection::GateProj => None,
    }
}

const PROJECTIONS: [Projection; 6] = [
    Projection::QProj,
    Projection::KProj,
    Projection::VProj,
    Projection::OProj,
    Projection::UpProj,
    Projection::DownProj,
];

const GLOBAL: [&str; 3] =
    ["attention.self.query_global", "attention.self.key_global", "attention.self.value_global"];

/// Base tensors of the blocks in `layers`, started as BERT starts them.
pub fn encoder_specs(
    architecture: &Architecture,
    encoder: &Encoder,
    layers: Range<i64>,
) -> Vec<TensorSpec> {
    let hidden = architecture.hidden;
    let mut linears: Vec<Shape> =
        PROJECTIONS.into_iter().filter_map(|target| projection(architecture, target)).collect();
    if encoder.windows.is_some() {
        linears.extend(GLOBAL.map(|path| (path, hidden, hidden)));
    }
    let mut specs = Vec::new();
    for layer in layers {
        let name = prefix(layer);
        for (path, inputs, outputs) in &linears {
            let weight = Init::Normal(architecture.init_std);
            let name = format!("{name}.{path}");
            specs.push(TensorSpec::new(format!("{name}.weight"), &[*outputs, *inputs], weight));
            specs.push(TensorSpec::new(format!("{name}.bias"), &[*outputs], Init::Zeros));
        }
        specs.extend(norm_specs(&format!("{name}.attention.output.LayerNorm"), hidden));
        specs.extend(norm_specs(&format!("{name}.output.LayerNorm"), hidden));
    }
    specs
}

/// Adapter tensors of the blocks in `layers`. Like PEFT's, adapters on `query`, `key` and `value`
/// leave Longformer's `*_global` alone. A target that these blocks lack gets none: validation
/// refuses it.
pub fn encoder_lora_specs(
    architecture: &Architecture,
    lora: &LoraConfig,
    layers: Range<i64>,
) -> Vec<TensorSpec> {
    let mut specs = Vec::new();
    for layer in layers {
        let shapes = lora.targets.iter().filter_map(|target| projection(architecture, *target));
        for (path, inputs, outputs) in shapes {
            let name = format!("{}.{path}", prefix(layer));
            specs.extend(adapter_specs(&name, inputs, outputs, lora.rank));
        }
    }
    specs
}
