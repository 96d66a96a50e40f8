//! Which files of a folder hold the weights: one, or the shards that an index names.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::error::PretrainedError;
use super::json::JsonObject;
use super::mapped::MappedFile;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const PICKLED: [&str; 2] = ["pytorch_model.bin", "pytorch_model.bin.index.json"];

/// Maps the weights of a folder. A single file wins over an index, as in transformers.
///
/// # Errors
/// Files that are missing or no safetensors; an index that its shards contradict.
pub(super) fn open(folder: &Path) -> Result<Vec<MappedFile>, PretrainedError> {
    if folder.join(SINGLE).exists() {
        return Ok(vec![MappedFile::open(&folder.join(SINGLE))?]);
    }
    if let Some(index) = JsonObject::read(folder, INDEX)? {
        return open_shards(folder, &index);
    }
    Err(absent(folder, &PICKLED, SINGLE, "model.safetensors or model.safetensors.index.json"))
}

/// Where a tensor that is in none of `files` would have been found.
pub(super) fn home(files: &[MappedFile], folder: &Path) -> PathBuf {
    match files {
        [single] => single.path.clone(),
        _ => folder.join(INDEX),
    }
}

/// The error of a folder without safetensors: it says what to do about pickled weights.
pub(super) fn absent(
    folder: &Path,
    pickled: &[&str],
    convert_to: &'static str,
    expected: &'static str,
) -> PretrainedError {
    match pickled.iter().map(|name| folder.join(name)).find(|file| file.exists()) {
        Some(file) => PretrainedError::Pickled { file, expected: convert_to },
        None => PretrainedError::MissingFile { folder: folder.to_owned(), expected },
    }
}

fn open_shards(folder: &Path, index: &JsonObject) -> Result<Vec<MappedFile>, PretrainedError> {
    let map = index.required("weight_map", index.object("weight_map")?)?;
    let mut shards: BTreeMap<&str, MappedFile> = BTreeMap::new();
    for (tensor, _) in map.entries() {
        let name = map.required(tensor, map.text(tensor)?)?;
        if !is_plain(name) {
            return Err(map.wrong(tensor, "the name of a file of this folder"));
        }
        let shard = match shards.get(name) {
            Some(shard) => shard,
            None => {
                let (index, path) = (folder.join(INDEX), folder.join(name));
                if !path.exists() {
                    let (tensor, shard) = (tensor.clone(), name.to_owned());
                    return Err(PretrainedError::MissingShard { index, tensor, shard });
                }
                shards.entry(name).or_insert(MappedFile::open(&path)?)
            }
        };
        if !shard.tensors.contains_key(tensor) {
            let (index, tensor, shard) = (folder.join(INDEX), tensor.clone(), shard.path.clone());
            return Err(PretrainedError::NotInShard { index, tensor, shard });
        }
    }
    Ok(shards.into_values().collect())
}

/// An index comes from outside: it must not lead out of its folder.
fn is_plain(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!((components.next(), components.next()), (Some(Component::Normal(_)), None))
}
