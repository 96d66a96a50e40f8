//! `config.json`: what each key becomes, and which values are refused.

use fellrec::model::architecture::{Architecture, BlockKind, Decoder, Encoder, Rope, RopeScaling};
use fellrec::model::pretrained::Family;
use serde_json::{Value, json};

use crate::support::*;

/// A folder with this config and one tensor.
fn folder(config: &Value, tensor: Entry) -> Folder {
    let folder = Folder::new(config);
    write(&folder.file("model.safetensors"), &[tensor]);
    folder
}

fn read(config: &Value) -> (Family, Architecture) {
    let checkpoint = folder(config, Entry::new("x", &[1])).open().unwrap();
    (checkpoint.family(), checkpoint.architecture().clone())
}

fn with(mut config: Value, changes: Value) -> Value {
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

fn decoder(config: &Value) -> Decoder {
    match read(config).1.blocks {
        BlockKind::Decoder(decoder) => decoder,
        BlockKind::Encoder(encoder) => panic!("{encoder:?}"),
    }
}

fn encoder_config(family: &str) -> Value {
    json!({
        "model_type": family, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 16, "vocab_size": 20, "max_position_embeddings": 40,
        "type_vocab_size": 4, "hidden_act": "gelu", "pad_token_id": 1, "layer_norm_eps": 1e-5,
    })
}

#[test]
fn llama_reads_every_key() {
    let (family, architecture) = read(&llama_config());
    assert_eq!(family, Family::Llama);
    let expected = Architecture {
        hidden: 4,
        layers: 2,
        heads: 2,
        kv_heads: 1,
        head_dim: 2,
        ffn: 6,
        vocab: 8,
        norm_eps: 1e-5,
        init_std: 0.02,
        blocks: BlockKind::Decoder(Decoder {
            qkv_bias: false,
            output_bias: false,
            mlp_bias: false,
            qk_norm: false,
            tied: false,
            rope: Rope { theta: 5e5, scaling: RopeScaling::None },
        }),
    };
    assert_eq!(architecture, expected);
}

#[test]
fn families_differ_in_biases_norms_and_heads() {
    let of = |family: &str, changes: Value| {
        decoder(&with(with(llama_config(), json!({ "model_type": family })), changes))
    };
    let biases = |d: &Decoder| (d.qkv_bias, d.output_bias, d.mlp_bias, d.qk_norm);
    let all = json!({ "attention_bias": true, "mlp_bias": true });
    assert_eq!(biases(&of("llama", all.clone())), (true, true, true, false));
    assert_eq!(biases(&of("qwen2", all.clone())), (true, false, false, false));
    assert_eq!(biases(&of("qwen3", all)), (true, true, false, true));
    assert_eq!(biases(&of("qwen3", json!({}))), (false, false, false, true));
    assert!(of("qwen2", json!({ "tie_word_embeddings": true })).tied);
    let wide = with(llama_config(), json!({ "model_type": "qwen3" }));
    assert_eq!(read(&wide).1.head_dim, 128, "Qwen3Config's default");
    assert_eq!(read(&with(wide, json!({ "head_dim": 6 }))).1.head_dim, 6);
}

#[test]
fn transformers_4_and_5_spell_the_same_rope() {
    let mut four = llama_config();
    four["torch_dtype"] = json!("bfloat16");
    let mut five = llama_config();
    five.as_object_mut().unwrap().remove("rope_theta");
    five["dtype"] = json!("bfloat16");
    let llama3 = json!({
        "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    });
    let llama3_read = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_positions: 16.0,
    };
    let cases = [
        ("default", json!({}), RopeScaling::None),
        ("linear", json!({ "factor": 2 }), RopeScaling::Linear { factor: 2.0 }),
        ("llama3", llama3, llama3_read),
    ];
    for (kind, parameters, scaling) in cases {
        let expected = Rope { theta: 5e5, scaling };
        for key in ["rope_type", "type"] {
            four["rope_scaling"] = with(parameters.clone(), json!({ key: kind }));
            assert_eq!(decoder(&four).rope, expected);
        }
        let named = with(parameters, json!({ "rope_type": kind, "rope_theta": 5e5 }));
        five["rope_parameters"] = named.clone();
        assert_eq!(decoder(&five).rope, expected);
        five["rope_scaling"] = named;
        assert_eq!(decoder(&five).rope, expected, "both spellings, one meaning");
        five.as_object_mut().unwrap().remove("rope_scaling");
    }
    five["rope_scaling"] = json!({ "type": "linear", "factor": 2.0 });
    let complaint = folder(&five, Entry::new("x", &[1])).complaint();
    assert_names(&complaint, &["config.json", "rope_scaling", "the same as rope_parameters"]);
    four["rope_scaling"] = Value::Null;
    assert_eq!(decoder(&four).rope.scaling, RopeScaling::None);
    four.as_object_mut().unwrap().remove("rope_theta");
    assert_eq!(decoder(&four).rope.theta, 10_000.0);
}

#[test]
fn encoders_read_windows_and_positions() {
    let bert = Encoder {
        positions: 40,
        first_position: 0,
        token_types: 4,
        item_positions: 0,
        windows: None,
    };
    let (family, architecture) = read(&encoder_config("bert"));
    assert_eq!((family, architecture.head_dim, architecture.norm_eps), (Family::Bert, 4, 1e-5));
    assert_eq!(architecture.blocks, BlockKind::Encoder(bert.clone()));

    let longformer = with(
        encoder_config("longformer"),
        json!({ "attention_window": [4, 6], "pad_token_id": 3 }),
    );
    let windows = Some(vec![4, 6]);
    let expected = Encoder { first_position: 4, windows: windows.clone(), ..bert.clone() };
    assert_eq!(read(&longformer).1.blocks, BlockKind::Encoder(expected));
    let one = with(longformer.clone(), json!({ "attention_window": 4 }));
    let expected = Encoder { first_position: 4, windows: Some(vec![4, 4]), ..bert.clone() };
    assert_eq!(read(&one).1.blocks, BlockKind::Encoder(expected));

    let table = "longformer.embeddings.item_position_embeddings.weight";
    let recformer = folder(&longformer, Entry::new(table, &[51, 8])).open().unwrap();
    let expected = Encoder { first_position: 4, item_positions: 51, windows, ..bert };
    assert_eq!(recformer.architecture().blocks, BlockKind::Encoder(expected));
    for wrong in [&[51, 7][..], &[0, 8], &[51]] {
        let complaint = folder(&longformer, Entry::new(table, wrong)).complaint();
        assert_names(&complaint, &["embeddings.item_position_embeddings.weight", "expected ["]);
    }
}

#[test]
fn what_is_not_supported_is_refused_by_key_and_value() {
    let refused = |config: Value, changes: Value, words: &[&str]| {
        let complaint = folder(&with(config, changes), Entry::new("x", &[1])).complaint();
        assert_names(&complaint, &["config.json: "]);
        assert_names(&complaint, words);
    };
    let llama = |changes: Value, words: &[&str]| refused(llama_config(), changes, words);
    llama(json!({ "model_type": "mistral" }), &["model_type", "mistral", "llama, qwen2"]);
    llama(json!({ "model_type": null }), &["model_type"]);
    llama(json!({ "hidden_act": "gelu" }), &["hidden_act", "\"gelu\"", "silu"]);
    llama(json!({ "use_sliding_window": true }), &["use_sliding_window: got true"]);
    llama(json!({ "layer_types": ["sliding_attention"] }), &["layer_types", "sliding_attention"]);
    llama(
        json!({ "quantization_config": { "bits": 4 } }),
        &["quantization_config", "{\"bits\":4}"],
    );
    llama(json!({ "partial_rotary_factor": 0.5 }), &["partial_rotary_factor: got 0.5, expected 1"]);
    for kind in ["dynamic", "yarn", "longrope", "mrope"] {
        llama(json!({ "rope_scaling": { "type": kind } }), &["rope_scaling.type", kind, "llama3"]);
        let five = json!({ "rope_parameters": { "rope_type": kind, "rope_theta": 1e4 } });
        llama(five, &["rope_parameters.rope_type", kind, "default, linear or llama3"]);
    }
    let nested = json!({ "rope_parameters": { "full_attention": { "rope_type": "default" } } });
    llama(nested, &["rope_parameters.rope_type: got nothing"]);
    let partial =
        json!({ "rope_parameters": { "rope_type": "default", "partial_rotary_factor": 2 } });
    llama(partial, &["rope_parameters.partial_rotary_factor: got 2, expected 1"]);
    llama(json!({ "rope_scaling": { "type": "linear" } }), &["rope_scaling.factor: got nothing"]);
    let bert = |changes: Value, words: &[&str]| refused(encoder_config("bert"), changes, words);
    bert(json!({ "hidden_act": "gelu_new" }), &["hidden_act", "gelu_new"]);
    bert(json!({ "is_decoder": true }), &["is_decoder"]);
    let relative = json!({ "position_embedding_type": "relative_key" });
    bert(relative, &["position_embedding_type", "relative_key", "absolute"]);
}

#[test]
fn numbers_that_would_break_something_later_are_refused() {
    let refused = |config: Value, key: &str, value: Value| {
        let complaint = folder(&with(config, json!({ key: value })), Entry::new("x", &[1]));
        assert_names(&complaint.complaint(), &["config.json: ", key, "expected"]);
    };
    for key in ["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"] {
        for value in [json!(0), json!(-1), json!(1.5), json!("4"), json!(1u64 << 40), Value::Null] {
            refused(llama_config(), key, value);
        }
    }
    refused(llama_config(), "num_hidden_layers", json!(2_000_000_000));
    refused(llama_config(), "num_key_value_heads", json!(3));
    refused(llama_config(), "hidden_size", json!(5));
    refused(llama_config(), "hidden_size", json!(6)); // heads of width 3 cannot be rotated
    refused(llama_config(), "head_dim", json!(3));
    refused(llama_config(), "rope_theta", json!(0));
    refused(llama_config(), "rms_norm_eps", json!(-1e-6));
    refused(llama_config(), "tie_word_embeddings", json!("false"));
    refused(llama_config(), "eos_token_id", json!(8));
    let llama3 = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    });
    refused(llama_config(), "rope_scaling", llama3);
    let longformer = || encoder_config("longformer");
    for value in [json!(3), json!(0), json!([4]), json!([4, 5]), json!("4")] {
        refused(longformer(), "attention_window", value);
    }
    // The first token's position would be past the last row.
    refused(with(longformer(), json!({ "vocab_size": 60 })), "pad_token_id", json!(39));
    let complaint = folder(&json!(["llama"]), Entry::new("x", &[1])).complaint();
    assert_names(&complaint, &["config.json", "JSON object"]);
}
