//! The folders that transformers wrote: every field of the architecture is what `config.json` says.
//!
//! Looked up key by key without the reader, so that the two can contradict each other.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use fellrec::model::architecture::{Architecture, BlockKind, Decoder, Encoder, Rope, RopeScaling};
use fellrec::model::pretrained::{Checkpoint, SpecialTokens};
use serde_json::Value;

fn folders() -> Vec<PathBuf> {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models");
    let mut folders: Vec<_> = fs::read_dir(models).unwrap().map(|e| e.unwrap().path()).collect();
    folders.sort();
    assert_eq!(folders.len(), 12);
    folders
}

fn config(folder: &Path, file: &str) -> Value {
    fs::read(folder.join(file)).map_or(Value::Null, |text| serde_json::from_slice(&text).unwrap())
}

fn architecture(config: &Value) -> Architecture {
    let whole = |key: &str| config[key].as_i64().unwrap_or_else(|| panic!("{key}"));
    let number = |key: &str| config[key].as_f64().unwrap_or_else(|| panic!("{key}"));
    let family = config["model_type"].as_str().unwrap();
    let is_encoder = ["bert", "longformer"].contains(&family);
    let heads = whole("num_attention_heads");
    Architecture {
        hidden: whole("hidden_size"),
        layers: whole("num_hidden_layers"),
        heads,
        kv_heads: config["num_key_value_heads"].as_i64().unwrap_or(heads),
        head_dim: config["head_dim"].as_i64().unwrap_or(whole("hidden_size") / heads),
        ffn: whole("intermediate_size"),
        vocab: whole("vocab_size"),
        norm_eps: number(if is_encoder { "layer_norm_eps" } else { "rms_norm_eps" }),
        init_std: number("initializer_range"),
        blocks: if is_encoder {
            BlockKind::Encoder(Encoder {
                positions: whole("max_position_embeddings"),
                first_position: if family == "bert" { 0 } else { whole("pad_token_id") + 1 },
                token_types: whole("type_vocab_size"),
                item_positions: 0,
                windows: config["attention_window"]
                    .as_array()
                    .map(|windows| windows.iter().map(|window| window.as_i64().unwrap()).collect()),
            })
        } else {
            let attention_bias = config["attention_bias"].as_bool().unwrap_or(false);
            BlockKind::Decoder(Decoder {
                // Without a key of its own in Qwen2's code.
                qkv_bias: attention_bias || family == "qwen2",
                output_bias: attention_bias,
                mlp_bias: config["mlp_bias"].as_bool().unwrap_or(false),
                qk_norm: family == "qwen3",
                tied: config["tie_word_embeddings"].as_bool().unwrap(),
                rope: rope(config),
            })
        },
    }
}

/// Version 4 spells it at the top and in `rope_scaling`, version 5 in `rope_parameters`.
fn rope(config: &Value) -> Rope {
    let (theta, scaling) = match &config["rope_parameters"] {
        Value::Null => (&config["rope_theta"], &config["rope_scaling"]),
        parameters => (&parameters["rope_theta"], parameters),
    };
    let number = |key: &str| scaling[key].as_f64().unwrap_or_else(|| panic!("{key}"));
    let scaling = match scaling["rope_type"].as_str() {
        None | Some("default") => RopeScaling::None,
        Some("llama3") => RopeScaling::Llama3 {
            factor: number("factor"),
            low_freq_factor: number("low_freq_factor"),
            high_freq_factor: number("high_freq_factor"),
            original_positions: number("original_max_position_embeddings"),
        },
        Some(other) => panic!("no fixture has {other}"),
    };
    Rope { theta: theta.as_f64().unwrap(), scaling }
}

#[test]
fn every_field_is_what_the_folder_says() {
    let mut spellings = BTreeMap::new();
    for folder in folders() {
        let config = config(&folder, "config.json");
        let checkpoint = Checkpoint::open(&folder).unwrap();
        assert_eq!(checkpoint.architecture(), &architecture(&config), "{}", folder.display());
        assert_eq!(checkpoint.family().as_str(), config["model_type"].as_str().unwrap());
        let version = config["transformers_version"].as_str().unwrap().chars().next().unwrap();
        let key = config.get("rope_parameters").is_some();
        *spellings.entry((version, key)).or_insert(0) += 1;
    }
    // Both spellings are among them, each in the version that it stands for.
    assert_eq!(spellings, BTreeMap::from([(('4', false), 10), (('5', true), 2)]));
}

#[test]
fn special_tokens_and_number_types_are_what_the_folder_says() {
    for folder in folders() {
        let (config, generation) =
            (config(&folder, "config.json"), config(&folder, "generation_config.json"));
        let token = |key: &str| generation[key].as_i64().or(config[key].as_i64());
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let expected = SpecialTokens {
            bos: token("bos_token_id"),
            eos: token("eos_token_id").into_iter().collect(),
            pad: token("pad_token_id"),
        };
        assert_eq!(checkpoint.special_tokens(), expected, "{}", folder.display());
        let dtype = config["dtype"].as_str().or(config["torch_dtype"].as_str()).unwrap();
        let dtype = match dtype {
            "float32" => "f32",
            "float16" => "f16",
            "bfloat16" => "bf16",
            other => panic!("no fixture has {other}"),
        };
        let dtypes: Vec<String> = checkpoint.dtypes().into_keys().collect();
        assert_eq!(dtypes, [dtype], "{}", folder.display());
    }
}
