//! Tiny folders as Hugging Face writes them, byte by byte.

use std::fs;
use std::path::{Path, PathBuf};

use fellrec::model::pretrained::{Checkpoint, PretrainedError};
use fellrec::model::spec::{Init, TensorSpec};
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A tensor of a file.
#[derive(Clone, Debug)]
pub struct Entry {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Entry {
    /// f32 numbers that differ from tensor to tensor.
    pub fn new(name: &str, shape: &[i64]) -> Self {
        let count: i64 = shape.iter().product();
        let seed = name.bytes().map(f32::from).sum::<f32>();
        let bytes = (0..count).flat_map(|i| (seed + i as f32 / 8.0).to_le_bytes()).collect();
        let shape = shape.iter().map(|&dim| dim as usize).collect();
        Self { name: name.to_owned(), dtype: Dtype::F32, shape, bytes }
    }
}

/// A folder that goes away with it.
pub struct Folder(TempDir);

impl Folder {
    pub fn new(config: &Value) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        fs::write(folder.file("config.json"), config.to_string()).unwrap();
        folder
    }

    /// A whole model in one file.
    pub fn llama() -> Self {
        let folder = Self::new(&llama_config());
        write(&folder.file("model.safetensors"), &llama_entries());
        folder
    }

    /// The same in three shards, tensors dealt in turn, with the index.
    pub fn sharded() -> Self {
        let folder = Self::new(&llama_config());
        let mut weight_map = serde_json::Map::new();
        for shard in 0..3 {
            let dealt: Vec<Entry> = llama_entries().into_iter().skip(shard).step_by(3).collect();
            let name = format!("model-{}-of-3.safetensors", shard + 1);
            write(&folder.file(&name), &dealt);
            weight_map.extend(dealt.iter().map(|entry| (entry.name.clone(), json!(name))));
        }
        folder.write_index(&json!(weight_map));
        folder
    }

    pub fn write_index(&self, weight_map: &Value) {
        let index = json!({ "metadata": { "total_size": 1 }, "weight_map": weight_map });
        fs::write(self.file("model.safetensors.index.json"), index.to_string()).unwrap();
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn open(&self) -> Result<Checkpoint, PretrainedError> {
        Checkpoint::open(self.path())
    }

    /// What opening it complains of.
    pub fn complaint(&self) -> String {
        self.open().expect_err("the folder is wrong").to_string()
    }
}

pub fn write(file: &Path, entries: &[Entry]) {
    let mut views = Vec::new();
    for entry in entries {
        let view = TensorView::new(entry.dtype, entry.shape.clone(), &entry.bytes).unwrap();
        views.push((entry.name.as_str(), view));
    }
    safetensors::serialize_to_file(views, None, file).unwrap_or_else(|e| panic!("{e}"));
}

/// A file with a header of one's own making.
pub fn write_raw(file: &Path, header: &str, data: &[u8]) {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    fs::write(file, bytes).unwrap();
}

/// Two blocks, four wide, one key head for two query heads.
pub fn llama_config() -> Value {
    json!({
        "model_type": "llama", "hidden_size": 4, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 6,
        "vocab_size": 8, "rms_norm_eps": 1e-5, "rope_theta": 5e5, "hidden_act": "silu",
        "tie_word_embeddings": false, "bos_token_id": 1, "eos_token_id": 2,
    })
}

/// All tensors of that model.
pub fn llama_specs() -> Vec<TensorSpec> {
    let spec = |name: String, shape: &[i64]| TensorSpec::new(name, shape, Init::Zeros);
    let mut specs = vec![
        spec("model.embed_tokens.weight".into(), &[8, 4]),
        spec("model.norm.weight".into(), &[4]),
        spec("lm_head.weight".into(), &[8, 4]),
    ];
    for layer in 0..2 {
        for (part, shape) in [
            ("input_layernorm", &[4][..]),
            ("self_attn.q_proj", &[4, 4]),
            ("self_attn.k_proj", &[2, 4]),
            ("self_attn.v_proj", &[2, 4]),
            ("self_attn.o_proj", &[4, 4]),
            ("post_attention_layernorm", &[4]),
            ("mlp.gate_proj", &[6, 4]),
            ("mlp.up_proj", &[6, 4]),
            ("mlp.down_proj", &[4, 6]),
        ] {
            specs.push(spec(format!("model.layers.{layer}.{part}.weight"), shape));
        }
    }
    specs
}

pub fn llama_entries() -> Vec<Entry> {
    llama_specs().iter().map(|spec| Entry::new(&spec.name, &spec.shape)).collect()
}

/// Asserts that a message names everything that a reader needs.
pub fn assert_names(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}
