//! PEFT's LoRA folders: read, written, and refused where they are more than that.

#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers included")]

use std::fs;
use std::path::Path;

use fellrec::config::{LoraConfig, Projection};
use fellrec::model::pretrained::{Adapter, write_adapter};
use fellrec::model::slice::{NamedTensor, Slice};
use fellrec::model::spec::{Init, TensorSpec};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

fn lora() -> LoraConfig {
    let targets = vec![Projection::QProj, Projection::DownProj];
    LoraConfig { rank: 2, alpha: 16.0, dropout: 0.05, targets }
}

fn specs() -> Vec<TensorSpec> {
    let mut specs = Vec::new();
    for layer in [0, 10] {
        for (module, inputs, outputs) in [("self_attn.q_proj", 4, 6), ("mlp.down_proj", 8, 4)] {
            let name = format!("model.layers.{layer}.{module}");
            let spec = |part: &str, shape: &[i64]| {
                TensorSpec::new(format!("{name}.lora_{part}.weight"), shape, Init::Normal(1.0))
            };
            specs.extend([spec("A", &[2, inputs]), spec("B", &[outputs, 2])]);
        }
    }
    specs
}

/// What a client may have trained.
fn trained() -> Slice {
    let drawn = |spec: &TensorSpec| NamedTensor::new(spec.name.clone(), spec.initial(7));
    Slice::new(specs().iter().map(drawn).collect())
}

/// A written adapter whose config has been changed.
fn changed(folder: &Path, changes: Value) {
    write_adapter(folder, "base", &lora(), &trained().tensors).unwrap();
    let file = folder.join("adapter_config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    fs::write(file, config.to_string()).unwrap();
}

fn assert_names(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

#[test]
fn what_is_written_comes_back_bit_by_bit() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("a/new/folder");
    let trained = trained();
    write_adapter(&folder, "meta-llama/Llama-2-7b-hf", &lora(), &trained.tensors).unwrap();
    let adapter = Adapter::open(&folder).unwrap();
    assert_eq!(adapter.lora(), &lora());
    assert_eq!((adapter.rank(), adapter.alpha(), adapter.targets()), (2, 16.0, lora().targets));
    assert_eq!(adapter.base(), Some("meta-llama/Llama-2-7b-hf"));
    adapter.check(&specs()).unwrap();
    for spec in specs() {
        let read = adapter.tensor(&spec, Kind::Float, Device::Cpu).unwrap();
        assert!(read.equal(trained.get(&spec.name).unwrap()), "{}", spec.name);
    }
}

/// Names and metadata as PEFT's own `save_pretrained` has them.
#[test]
fn the_files_are_those_that_peft_looks_for() {
    let folder = tempfile::tempdir().unwrap();
    write_adapter(folder.path(), "base", &lora(), &trained().tensors).unwrap();
    let bytes = fs::read(folder.path().join("adapter_model.safetensors")).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(header.metadata().as_ref().unwrap()["format"], "pt");
    let mut names = header.offset_keys();
    names.sort();
    let expected = "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight";
    assert_eq!((names.len(), names[0].as_str()), (8, expected));

    let config = fs::read(folder.path().join("adapter_config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    for (key, value) in [
        ("peft_type", json!("LORA")),
        ("task_type", json!("CAUSAL_LM")),
        ("base_model_name_or_path", json!("base")),
        ("r", json!(2)),
        ("lora_alpha", json!(16)),
        ("lora_dropout", json!(0.05)),
        ("target_modules", json!(["q_proj", "down_proj"])),
        ("bias", json!("none")),
        ("fan_in_fan_out", json!(false)),
        ("inference_mode", json!(true)),
    ] {
        assert_eq!(config[key], value, "{key}");
    }
}

#[test]
fn only_whole_adapters_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("none");
    let refused = |change: &dyn Fn(&mut Vec<NamedTensor>), words: &[&str]| {
        let mut tensors = trained().tensors;
        change(&mut tensors);
        let error = write_adapter(&folder, "base", &lora(), &tensors).unwrap_err();
        assert_names(&error.to_string(), words);
        assert!(!folder.exists(), "nothing is written");
    };
    let first = trained().tensors[0].name.clone();
    let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
    refused(&|t| t[0].name = "item_projector.0.weight".into(), &["item_projector.0.weight"]);
    refused(&|t| drop(t.remove(0)), &["model.layers.0", "it alone", &first]);
    refused(&|t| t[0].tensor = zeros(&[3, 8]), &[&first, "[3, 8]", "rank 2 along dimension 0"]);
    refused(&|t| t[1].tensor = zeros(&[2]), &["shape [2]", "rank 2 along dimension 1"]);
    refused(&|t| t.push(trained().tensors.remove(0)), &[&first, "twice"]);
    let other = "model.layers.0.self_attn.k_proj.lora_A.weight";
    refused(&|t| t[0].name = other.into(), &[other, "KProj", "QProj"]);
}

#[test]
fn more_than_plain_lora_is_refused_by_key_and_value() {
    let folder = tempfile::tempdir().unwrap();
    for (key, value) in [
        ("peft_type", json!("IA3")),
        ("peft_type", Value::Null),
        ("bias", json!("lora_only")),
        ("use_dora", json!(true)),
        ("modules_to_save", json!(["lm_head"])),
        ("rank_pattern", json!({ "q_proj": 4 })),
        ("alpha_pattern", json!({ "q_proj": 4 })),
        ("layers_to_transform", json!([1])),
        ("layers_to_transform", json!(0)),
        ("fan_in_fan_out", json!(true)),
        ("some_day_new", json!("on")),
        ("init_lora_weights", json!("pissa")),
        ("target_modules", json!(".*(q|v)_proj")),
        ("target_modules", json!(["embed_tokens"])),
        ("target_modules", json!([])),
        ("target_modules", Value::Null),
        ("r", json!(0)),
        ("lora_alpha", json!("16")),
        ("lora_dropout", json!(1)),
    ] {
        changed(folder.path(), json!({ key: value }));
        let message = Adapter::open(folder.path()).unwrap_err().to_string();
        let got = format!("{key}: got {value}");
        assert!(message.contains(&got) || value.is_null(), "{got:?} is not in {message:?}");
        assert_names(&message, &["adapter_config.json", key, "expected"]);
    }
}

#[test]
fn a_root_scaled_adapter_keeps_its_factor() {
    let folder = tempfile::tempdir().unwrap();
    changed(folder.path(), json!({ "use_rslora": true, "peft_version": "0.18" }));
    let adapter = Adapter::open(folder.path()).unwrap();
    let factor = adapter.alpha() / adapter.rank() as f64;
    assert!((factor - 16.0 / 2f64.sqrt()).abs() < 1e-12);
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let folder = tempfile::tempdir().unwrap();
    write_adapter(folder.path(), "base", &lora(), &trained().tensors).unwrap();
    let adapter = Adapter::open(folder.path()).unwrap();
    let mut specs = specs();
    let extra = specs.remove(0).name;
    specs[0].shape = vec![6, 3];
    specs.push(TensorSpec::new("model.layers.3.x.lora_A.weight", &[1], Init::Zeros));
    let message = adapter.check(&specs).unwrap_err().to_string();
    let stored = format!("base_model.model.{extra} is not part of the model");
    let missing = "model.layers.3.x.lora_A.weight is missing";
    assert_names(&message, &["adapter_model.safetensors", &stored, missing, "expected [6, 3]"]);
}

#[test]
fn missing_and_pickled_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let complaint = || Adapter::open(folder.path()).unwrap_err().to_string();
    assert_names(&complaint(), &["holds no adapter_config.json"]);
    write_adapter(folder.path(), "base", &lora(), &trained().tensors).unwrap();
    fs::remove_file(folder.path().join("adapter_model.safetensors")).unwrap();
    assert_names(&complaint(), &["holds no adapter_model.safetensors"]);
    fs::write(folder.path().join("adapter_model.bin"), "x").unwrap();
    assert_names(&complaint(), &["adapter_model.bin", "convert them to adapter_model.safetensors"]);
}
