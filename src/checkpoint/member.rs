//! One member's states, by round: a client's front and back, or a client's slice of one stage.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tch::Device;

use super::directory::{commit_directory, remove, round_directory, rounds, sha256_file};
use super::{CheckpointError, io_error};
use crate::config::OptimizerConfig;
use crate::ids::Round;
use crate::model::slice::{Digest, NamedTensor, Slice};
use crate::training::{AdamW, Moments, TrainablePart};

const MANIFEST: &str = "manifest.json";
const FIRST_MOMENT: &str = "exp_avg.";
const SECOND_MOMENT: &str = "exp_avg_sq.";

/// A trained part at rest: its tensors and its optimiser.
#[derive(Debug)]
pub struct PartState {
    /// The tensors.
    pub slice: Slice,
    /// Moments and step count.
    pub optimizer: AdamW,
}

impl PartState {
    /// The state before any training.
    pub fn fresh(slice: Slice, config: &OptimizerConfig) -> Self {
        Self { slice, optimizer: AdamW::new(config) }
    }

    /// Leaves for training, with this state's moments.
    pub fn into_trainable(self, device: Device) -> TrainablePart {
        TrainablePart::new(&self.slice, self.optimizer, device)
    }

    fn moments(&self) -> Slice {
        let pairs = self.slice.tensors.iter().zip(self.optimizer.moments());
        let named = |prefix: &str, name: &str, tensor: &tch::Tensor| NamedTensor {
            name: format!("{prefix}{name}"),
            tensor: tensor.to_device(Device::Cpu),
        };
        let both = pairs.flat_map(|(NamedTensor { name, .. }, moments)| {
            [named(FIRST_MOMENT, name, &moments.first), named(SECOND_MOMENT, name, &moments.second)]
        });
        Slice::new(both.collect())
    }
}

/// What a member's folder of a round holds.
#[derive(Debug, Serialize, Deserialize)]
struct MemberManifest {
    round: Round,
    parts: BTreeMap<String, PartEntry>,
    /// SHA-256 by file name.
    files: BTreeMap<String, String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct PartEntry {
    steps: u64,
    slice: Digest,
}

/// Folder with one member's states.
#[derive(Clone, Debug)]
pub struct MemberStore {
    path: PathBuf,
    optimizer: OptimizerConfig,
    fsync: bool,
}

impl MemberStore {
    /// A store in `path`, made when first written to.
    pub fn new(path: PathBuf, optimizer: &OptimizerConfig, fsync: bool) -> Self {
        Self { path, optimizer: optimizer.clone(), fsync }
    }

    /// Writes the state of `round` beside the others; it replaces what an earlier attempt staged.
    ///
    /// Returns the digest of the folder's manifest: the receipt that the round manifest lists.
    pub fn stage(
        &self,
        round: Round,
        parts: &[(&str, &PartState)],
    ) -> Result<Digest, CheckpointError> {
        let mut text = Vec::new();
        let target = round_directory(&self.path, round);
        commit_directory(&target, self.fsync, |folder| {
            let mut manifest =
                MemberManifest { round, parts: BTreeMap::new(), files: BTreeMap::new() };
            for (name, part) in parts {
                let slice = part.slice.digest();
                let steps = part.optimizer.steps();
                manifest.parts.insert((*name).to_owned(), PartEntry { steps, slice });
                let mut write = |file: String, slice: &Slice| {
                    slice.write(&folder.join(&file), &BTreeMap::new())?;
                    let digest = sha256_file(&folder.join(&file))?;
                    manifest.files.insert(file, digest);
                    Ok::<_, CheckpointError>(())
                };
                write(slice_file(name), &part.slice)?;
                if !part.optimizer.moments().is_empty() {
                    write(moments_file(name), &part.moments())?;
                }
            }
            text = serde_json::to_vec_pretty(&manifest).expect("a manifest is plain data");
            let path = folder.join(MANIFEST);
            fs::write(&path, &text).map_err(io_error(&path))
        })?;
        Ok(Digest::of(&text))
    }

    /// Reads one part of the state of `round`; `layout` is what the model expects.
    pub fn load(
        &self,
        round: Round,
        part: &str,
        layout: &Slice,
    ) -> Result<PartState, CheckpointError> {
        let (folder, manifest) = self.manifest(round)?;
        let entry = manifest
            .parts
            .get(part)
            .ok_or_else(|| CheckpointError::Missing { path: folder.join(part), round })?;
        let path = folder.join(slice_file(part));
        let slice = checked_slice(&path, &manifest)?;
        slice
            .same_layout(layout)
            .map_err(|source| CheckpointError::Layout { path: path.clone(), source })?;
        let path = folder.join(moments_file(part));
        let mut moments = Vec::new();
        if manifest.files.contains_key(&moments_file(part)) {
            let saved = checked_slice(&path, &manifest)?;
            for NamedTensor { name, .. } in &slice.tensors {
                let tensor = |prefix: &str| {
                    let tensor = saved.get(&format!("{prefix}{name}")).map(|t| t.shallow_clone());
                    tensor.ok_or_else(|| CheckpointError::Missing { path: path.clone(), round })
                };
                let (first, second) = (tensor(FIRST_MOMENT)?, tensor(SECOND_MOMENT)?);
                moments.push(Moments { first, second });
            }
        }
        let optimizer = AdamW::restored(&self.optimizer, entry.steps, moments);
        Ok(PartState { slice, optimizer })
    }

    /// Whether a part of the state of `round` is here; not whether it is whole.
    pub fn has(&self, round: Round, part: &str) -> bool {
        self.manifest(round).is_ok_and(|(_, manifest)| manifest.parts.contains_key(part))
    }

    /// Checks that the state of `round` is whole and is the one with this receipt.
    pub fn verify(&self, round: Round, receipt: &Digest) -> Result<(), CheckpointError> {
        let path = round_directory(&self.path, round).join(MANIFEST);
        let got = sha256_file(&path)?;
        if got != receipt.as_str() {
            let expected = receipt.as_str().to_owned();
            return Err(CheckpointError::Digest { path, got, expected });
        }
        let (folder, manifest) = self.manifest(round)?;
        for (file, expected) in &manifest.files {
            check_file(&folder.join(file), expected)?;
        }
        Ok(())
    }

    /// Removes the states of all rounds but these and newer ones, which are staged or of a later
    /// commit: a word that comes late must not take them.
    pub fn retain(&self, keep: &BTreeSet<Round>) -> Result<(), CheckpointError> {
        for round in rounds(&self.path) {
            if !keep.contains(&round) && keep.last().is_some_and(|newest| round < *newest) {
                remove(&round_directory(&self.path, round))?;
            }
        }
        Ok(())
    }

    fn manifest(&self, round: Round) -> Result<(PathBuf, MemberManifest), CheckpointError> {
        let folder = round_directory(&self.path, round);
        let path = folder.join(MANIFEST);
        if !path.exists() {
            return Err(CheckpointError::Missing { path: self.path.clone(), round });
        }
        let text = fs::read(&path).map_err(io_error(&path))?;
        let manifest = serde_json::from_slice(&text)
            .map_err(|source| CheckpointError::Manifest { path, source })?;
        Ok((folder, manifest))
    }
}

fn slice_file(part: &str) -> String {
    format!("{part}.safetensors")
}

fn moments_file(part: &str) -> String {
    format!("{part}.optimizer.safetensors")
}

fn checked_slice(path: &Path, manifest: &MemberManifest) -> Result<Slice, CheckpointError> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if let Some(expected) = manifest.files.get(name) {
        check_file(path, expected)?;
    }
    Ok(Slice::read(path)?)
}

fn check_file(path: &Path, expected: &str) -> Result<(), CheckpointError> {
    let got = sha256_file(path)?;
    if got == expected {
        return Ok(());
    }
    Err(CheckpointError::Digest { path: path.to_owned(), got, expected: expected.to_owned() })
}
