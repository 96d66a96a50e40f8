//! `config.json` as an [`Architecture`]: read key by key, what is not supported refused.
//!
//! Defaults are those of transformers' config classes, which are what an absent key means.

use std::fmt;

use super::error::PretrainedError;
use super::json::JsonObject;
use super::rope_json::rope;
use crate::model::architecture::{Architecture, BlockKind, Decoder, Encoder};

/// Most blocks believed. Layers are listed before the weights can contradict.
const MAX_LAYERS: i64 = 10_000;

/// Families of models that can be read, by their `model_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of transformers")]
pub enum Family {
    Llama,
    Qwen2,
    Qwen3,
    Bert,
    /// RecFormer, too: its folders say `longformer`.
    Longformer,
}

impl Family {
    /// All of them.
    pub const ALL: [Family; 5] =
        [Family::Llama, Family::Qwen2, Family::Qwen3, Family::Bert, Family::Longformer];

    /// The value of `model_type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Family::Llama => "llama",
            Family::Qwen2 => "qwen2",
            Family::Qwen3 => "qwen3",
            Family::Bert => "bert",
            Family::Longformer => "longformer",
        }
    }

    /// Whether it is one of the bidirectional families.
    pub fn is_encoder(self) -> bool {
        matches!(self, Family::Bert | Family::Longformer)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The family that a config names.
pub(super) fn family(config: &JsonObject) -> Result<Family, PretrainedError> {
    let name = config.text("model_type")?;
    Family::ALL.into_iter().find(|family| name == Some(family.as_str())).ok_or_else(|| {
        let names: Vec<&str> = Family::ALL.into_iter().map(Family::as_str).collect();
        config.wrong("model_type", format!("one of {}", names.join(", ")))
    })
}

/// The network that a config describes. RecFormer's item positions are 0: its config does not say
/// which table it has, the weights do.
///
/// # Errors
/// The first key that is missing, wrong or unsupported.
pub(super) fn architecture(
    config: &JsonObject,
    family: Family,
) -> Result<Architecture, PretrainedError> {
    config.inactive(&["quantization_config", "compression_config", "pruned_heads"])?;
    let dimension = |key| config.required(key, config.dimension(key)?);
    let (hidden, heads) = (dimension("hidden_size")?, dimension("num_attention_heads")?);
    let layers = dimension("num_hidden_layers")?;
    if layers > MAX_LAYERS {
        return Err(config.wrong("num_hidden_layers", format!("at most {MAX_LAYERS}")));
    }
    activation(config, family)?;
    let (eps_key, default_eps) =
        if family.is_encoder() { ("layer_norm_eps", 1e-12) } else { ("rms_norm_eps", 1e-6) };
    Ok(Architecture {
        hidden,
        layers,
        heads,
        kv_heads: kv_heads(config, family, heads)?,
        head_dim: head_dim(config, family, hidden, heads)?,
        ffn: dimension("intermediate_size")?,
        vocab: dimension("vocab_size")?,
        norm_eps: config.positive(eps_key)?.unwrap_or(default_eps),
        init_std: config.positive("initializer_range")?.unwrap_or(0.02),
        blocks: match family {
            Family::Bert | Family::Longformer => {
                BlockKind::Encoder(encoder(config, family, layers)?)
            }
            Family::Llama | Family::Qwen2 | Family::Qwen3 => {
                BlockKind::Decoder(decoder(config, family)?)
            }
        },
    })
}

fn activation(config: &JsonObject, family: Family) -> Result<(), PretrainedError> {
    let supported = if family.is_encoder() { "gelu" } else { "silu" };
    match config.text("hidden_act")? {
        Some(other) if other != supported => Err(config.wrong("hidden_act", supported)),
        _ => Ok(()),
    }
}

fn kv_heads(config: &JsonObject, family: Family, heads: i64) -> Result<i64, PretrainedError> {
    const KEY: &str = "num_key_value_heads";
    let kv_heads = match family {
        Family::Bert | Family::Longformer => return Ok(heads),
        Family::Llama => config.dimension(KEY)?.unwrap_or(heads),
        // Their config classes have a default of 32, which no folder means by leaving it out.
        Family::Qwen2 | Family::Qwen3 => config.required(KEY, config.dimension(KEY)?)?,
    };
    if heads % kv_heads != 0 {
        return Err(config.wrong(KEY, format!("a divisor of num_attention_heads, {heads}")));
    }
    Ok(kv_heads)
}

fn head_dim(
    config: &JsonObject,
    family: Family,
    hidden: i64,
    heads: i64,
) -> Result<i64, PretrainedError> {
    let explicit = if family.is_encoder() { None } else { config.dimension("head_dim")? };
    let divided = || {
        let expected = format!("a multiple of num_attention_heads, {heads}");
        let whole = hidden % heads == 0;
        whole.then_some(hidden / heads).ok_or_else(|| config.wrong("hidden_size", expected))
    };
    let width = match (explicit, family) {
        (Some(width), _) => width,
        (None, Family::Qwen3) => 128,
        (None, _) => divided()?,
    };
    // Rotary positions turn the first half of a head against the second.
    if !family.is_encoder() && width % 2 != 0 {
        let key = if explicit.is_some() { "head_dim" } else { "hidden_size" };
        return Err(config.wrong(key, format!("heads of even width, not {width}")));
    }
    Ok(width)
}

fn decoder(config: &JsonObject, family: Family) -> Result<Decoder, PretrainedError> {
    config.inactive(&["use_sliding_window", "use_mrope"])?;
    full_attention(config)?;
    let attention_bias = family != Family::Qwen2 && config.flag("attention_bias")?;
    Ok(Decoder {
        qkv_bias: family == Family::Qwen2 || attention_bias,
        output_bias: attention_bias,
        mlp_bias: family == Family::Llama && config.flag("mlp_bias")?,
        qk_norm: family == Family::Qwen3,
        tied: config.flag("tie_word_embeddings")?,
        rope: rope(config)?,
    })
}

/// Newer configs list the kind of every layer.
fn full_attention(config: &JsonObject) -> Result<(), PretrainedError> {
    let Some(types) = config.value("layer_types") else { return Ok(()) };
    let full = types.as_array().is_some_and(|types| types.iter().all(|t| t == "full_attention"));
    if full { Ok(()) } else { Err(config.wrong("layer_types", "full_attention throughout")) }
}

fn encoder(config: &JsonObject, family: Family, layers: i64) -> Result<Encoder, PretrainedError> {
    config.inactive(&["is_decoder", "add_cross_attention"])?;
    match config.text("position_embedding_type")? {
        None | Some("absolute") => {}
        Some(_) => return Err(config.wrong("position_embedding_type", "absolute")),
    }
    let positions = config.dimension("max_position_embeddings")?.unwrap_or(512);
    Ok(Encoder {
        positions,
        first_position: match family {
            Family::Longformer => first_position(config, positions)?,
            _ => 0,
        },
        token_types: config.dimension("type_vocab_size")?.unwrap_or(2),
        item_positions: 0,
        windows: match family {
            Family::Longformer => Some(windows(config, layers)?),
            _ => None,
        },
    })
}

/// RoBERTa's descendants count positions from the padding id + 1.
fn first_position(config: &JsonObject, positions: i64) -> Result<i64, PretrainedError> {
    let padding = match config.value("pad_token_id") {
        None => 1,
        Some(value) => value.as_i64().unwrap_or(-1),
    };
    if (0..positions - 1).contains(&padding) {
        return Ok(padding + 1);
    }
    let expected = format!("an id whose successor is one of the {positions} positions");
    Err(config.wrong("pad_token_id", expected))
}

/// One window for all layers, or a list with one for each.
fn windows(config: &JsonObject, layers: i64) -> Result<Vec<i64>, PretrainedError> {
    const KEY: &str = "attention_window";
    let wrong = || config.wrong(KEY, format!("an even number above 0, or {layers} of them"));
    let even = |value: &serde_json::Value| {
        value
            .as_i64()
            .filter(|window| (1..=i64::from(i32::MAX)).contains(window) && window % 2 == 0)
    };
    match config.value(KEY) {
        None => Ok(vec![512; layers as usize]),
        Some(serde_json::Value::Array(list)) if list.len() as i64 == layers => {
            list.iter().map(|value| even(value).ok_or_else(wrong)).collect()
        }
        Some(value) => Ok(vec![even(value).ok_or_else(wrong)?; layers as usize]),
    }
}
