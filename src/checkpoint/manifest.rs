//! The supervisor's side of a commit: which round is committed and what every member holds for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::directory::{commit_directory, remove, round_directory, rounds, sha256};
use super::{CheckpointError, io_error};
use crate::config::Config;
use crate::federation::round::FederationState;
use crate::ids::{ClientId, Round};
use crate::model::slice::Digest;

/// Version of the run folder's layout.
pub const RUN_FORMAT: u32 = 2;

const MANIFEST: &str = "manifest.json";

/// What must be equal for two runs to give equal bits (protocol.md 6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Version of this product.
    pub product: String,
    /// Version of libtorch.
    pub libtorch: String,
    /// Vector extensions libtorch may use.
    pub cpu: String,
    /// Threads within one operation.
    pub intra_op_threads: u32,
    /// Devices of clients and shards.
    pub devices: Vec<String>,
    /// Number type of base and activations.
    pub dtype: String,
    /// Hash of the resolved config.
    pub config: String,
    /// SHA-256 of what the base was read from; `None` where it is drawn from the seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Digest>,
    /// SHA-256 of the adapter that the run started from; `None` where it is drawn from the seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<Digest>,
}

impl Fingerprint {
    /// The first field in which two fingerprints differ, with both values.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let read =
            |from: &Option<Digest>| from.as_ref().map_or("drawn".to_owned(), Digest::to_string);
        let fields = |f: &Self| {
            [
                ("product version", f.product.clone()),
                ("libtorch version", f.libtorch.clone()),
                ("processor", f.cpu.clone()),
                ("intra-op threads", f.intra_op_threads.to_string()),
                ("devices", f.devices.join(", ")),
                ("dtype", f.dtype.clone()),
                ("config hash", f.config.clone()),
                ("base", read(&f.base)),
                ("adapter", read(&f.adapter)),
            ]
        };
        let pairs = fields(self).into_iter().zip(fields(other));
        let mut differing = pairs.filter(|((_, ours), (_, theirs))| ours != theirs);
        differing.next().map(|((name, was), (_, is))| format!("{name} was {was}, is {is}"))
    }
}

/// A committed round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoundManifest {
    /// Version of the run folder's layout.
    pub format: u32,
    /// What produced it.
    pub fingerprint: Fingerprint,
    /// The resolved config, to say which keys of a changed one differ.
    pub config: Config,
    /// The supervisor's memory.
    pub state: FederationState,
    /// Receipt of each member's newest state, by the member's folder within the run folder.
    pub members: BTreeMap<String, Receipt>,
    /// Bytes of the event log that belong to this commit.
    pub events_bytes: u64,
}

/// What a member holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Round of the state.
    pub round: Round,
    /// Digest of the member's own manifest.
    pub digest: Digest,
}

/// The manifest as it is on disk: with a checksum over its text.
#[derive(Serialize, Deserialize)]
struct Sealed {
    sha256: String,
    manifest: serde_json::Value,
}

/// A commit that could not be used, and why.
#[derive(Debug)]
pub struct Skipped {
    /// The commit.
    pub round: Round,
    /// What is wrong with it.
    pub error: CheckpointError,
}

/// Folder with the round manifests of a run.
#[derive(Clone, Debug)]
pub struct RunStore {
    path: PathBuf,
    fsync: bool,
}

impl RunStore {
    /// A store in `path`, made when first written to.
    pub fn new(path: PathBuf, fsync: bool) -> Self {
        Self { path, fsync }
    }

    /// Writes a manifest: from here on the round is committed.
    ///
    /// Commits of later rounds go: a resume found them broken and passed over them, and
    /// [`RunStore::retain`] would take them for the newest.
    pub fn commit(&self, manifest: &RoundManifest) -> Result<(), CheckpointError> {
        let target = round_directory(&self.path, manifest.state.committed);
        commit_directory(&target, self.fsync, |folder| {
            let value = serde_json::to_value(manifest).expect("a manifest is plain data");
            let sealed = Sealed { sha256: sha256(value.to_string().as_bytes()), manifest: value };
            let text = serde_json::to_vec_pretty(&sealed).expect("a manifest is plain data");
            let path = folder.join(MANIFEST);
            fs::write(&path, text).map_err(io_error(&path))
        })?;
        let mut later = rounds(&self.path).into_iter().filter(|r| *r > manifest.state.committed);
        later.try_for_each(|round| remove(&round_directory(&self.path, round)))
    }

    /// The text of a commit's manifest, for whoever keeps it elsewhere as well.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn text(&self, round: Round) -> Result<String, CheckpointError> {
        let path = round_directory(&self.path, round).join(MANIFEST);
        fs::read_to_string(&path).map_err(io_error(&path))
    }

    /// Puts a commit back that was kept elsewhere.
    ///
    /// # Errors
    /// It is no whole manifest, or the disk's.
    pub fn restore(&self, round: Round, text: &str) -> Result<(), CheckpointError> {
        let target = round_directory(&self.path, round);
        commit_directory(&target, self.fsync, |folder| {
            let path = folder.join(MANIFEST);
            fs::write(&path, text).map_err(io_error(&path))?;
            read(&path).map(|_| ())
        })
    }

    /// The newest commit that is whole and that `verify` accepts, and the ones passed over.
    pub fn newest(
        &self,
        verify: impl Fn(&RoundManifest) -> Result<(), CheckpointError>,
    ) -> (Option<RoundManifest>, Vec<Skipped>) {
        let mut skipped = Vec::new();
        for round in rounds(&self.path).into_iter().rev() {
            let path = round_directory(&self.path, round).join(MANIFEST);
            let found = read(&path).and_then(|manifest| verify(&manifest).map(|()| manifest));
            match found {
                Ok(manifest) => return (Some(manifest), skipped),
                Err(error) => skipped.push(Skipped { round, error }),
            }
        }
        (None, skipped)
    }

    /// States that the commits in the store refer to, by client: what its members must keep, so
    /// that every one of these commits can be used. A commit that cannot be read refers to nothing.
    ///
    /// A client that had no part in a round is in that commit by an older state. Whether a state is
    /// the client's own or the mean is left open: what a round left of either kind stays.
    pub fn referenced(&self) -> BTreeMap<ClientId, BTreeSet<Round>> {
        let mut referenced: BTreeMap<ClientId, BTreeSet<Round>> = BTreeMap::new();
        for round in rounds(&self.path) {
            let Ok(RoundManifest { state, .. }) =
                read(&round_directory(&self.path, round).join(MANIFEST))
            else {
                continue;
            };
            let best = state.best.iter().map(|(client, best)| (*client, best.round));
            let tables = state.tables.iter().flat_map(|tables| &tables.states);
            let tables = tables.map(|(client, state)| (*client, state.round));
            for (client, round) in state.slices.into_iter().chain(best).chain(tables) {
                referenced.entry(client).or_default().insert(round);
            }
        }
        referenced
    }

    /// Removes manifests older than the `keep` newest.
    pub fn retain(&self, keep: u64) -> Result<(), CheckpointError> {
        let rounds = rounds(&self.path);
        let surplus = rounds.len().saturating_sub(keep as usize);
        for round in &rounds[..surplus] {
            remove(&round_directory(&self.path, *round))?;
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<RoundManifest, CheckpointError> {
    let bad = |source| CheckpointError::Manifest { path: path.to_owned(), source };
    let text = fs::read(path).map_err(io_error(path))?;
    let sealed: Sealed = serde_json::from_slice(&text).map_err(bad)?;
    let got = sha256(sealed.manifest.to_string().as_bytes());
    if got != sealed.sha256 {
        return Err(CheckpointError::Digest {
            path: path.to_owned(),
            got,
            expected: sealed.sha256,
        });
    }
    let format = sealed.manifest["format"].as_u64().unwrap_or_default() as u32;
    if format != RUN_FORMAT {
        let path = path.to_owned();
        return Err(CheckpointError::Format { path, got: format, expected: RUN_FORMAT });
    }
    serde_json::from_value(sealed.manifest).map_err(bad)
}
