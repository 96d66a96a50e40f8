//! Writes what a client trained as a folder that PEFT loads on the base it was trained on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as NameError, StrDeserializer};
use serde_json::{Value, json};

use super::error::PretrainedError;
use crate::config::{LoraConfig, Projection};
use crate::model::slice::{NamedTensor, Slice};

/// The file that says what the adapter is.
pub(super) const CONFIG: &str = "adapter_config.json";
/// The file with its tensors.
pub(super) const WEIGHTS: &str = "adapter_model.safetensors";
/// What PEFT puts before the names of the model's own modules.
pub(super) const PREFIX: &str = "base_model.model.";

/// Writes `adapter_config.json` and `adapter_model.safetensors` into `folder`, which is made.
///
/// `base` is what PEFT finds the base by: a name on the hub or a path. The tensors are those of
/// all places of one client, under our names, in their own number type.
///
/// # Errors
/// A tensor that is no part of an adapter as `lora` describes it, before anything is written; the
/// disk's.
pub fn write_adapter<'a>(
    folder: &Path,
    base: &str,
    lora: &LoraConfig,
    tensors: impl IntoIterator<Item = &'a NamedTensor>,
) -> Result<(), PretrainedError> {
    let mut names = BTreeSet::new();
    let mut renamed = Vec::new();
    for named in tensors {
        fits(named, lora)?;
        if !names.insert(named.name.as_str()) {
            return Err(not_adapter(&named.name, "it twice", "every tensor once"));
        }
        let name = format!("{PREFIX}{}", named.name);
        renamed.push(NamedTensor::new(name, named.tensor.shallow_clone()));
    }
    for name in &names {
        let partner = partner(name);
        if !names.contains(partner.as_str()) {
            return Err(not_adapter(name, "it alone", format!("{partner} beside it")));
        }
    }
    fs::create_dir_all(folder).map_err(|error| PretrainedError::io(folder, error))?;
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    Slice::new(renamed).write(&folder.join(WEIGHTS), &metadata)?;
    let file = folder.join(CONFIG);
    let text = format!("{:#}\n", config(base, lora));
    fs::write(&file, text).map_err(|error| PretrainedError::io(&file, error))
}

/// The keys that every version of PEFT knows, at the values that they have here.
fn config(base: &str, lora: &LoraConfig) -> Value {
    json!({
        "alpha_pattern": {},
        "auto_mapping": null,
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "layers_pattern": null,
        "layers_to_transform": null,
        "lora_alpha": whole(lora.alpha),
        "lora_dropout": lora.dropout,
        "modules_to_save": null,
        "peft_type": "LORA",
        "r": lora.rank,
        "rank_pattern": {},
        "revision": null,
        "target_modules": lora.targets,
        "task_type": "CAUSAL_LM",
        "use_dora": false,
        "use_rslora": false,
    })
}

/// PEFT declares alpha as a whole number, and computes with whatever it gets.
fn whole(alpha: f64) -> Value {
    if alpha.fract() == 0.0 && alpha.abs() < 1e15 { json!(alpha as i64) } else { json!(alpha) }
}

fn fits(named: &NamedTensor, lora: &LoraConfig) -> Result<(), PretrainedError> {
    let Some((target, rank_axis)) = part(&named.name) else {
        let expected = "the LoRA matrix of a projection, which is all that PEFT's folders hold";
        return Err(not_adapter(&named.name, "another tensor", expected));
    };
    if !lora.targets.contains(&target) {
        let expected = format!("one of {:?}", lora.targets);
        return Err(not_adapter(&named.name, format!("target {target:?}"), expected));
    }
    let shape = named.tensor.size();
    if shape.len() != 2 || shape[rank_axis] != lora.rank {
        let expected = format!("rank {} along dimension {rank_axis} of 2", lora.rank);
        return Err(not_adapter(&named.name, format!("shape {shape:?}"), expected));
    }
    Ok(())
}

/// The projection that an adapter's matrix belongs to, and along which dimension its rank lies.
fn part(name: &str) -> Option<(Projection, usize)> {
    let (module, rank_axis) = match name.strip_suffix(".lora_A.weight") {
        Some(module) => (module, 0),
        None => (name.strip_suffix(".lora_B.weight")?, 1),
    };
    let target = module.strip_prefix("model.layers.")?.rsplit('.').next()?;
    let target: StrDeserializer<'_, NameError> = target.into_deserializer();
    Some((Projection::deserialize(target).ok()?, rank_axis))
}

/// Name of the other matrix of the pair.
fn partner(name: &str) -> String {
    match name.strip_suffix(".lora_A.weight") {
        Some(module) => format!("{module}.lora_B.weight"),
        None => name.replace(".lora_B.weight", ".lora_A.weight"),
    }
}

fn not_adapter(
    tensor: &str,
    got: impl Into<String>,
    expected: impl Into<String>,
) -> PretrainedError {
    let (got, expected) = (got.into(), expected.into());
    PretrainedError::NotAdapter { tensor: tensor.to_owned(), got, expected }
}
