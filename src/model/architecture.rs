//! What a network is made of, whether the section `[model]` or a checkpoint's `config.json` says so.

use crate::config::{ModelConfig, RecformerConfig};
use crate::data::TOKEN_TYPES;

/// Dimensions and kind of the blocks.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// Width of the hidden states, D.
    pub hidden: i64,
    /// Blocks.
    pub layers: i64,
    /// Attention heads.
    pub heads: i64,
    /// Key and value heads; fewer than `heads` under grouped-query attention.
    pub kv_heads: i64,
    /// Width of one head; `heads * head_dim` may differ from `hidden`.
    pub head_dim: i64,
    /// Width of the feed-forward layer.
    pub ffn: i64,
    /// Rows of the token embedding; may exceed what the tokenizer knows.
    pub vocab: i64,
    /// Added to the variance in norms.
    pub norm_eps: f64,
    /// Standard deviation of random initial weights.
    pub init_std: f64,
    /// What a block is.
    pub blocks: BlockKind,
}

/// The two kinds of blocks there are.
#[derive(Clone, Debug, PartialEq)]
pub enum BlockKind {
    /// Causal, pre-norm, rotary positions: Llama, Qwen2, Qwen3.
    Decoder(Decoder),
    /// Bidirectional, post-norm, learnt positions: BERT, Longformer, RecFormer.
    Encoder(Encoder),
}

/// What tells the causal families apart.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoder {
    /// `q_proj`, `k_proj` and `v_proj` have biases (Qwen2).
    pub qkv_bias: bool,
    /// `o_proj` has a bias.
    pub output_bias: bool,
    /// The feed-forward projections have biases.
    pub mlp_bias: bool,
    /// Queries and keys are normalised head by head before the rotation (Qwen3).
    pub qk_norm: bool,
    /// The language-model head is the token embedding.
    pub tied: bool,
    /// Rotary positions.
    pub rope: Rope,
}

/// Rotary position embedding (arXiv 2104.09864).
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// What is done to them for long contexts.
    pub scaling: RopeScaling,
}

/// Changes of the rotary frequencies.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// None.
    None,
    /// All are divided by the factor.
    Linear {
        /// Divisor.
        factor: f64,
    },
    /// Llama 3: long wavelengths are divided by the factor, short ones kept, those between blended.
    Llama3 {
        /// Divisor of the long wavelengths.
        factor: f64,
        /// Wavelengths above `original_positions / low_freq_factor` are long.
        low_freq_factor: f64,
        /// Wavelengths below `original_positions / high_freq_factor` are short.
        high_freq_factor: f64,
        /// Positions the model was trained with before.
        original_positions: f64,
    },
}

/// What tells the bidirectional families apart.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoder {
    /// Rows of the position embedding.
    pub positions: i64,
    /// Row of a sequence's first token: 0 for BERT, the padding id + 1 for RoBERTa's descendants.
    pub first_position: i64,
    /// Rows of the token-type embedding.
    pub token_types: i64,
    /// Rows of RecFormer's item-position embedding; 0 for models without one.
    pub item_positions: i64,
    /// Attention window of every layer, both sides together, as in Longformer's config; `None` is dense attention.
    pub windows: Option<Vec<i64>>,
}

impl Architecture {
    /// A Llama of the dimensions of `[model]` over `vocab` tokens, its head tied to the embedding.
    pub fn llama(model: &ModelConfig, vocab: i64) -> Self {
        let rope = Rope { theta: model.rope_theta, scaling: RopeScaling::None };
        let decoder = Decoder {
            qkv_bias: false,
            output_bias: false,
            mlp_bias: false,
            qk_norm: false,
            tied: true,
            rope,
        };
        Self {
            hidden: model.hidden,
            layers: model.layers,
            heads: model.heads,
            kv_heads: model.kv_heads,
            head_dim: model.head_dim(),
            ffn: model.ffn,
            vocab,
            norm_eps: model.norm_eps,
            init_std: model.init_std,
            blocks: BlockKind::Decoder(decoder),
        }
    }

    /// A RecFormer of the dimensions of `[model]` and `[recformer]` over `vocab` tokens.
    pub fn recformer(model: &ModelConfig, recformer: &RecformerConfig, vocab: i64) -> Self {
        let encoder = Encoder {
            // Counted from the padding id on, as RoBERTa's descendants do, which is 0 here.
            positions: recformer.max_tokens + 1,
            first_position: 1,
            token_types: TOKEN_TYPES,
            item_positions: recformer.max_items + 1,
            windows: Some(vec![recformer.window; model.layers as usize]),
        };
        Self {
            hidden: model.hidden,
            layers: model.layers,
            heads: model.heads,
            kv_heads: model.heads,
            head_dim: model.head_dim(),
            ffn: model.ffn,
            vocab,
            norm_eps: model.norm_eps,
            init_std: model.init_std,
            blocks: BlockKind::Encoder(encoder),
        }
    }

    /// The same network with a language-model head of its own.
    pub fn untied(mut self) -> Self {
        if let BlockKind::Decoder(decoder) = &mut self.blocks {
            decoder.tied = false;
        }
        self
    }
}
