//! The one process that may supervise from a folder, and what a supervisor without one starts from.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::PathBuf;

use fellrec::config::Config;
use fellrec::told::chain;
use rustix::fs::{FlockOperation, flock};
use thiserror::Error;
use tracing::warn;

use crate::folder::{RunFolder, write_whole};
use crate::supervisor::KeptCommit;

/// Why this process may not supervise from a folder.
#[derive(Debug, Error)]
pub enum SeatError {
    /// Another process does.
    #[error("{path} is locked: a supervisor of this folder is running")]
    Taken {
        /// The lock.
        path: PathBuf,
    },
    /// The folder cannot be written.
    #[error("failed to access {path}")]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A lock on a run folder, held as long as the process lives; in it the life of who held it last.
pub struct FolderSeat {
    path: PathBuf,
    file: File,
    /// The life before this one, which is over.
    pub before: Option<u64>,
}

impl FolderSeat {
    /// Takes the lock.
    ///
    /// # Errors
    /// Every [`SeatError`].
    pub fn take(folder: &RunFolder) -> Result<Self, SeatError> {
        let path = folder.root().join("supervisor.life");
        let failed = |source| SeatError::Io { path: path.clone(), source };
        fs::create_dir_all(folder.root()).map_err(failed)?;
        let options = File::options().read(true).write(true).create(true).truncate(false).clone();
        let mut file = options.open(&path).map_err(failed)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(SeatError::Taken { path });
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(failed)?;
        Ok(Self { path, file, before: text.trim().parse().ok() })
    }

    /// Writes who holds it now.
    ///
    /// # Errors
    /// The disk's.
    pub fn sign(&mut self, life: u64) -> Result<(), SeatError> {
        let failed = |source| SeatError::Io { path: self.path.clone(), source };
        self.file.rewind().map_err(failed)?;
        self.file.set_len(0).map_err(failed)?;
        write!(self.file, "{life}").map_err(failed)
    }
}

/// Puts a run's last commit into a folder that has none.
///
/// # Errors
/// The disk's.
pub fn restore(commit: &KeptCommit, folder: &RunFolder, config: &Config) -> Result<(), SeatError> {
    let failed = |path: PathBuf| move |source| SeatError::Io { path, source };
    fs::create_dir_all(folder.root()).map_err(failed(folder.root().to_owned()))?;
    fs::write(folder.events(), &commit.events).map_err(failed(folder.events()))?;
    let restored = folder.run_store(config).restore(commit.round, &commit.manifest);
    restored.map_err(|error| SeatError::Io {
        path: folder.root().to_owned(),
        source: io::Error::other(chain(&error)),
    })?;
    // The config last: a folder with one counts as a run.
    write_whole(&folder.config(), &commit.config).map_err(failed(folder.config()))?;
    warn!(round = %commit.round, "this folder held no run: going on from the commit that the broker kept");
    Ok(())
}
