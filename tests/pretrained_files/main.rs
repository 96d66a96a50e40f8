//! Hugging Face folders: what is read from them, and what is refused with which words.

#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers included")]

mod config;
mod damage;
mod fixtures;
mod garbage;
mod support;

use std::collections::BTreeSet;
use std::fs;

use fellrec::model::pretrained::{Checkpoint, PretrainedError, TensorProblem};
use fellrec::model::spec::{Init, TensorSpec};
use safetensors::Dtype;
use serde_json::json;
use support::*;
use tch::{Device, Kind, Tensor};

fn spec(name: &str) -> TensorSpec {
    llama_specs().into_iter().find(|spec| spec.name == name).unwrap()
}

#[test]
fn a_single_file_and_shards_are_one_model() {
    let (single, sharded) = (Folder::llama().open().unwrap(), Folder::sharded().open().unwrap());
    for checkpoint in [&single, &sharded] {
        checkpoint.check(&llama_specs()).unwrap();
    }
    for spec in llama_specs() {
        let read = |c: &Checkpoint| c.tensor(&spec, Kind::Float, Device::Cpu).unwrap();
        let expected = Entry::new(&spec.name, &spec.shape);
        let stored: Vec<f32> =
            expected.bytes.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let expected = Tensor::from_slice(&stored).view(spec.shape.as_slice());
        assert!(read(&single).equal(&expected) && read(&sharded).equal(&expected));
    }
    assert_eq!(single.digest().unwrap(), sharded.digest().unwrap());
}

#[test]
fn a_digest_sees_one_bit_and_the_config() {
    let digest = |config: &serde_json::Value, entries: &[Entry]| {
        let folder = Folder::new(config);
        write(&folder.file("model.safetensors"), entries);
        folder.open().unwrap().digest().unwrap()
    };
    let (config, entries) = (llama_config(), llama_entries());
    let before = digest(&config, &entries);
    let mut flipped = entries.clone();
    flipped[5].bytes[0] ^= 1;
    assert_ne!(before, digest(&config, &flipped));
    let mut other = config.clone();
    other["rope_theta"] = json!(10_000.0);
    assert_ne!(before, digest(&other, &entries));
    // How it is written down does not matter, nor what no model computes with.
    let mut spelled = config.clone();
    spelled["rope_parameters"] = json!({ "rope_theta": 5e5, "rope_type": "default" });
    spelled["torch_dtype"] = json!("float32");
    let mut more = entries.clone();
    more.push(Entry::new("model.layers.0.self_attn.rotary_emb.inv_freq", &[1]));
    assert_eq!(before, digest(&spelled, &more));
}

#[test]
fn only_the_tensors_asked_for_are_read() {
    let folder = Folder::sharded();
    let checkpoint = folder.open().unwrap();
    checkpoint.check(&llama_specs()).unwrap();
    assert_eq!(checkpoint.tensors_read(), BTreeSet::new());
    let asked = ["model.layers.1.mlp.up_proj.weight", "model.layers.0.self_attn.q_proj.weight"];
    for name in asked {
        let _tensor = checkpoint.tensor(&spec(name), Kind::Float, Device::Cpu).unwrap();
    }
    let absent = TensorSpec::new("model.layers.7.x", &[1], Init::Zeros);
    assert!(checkpoint.tensor(&absent, Kind::Float, Device::Cpu).is_err());
    checkpoint.digest().unwrap();
    assert_eq!(checkpoint.tensors_read(), asked.map(str::to_owned).into());
}

#[test]
fn numbers_of_16_bits_become_the_32_bits_they_stand_for() {
    // 1, -2, 0.15625 and a subnormal half, in bits.
    let cases = [
        (Dtype::BF16, [0x3f80u16, 0xc000, 0x3e20, 0x0001], f32::from_bits(0x0001_0000)),
        (Dtype::F16, [0x3c00, 0xc000, 0x3100, 0x0001], 2f32.powi(-24)),
    ];
    for (dtype, bits, smallest) in cases {
        let folder = Folder::new(&llama_config());
        let bytes = bits.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        let name = "model.norm.weight".to_owned();
        let entry = Entry { name, dtype, shape: vec![4], bytes };
        write(&folder.file("model.safetensors"), &[entry]);
        let checkpoint = folder.open().unwrap();
        let norm = spec("model.norm.weight");
        let wide = checkpoint.tensor(&norm, Kind::Float, Device::Cpu).unwrap();
        assert_eq!(Vec::<f32>::try_from(&wide).unwrap(), [1.0, -2.0, 0.15625, smallest]);
        let narrow = checkpoint.tensor(&norm, Kind::BFloat16, Device::Cpu).unwrap();
        assert_eq!(narrow.kind(), Kind::BFloat16);
        assert!(narrow.equal(&wide.to_kind(Kind::BFloat16)));
    }
}

#[test]
fn a_bare_model_has_the_tensors_of_one_with_a_head() {
    let mut config = llama_config();
    config["tie_word_embeddings"] = json!(true);
    let folder = Folder::new(&config);
    let bare = llama_entries().into_iter().filter_map(|mut entry| {
        entry.name = entry.name.strip_prefix("model.")?.to_owned();
        Some(entry)
    });
    write(&folder.file("model.safetensors"), &bare.collect::<Vec<_>>());
    let specs: Vec<_> = llama_specs().into_iter().filter(|s| s.name != "lm_head.weight").collect();
    folder.open().unwrap().check(&specs).unwrap();
}

#[test]
fn everything_that_does_not_fit_is_named_with_its_file() {
    let folder = Folder::new(&llama_config());
    let mut entries = llama_entries();
    let missing = entries.remove(0).name;
    entries[1].shape = vec![4, 8];
    let misshapen = entries[1].name.clone();
    entries[2].dtype = Dtype::I32;
    let integers = entries[2].name.clone();
    entries.push(Entry::new("model.layers.2.input_layernorm.weight", &[4]));
    write(&folder.file("model.safetensors"), &entries);
    let error = folder.open().unwrap().check(&llama_specs()).unwrap_err();
    let (message, file) = (error.to_string(), folder.file("model.safetensors"));
    assert_eq!(message.matches(file.to_str().unwrap()).count(), 4, "{message}");
    let PretrainedError::Tensors { problems } = error else { panic!("{error:?}") };
    let (got, expected) = (vec![4, 8], vec![8, 4]);
    assert_eq!(
        problems,
        [
            TensorProblem::Missing { file: file.clone(), tensor: missing },
            TensorProblem::Shape { file: file.clone(), tensor: misshapen, got, expected },
            TensorProblem::Dtype { file: file.clone(), tensor: integers, got: "I32".into() },
            TensorProblem::Extra { file, tensor: "model.layers.2.input_layernorm.weight".into() },
        ]
    );
    assert_names(&message, &["has shape [4, 8], expected [8, 4]", "type I32", "is missing"]);
}

#[test]
fn an_untied_head_that_is_missing_is_looked_for_in_the_index() {
    let folder = Folder::sharded();
    let head = TensorSpec::new("lm_tail.weight", &[8, 4], Init::Zeros);
    let error = folder.open().unwrap().tensor(&head, Kind::Float, Device::Cpu).unwrap_err();
    assert_names(&error.to_string(), &["lm_tail.weight", "model.safetensors.index.json"]);
}

#[test]
fn special_tokens_come_from_the_generation_config_first() {
    let folder = Folder::llama();
    let tokens = folder.open().unwrap().special_tokens();
    assert_eq!((tokens.bos, tokens.eos, tokens.pad), (Some(1), vec![2], None));
    let generation = json!({ "eos_token_id": [2, 7], "pad_token_id": 0, "do_sample": true });
    fs::write(folder.file("generation_config.json"), generation.to_string()).unwrap();
    let tokens = folder.open().unwrap().special_tokens();
    assert_eq!((tokens.bos, tokens.eos, tokens.pad), (Some(1), vec![2, 7], Some(0)));
    fs::write(folder.file("generation_config.json"), r#"{"eos_token_id": [2, 8]}"#).unwrap();
    let expected = ["generation_config.json", "eos_token_id", "[2,8]", "below 8"];
    assert_names(&folder.complaint(), &expected);
}

#[test]
fn a_tokenizer_is_found_only_where_there_is_one() {
    let folder = Folder::llama();
    assert_eq!(folder.open().unwrap().tokenizer(), None);
    fs::write(folder.file("tokenizer.json"), "{}").unwrap();
    assert_eq!(folder.open().unwrap().tokenizer(), Some(folder.file("tokenizer.json")));
}
