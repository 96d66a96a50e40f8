//! A block of either kind behind one face, so that the split does not ask which it runs.
//!
//! Shapes: B = batch, T = tokens, D = hidden width.

use std::ops::Range;

use tch::Tensor;

use super::architecture::{Architecture, BlockKind};
use super::decoder::{DecoderBlock, decoder_lora_specs, decoder_specs};
use super::encoder::{EncoderBlock, encoder_lora_specs, encoder_specs};
use super::pass::Pass;
use super::rope::RopeTable;
use super::spec::{Params, TensorSpec};
use crate::config::LoraConfig;

/// One block of the model.
#[derive(Debug)]
pub enum Block {
    /// Causal.
    Decoder(DecoderBlock),
    /// Bidirectional.
    Encoder(EncoderBlock),
}

impl Block {
    /// Block `layer` of the whole model.
    pub fn new(
        params: &Params<'_>,
        layer: i64,
        architecture: &Architecture,
        lora: &LoraConfig,
        rope: &RopeTable,
    ) -> Self {
        match &architecture.blocks {
            BlockKind::Decoder(decoder) => Self::Decoder(DecoderBlock::new(
                params,
                layer,
                architecture,
                decoder,
                lora,
                rope.share(),
            )),
            BlockKind::Encoder(encoder) => {
                Self::Encoder(EncoderBlock::new(params, layer, architecture, encoder, lora))
            }
        }
    }

    /// `[B, T, D]` to `[B, T, D]`, packed where several are in the pass.
    pub fn forward(&self, x_btd: &Tensor, pass: &Pass<'_>) -> Tensor {
        match self {
            Self::Decoder(block) => block.forward(x_btd, pass),
            Self::Encoder(block) => block.forward(x_btd, pass),
        }
    }

    /// The block as one that decodes token by token, if it is of that kind.
    pub fn as_decoder(&self) -> Option<&DecoderBlock> {
        match self {
            Self::Decoder(block) => Some(block),
            Self::Encoder(_) => None,
        }
    }
}

/// Base tensors of the blocks in `layers`.
pub fn block_specs(architecture: &Architecture, layers: Range<i64>) -> Vec<TensorSpec> {
    match &architecture.blocks {
        BlockKind::Decoder(decoder) => decoder_specs(architecture, decoder, layers),
        BlockKind::Encoder(encoder) => encoder_specs(architecture, encoder, layers),
    }
}

/// Adapter tensors of the blocks in `layers`.
pub fn lora_specs(
    architecture: &Architecture,
    lora: &LoraConfig,
    layers: Range<i64>,
) -> Vec<TensorSpec> {
    match &architecture.blocks {
        BlockKind::Decoder(decoder) => decoder_lora_specs(architecture, decoder, lora, layers),
        BlockKind::Encoder(_) => encoder_lora_specs(architecture, lora, layers),
    }
}
