//! Writes a model as a folder that transformers, and [`Checkpoint`], load.
//!
//! [`Checkpoint`]: super::Checkpoint

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};
use tokenizers::Tokenizer;

use super::config_json::Family;
use super::error::PretrainedError;
use super::{CONFIG, GENERATION, SpecialTokens};
use crate::model::architecture::{Architecture, BlockKind, Decoder, Encoder, Rope, RopeScaling};
use crate::model::slice::Slice;

const WEIGHTS: &str = "model.safetensors";

/// Writes `config.json`, `generation_config.json` for a model that writes text, and
/// `model.safetensors` into `folder`, which must be there. The tensors are all of the model's, under our
/// names, each in its own number type; the tokenizer is the caller's.
///
/// # Errors
/// The disk's.
pub fn write_checkpoint(
    folder: &Path,
    architecture: &Architecture,
    special: &SpecialTokens,
    tensors: &Slice,
) -> Result<(), PretrainedError> {
    let dtype = tensors.tensors.first().map_or("float32", |named| match named.tensor.kind() {
        tch::Kind::BFloat16 => "bfloat16",
        tch::Kind::Half => "float16",
        _ => "float32",
    });
    write(&folder.join(CONFIG), &config(architecture, special, dtype))?;
    if matches!(architecture.blocks, BlockKind::Decoder(_)) {
        write(&folder.join(GENERATION), &Value::Object(tokens(special)))?;
    }
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    tensors.write(&folder.join(WEIGHTS), &metadata)?;
    Ok(())
}

/// Writes `tokenizer.json` and what AutoTokenizer needs beside it.
///
/// # Errors
/// The disk's.
pub fn write_tokenizer(
    folder: &Path,
    tokenizer: &Tokenizer,
    special: &SpecialTokens,
) -> Result<(), PretrainedError> {
    let file = folder.join("tokenizer.json");
    let text = tokenizer
        .to_string(true)
        .map_err(|error| PretrainedError::io(&file, std::io::Error::other(error.to_string())))?;
    fs::write(&file, text).map_err(|error| PretrainedError::io(&file, error))?;
    let token = |id: Option<&i64>| id.and_then(|id| tokenizer.id_to_token(*id as u32));
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": token(special.bos.as_ref()),
        "eos_token": token(special.eos.first()),
        "pad_token": token(special.pad.as_ref()),
        "clean_up_tokenization_spaces": false,
    });
    write(&folder.join("tokenizer_config.json"), &config)
}

/// The keys of transformers 4, which 5 reads as well.
fn config(architecture: &Architecture, special: &SpecialTokens, dtype: &str) -> Value {
    let family = family(architecture);
    let mut config = tokens(special);
    let common = json!({
        "model_type": family.as_str(),
        "torch_dtype": dtype,
        "hidden_size": architecture.hidden,
        "num_hidden_layers": architecture.layers,
        "num_attention_heads": architecture.heads,
        "intermediate_size": architecture.ffn,
        "vocab_size": architecture.vocab,
        "initializer_range": architecture.init_std,
    });
    let of_kind = match &architecture.blocks {
        BlockKind::Decoder(decoder) => decoder_keys(architecture, decoder, family),
        BlockKind::Encoder(encoder) => encoder_keys(architecture, encoder, family),
    };
    for keys in [common, of_kind] {
        config.extend(keys.as_object().cloned().unwrap_or_default());
    }
    Value::Object(config)
}

/// The family whose layers these are.
fn family(architecture: &Architecture) -> Family {
    match &architecture.blocks {
        BlockKind::Decoder(decoder) if decoder.qk_norm => Family::Qwen3,
        BlockKind::Decoder(decoder) if decoder.qkv_bias && !decoder.output_bias => Family::Qwen2,
        BlockKind::Decoder(_) => Family::Llama,
        BlockKind::Encoder(Encoder { windows: Some(_), .. }) => Family::Longformer,
        BlockKind::Encoder(_) => Family::Bert,
    }
}

fn decoder_keys(architecture: &Architecture, decoder: &Decoder, family: Family) -> Value {
    let class = match family {
        Family::Qwen3 => "Qwen3ForCausalLM",
        Family::Qwen2 => "Qwen2ForCausalLM",
        _ => "LlamaForCausalLM",
    };
    let mut keys = json!({
        "architectures": [class],
        "hidden_act": "silu",
        "num_key_value_heads": architecture.kv_heads,
        "head_dim": architecture.head_dim,
        "rms_norm_eps": architecture.norm_eps,
        "rope_theta": decoder.rope.theta,
        "rope_scaling": scaling(&decoder.rope),
        "tie_word_embeddings": decoder.tied,
        // The longest text is the caller's business: rotary positions have no table.
        "max_position_embeddings": 4096,
    });
    if family != Family::Qwen2 {
        keys["attention_bias"] = json!(decoder.output_bias);
    }
    if family == Family::Llama {
        keys["mlp_bias"] = json!(decoder.mlp_bias);
    }
    keys
}

fn scaling(rope: &Rope) -> Value {
    match rope.scaling {
        RopeScaling::None => Value::Null,
        RopeScaling::Linear { factor } => json!({ "rope_type": "linear", "factor": factor }),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_positions } => {
            json!({
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low_freq_factor,
                "high_freq_factor": high_freq_factor,
                "original_max_position_embeddings": original_positions as i64,
            })
        }
    }
}

fn encoder_keys(architecture: &Architecture, encoder: &Encoder, family: Family) -> Value {
    let class = if family == Family::Longformer { "LongformerModel" } else { "BertModel" };
    let mut keys = json!({
        "architectures": [class],
        "hidden_act": "gelu",
        "layer_norm_eps": architecture.norm_eps,
        "max_position_embeddings": encoder.positions,
        "type_vocab_size": encoder.token_types,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    });
    if let Some(windows) = &encoder.windows {
        keys["attention_window"] = json!(windows);
    }
    keys
}

fn tokens(special: &SpecialTokens) -> Map<String, Value> {
    let mut keys = Map::new();
    keys.extend(special.bos.map(|id| ("bos_token_id".to_owned(), json!(id))));
    keys.extend(special.pad.map(|id| ("pad_token_id".to_owned(), json!(id))));
    let eos = match special.eos.as_slice() {
        [] => None,
        [one] => Some(json!(one)),
        many => Some(json!(many)),
    };
    keys.extend(eos.map(|ids| ("eos_token_id".to_owned(), ids)));
    keys
}

fn write(file: &Path, json: &Value) -> Result<(), PretrainedError> {
    fs::write(file, format!("{json:#}\n")).map_err(|error| PretrainedError::io(file, error))
}
