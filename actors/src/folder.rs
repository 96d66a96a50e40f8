//! The run folder: where everything of a run is kept.
//!
//! ```text
//! config.toml          resolved config            events.jsonl   history (fellrec::history)
//! rounds/round-N/      supervisor's manifest      log.jsonl      tracing
//! clients/client-C/    front and back by round    report.html    what a person looks at
//!   test-ranks.csv       ranks of its test users, with evaluation.keep_ranks
//! shards/stage-S/client-C/                        body slices by round
//! embeddings/          of the catalogue, by digest, where titles are written
//! shared/                                         mean of the mixed models, where somebody starts from it
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fellrec::checkpoint::{MemberStore, RunStore};
use fellrec::config::Config;
use fellrec::federation::shared::SharedStore;
use fellrec::ids::ClientId;
use fellrec::ranking::EmbeddingCache;

use crate::registry::MemberName;

/// Paths within a run folder.
#[derive(Clone, Debug)]
pub struct RunFolder {
    root: PathBuf,
    means: PathBuf,
}

impl RunFolder {
    /// The folder at `root`.
    pub fn new(root: PathBuf) -> Self {
        Self { means: root.join(SHARED_PATH), root }
    }

    /// The same with means of its own: replicas share the rest, and each is brought the means it needs.
    pub fn with_means_of(self, member: MemberName) -> Self {
        Self { means: self.root.join("means").join(member.to_string()), ..self }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The resolved config.
    pub fn config(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    /// The event log.
    pub fn events(&self) -> PathBuf {
        self.root.join("events.jsonl")
    }

    /// The JSON log of tracing.
    pub fn log(&self) -> PathBuf {
        self.root.join("log.jsonl")
    }

    /// The JSON log of a member that runs on its own: replicas of a stage share a folder.
    pub fn log_of(&self, member: MemberName) -> PathBuf {
        self.root.join(format!("{member}.log.jsonl"))
    }

    /// The supervisor's manifests.
    pub fn run_store(&self, config: &Config) -> RunStore {
        RunStore::new(self.root.join("rounds"), config.checkpoint.fsync)
    }

    /// A client's states.
    pub fn client_store(&self, client: ClientId, config: &Config) -> MemberStore {
        self.member_store(&client_path(client), config)
    }

    /// Ranks of a client's test users.
    pub fn test_ranks(&self, client: ClientId) -> PathBuf {
        self.root.join(client_path(client)).join("test-ranks.csv")
    }

    /// Embeddings of the catalogue.
    pub fn embeddings(&self) -> EmbeddingCache {
        EmbeddingCache::new(self.root.join("embeddings"))
    }

    /// A client's states of one stage; every replica of the stage uses the same folder.
    pub fn stage_store(&self, stage: u32, client: ClientId, config: &Config) -> MemberStore {
        self.member_store(&stage_path(stage, client), config)
    }

    /// The means that clients without a state of their own start from.
    pub fn shared_store(&self, config: &Config) -> SharedStore {
        let (optimizer, fsync) = (&config.optimizer, config.checkpoint.fsync);
        let store = MemberStore::new(self.means.clone(), optimizer, fsync);
        SharedStore::new(store, optimizer.clone())
    }

    /// Removes all states and manifests: what is left can be read, and not be resumed.
    pub fn remove_states(&self) -> io::Result<()> {
        // Manifests first: a run must not look as if it could be resumed without its states.
        for folder in ["rounds", "shards", SHARED_PATH] {
            remove(&self.root.join(folder))?;
        }
        for client in fs::read_dir(self.root.join("clients"))? {
            for state in fs::read_dir(client?.path())? {
                let state = state?;
                if state.file_type()?.is_dir() {
                    remove(&state.path())?;
                }
            }
        }
        Ok(())
    }

    /// The store of a member by its path in a manifest.
    pub fn member_store(&self, path: &str, config: &Config) -> MemberStore {
        MemberStore::new(self.root.join(path), &config.optimizer, config.checkpoint.fsync)
    }
}

/// The store of the shared means within the run folder.
pub const SHARED_PATH: &str = "shared";

/// A file that is there whole or not at all: a run folder with half a config could not be resumed.
pub fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let partial = path.with_extension("partial");
    fs::write(&partial, text)?;
    fs::rename(&partial, path)
}

/// Removes a folder if it is there.
fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A client's store within the run folder.
pub fn client_path(client: ClientId) -> String {
    format!("clients/{client}")
}

/// A client's store of one stage within the run folder.
pub fn stage_path(stage: u32, client: ClientId) -> String {
    format!("shards/stage-{stage}/{client}")
}
