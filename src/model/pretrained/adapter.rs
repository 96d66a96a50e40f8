//! A PEFT folder with a LoRA adapter of a causal model.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tch::{Device, Kind, Tensor};

use super::adapter_file::{CONFIG, PREFIX, WEIGHTS};
use super::config_json::Family;
use super::error::PretrainedError;
use super::json::JsonObject;
use super::mapped::MappedFile;
use super::weights::Weights;
use super::{files, names};
use crate::config::{LoraConfig, Projection};
use crate::model::slice::Digest;
use crate::model::spec::TensorSpec;

/// Starts every digest, so that another way of hashing can never give an equal one.
const DIGEST_VERSION: &[u8] = b"fellrec adapter 1\n";

/// Keys that are read below, or that change nothing about a trained adapter. Whatever else PEFT can
/// do to a model (DoRA, ranks per module, some blocks only ..) has a key that is off here.
const HARMLESS: [&str; 19] = [
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "inference_mode",
    "init_lora_weights",
    "lora_alpha",
    "lora_dropout",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "revision",
    "target_modules",
    "task_type",
    "use_rslora",
];

/// Ways to start that leave the base as it is. The others (PiSSA, OLoRA, LoftQ ..) take something
/// out of the base, which this adapter alone does not tell.
const STARTS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// A LoRA adapter, mapped into memory.
#[derive(Debug)]
pub struct Adapter {
    lora: LoraConfig,
    base: Option<String>,
    weights: Weights,
}

impl Adapter {
    /// Reads `adapter_config.json` and the header of `adapter_model.safetensors`.
    ///
    /// # Errors
    /// Everything that is wrong with either, or not supported, by file and key or tensor.
    pub fn open(folder: &Path) -> Result<Self, PretrainedError> {
        let missing =
            || PretrainedError::MissingFile { folder: folder.to_owned(), expected: CONFIG };
        let config = JsonObject::read(folder, CONFIG)?.ok_or_else(missing)?;
        let lora = lora(&config)?;
        let base = config.text("base_model_name_or_path")?.map(str::to_owned);
        let file = folder.join(WEIGHTS);
        if !file.exists() {
            return Err(files::absent(folder, &["adapter_model.bin"], WEIGHTS, WEIGHTS));
        }
        let weights = Weights::new(vec![MappedFile::open(&file)?], file, ours)?;
        Ok(Self { lora, base, weights })
    }

    /// Rank, alpha, dropout and targets. Alpha is such that alpha / rank is the adapter's factor,
    /// also where the folder divides by the root of the rank (`use_rslora`).
    pub fn lora(&self) -> &LoraConfig {
        &self.lora
    }

    /// Rank of every pair of matrices.
    pub fn rank(&self) -> i64 {
        self.lora.rank
    }

    /// As in [`Adapter::lora`].
    pub fn alpha(&self) -> f64 {
        self.lora.alpha
    }

    /// Adapted projections, of all blocks, in the order of [`Projection`].
    pub fn targets(&self) -> Vec<Projection> {
        self.lora.targets.clone()
    }

    /// What the folder says of its base: a name or a path of whoever trained it.
    pub fn base(&self) -> Option<&str> {
        self.base.as_deref()
    }

    /// Whether it has a tensor of this name.
    pub fn holds(&self, name: &str) -> bool {
        self.weights.shape(name).is_some()
    }

    /// SHA-256 over its shape and its matrices.
    ///
    /// # Errors
    /// A file that has been cut or has grown since it was opened.
    pub fn digest(&self) -> Result<Digest, PretrainedError> {
        let mut hasher = Sha256::new_with_prefix(DIGEST_VERSION);
        let LoraConfig { rank, alpha, targets, .. } = &self.lora;
        let shape = format!("{rank} {alpha} {targets:?}");
        hasher.update((shape.len() as u64).to_le_bytes());
        hasher.update(shape);
        self.weights.hash_into(&mut hasher)?;
        Ok(hasher.into())
    }

    /// Compares the stored tensors with `specs`, which must be ALL that the adapter has.
    ///
    /// # Errors
    /// [`PretrainedError::Tensors`] with everything missing, extra, or of another shape or type.
    pub fn check(&self, specs: &[TensorSpec]) -> Result<(), PretrainedError> {
        self.weights.check(specs)
    }

    /// Reads one tensor, converted to `kind` on `device`.
    ///
    /// # Errors
    /// Those of [`Checkpoint::tensor`](super::Checkpoint::tensor).
    pub fn tensor(
        &self,
        spec: &TensorSpec,
        kind: Kind,
        device: Device,
    ) -> Result<Tensor, PretrainedError> {
        self.weights.tensor(spec, kind, device)
    }
}

fn lora(config: &JsonObject) -> Result<LoraConfig, PretrainedError> {
    let expect = |key: &str, only: &str| match config.text(key)? {
        Some(value) if value == only => Ok(()),
        _ => Err(config.wrong(key, only)),
    };
    expect("peft_type", "LORA")?;
    if config.value("bias").is_some() {
        expect("bias", "none")?;
    }
    let others = config.entries().map(|(key, _)| key.as_str());
    let others: Vec<&str> = others.filter(|key| !HARMLESS.contains(key)).collect();
    config.inactive(&others)?;
    start(config)?;
    let rank = config.required("r", config.dimension("r")?)?;
    let alpha = config.required("lora_alpha", config.positive("lora_alpha")?)?;
    let scale = if config.flag("use_rslora")? { (rank as f64).sqrt() } else { 1.0 };
    Ok(LoraConfig {
        rank,
        alpha: alpha * scale,
        dropout: config.fraction("lora_dropout")?.unwrap_or(0.0),
        targets: targets(config)?,
    })
}

fn start(config: &JsonObject) -> Result<(), PretrainedError> {
    const KEY: &str = "init_lora_weights";
    match config.value(KEY) {
        None | Some(Value::Bool(_)) => Ok(()),
        Some(Value::String(start)) if STARTS.contains(&start.as_str()) => Ok(()),
        Some(_) => Err(config.wrong(KEY, "a start that leaves the base as it is")),
    }
}

fn targets(config: &JsonObject) -> Result<Vec<Projection>, PretrainedError> {
    const KEY: &str = "target_modules";
    let wrong = || config.wrong(KEY, "a list of projections, such as [\"q_proj\", \"v_proj\"]");
    let list = config.value(KEY).and_then(Value::as_array).ok_or_else(wrong)?;
    let mut targets = Vec::with_capacity(list.len());
    for name in list {
        targets.push(Projection::deserialize(name).map_err(|_| wrong())?);
    }
    // PEFT keeps them in a set and writes them in any order.
    targets.sort();
    targets.dedup();
    if targets.is_empty() { Err(wrong()) } else { Ok(targets) }
}

/// PEFT puts its own two modules around the model.
fn ours(stored: &str) -> Option<String> {
    match stored.strip_prefix(PREFIX) {
        Some(name) => names::ours(Family::Llama, false, name),
        None => Some(stored.to_owned()),
    }
}
