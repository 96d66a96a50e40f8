//! What survives a crash: one folder a commit and member, renamed into place, with digests.
//!
//! A round is staged by every member first and becomes current when the supervisor's manifest is
//! in place (protocol.md 2). A broken folder is skipped and the one before is used.

mod directory;
mod manifest;
mod member;

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

pub use manifest::{Fingerprint, RUN_FORMAT, Receipt, RoundManifest, RunStore, Skipped};
pub use member::{MemberStore, PartState};

use crate::ids::Round;
use crate::model::pretrained::PretrainedError;
use crate::model::slice::{LayoutError, SliceFileError};

/// Why a commit could not be written or read.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// The file system refused: a full disk, a missing right.
    #[error("failed to access {path}")]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A slice file could not be written or read.
    #[error(transparent)]
    Slice(#[from] SliceFileError),
    /// The file is not what its manifest promises: torn, changed or of another run.
    #[error("{path} has sha256 {got}, its manifest says {expected}")]
    Digest {
        /// File.
        path: PathBuf,
        /// Digest of the bytes found.
        got: String,
        /// Digest in the manifest.
        expected: String,
    },
    /// The history ends before the commit does: lines of it are lost.
    #[error("{path} has {got} bytes, the commit says {expected}")]
    Short {
        /// The event log.
        path: PathBuf,
        /// Bytes found.
        got: u64,
        /// Bytes that belong to the commit.
        expected: u64,
    },
    /// A manifest could not be parsed.
    #[error("{path} is no manifest of this format")]
    Manifest {
        /// File.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// A manifest is of a format this build does not read.
    #[error("{path} has run format {got}, this build reads {expected}")]
    Format {
        /// File.
        path: PathBuf,
        /// Format found.
        got: u32,
        /// Format of this build.
        expected: u32,
    },
    /// The saved tensors are not those of the configured model.
    #[error("{path} does not fit the configured model")]
    Layout {
        /// File.
        path: PathBuf,
        /// First difference.
        source: LayoutError,
    },
    /// The start of the run could not be read.
    #[error(transparent)]
    Pretrained(Box<PretrainedError>),
    /// No commit of the round is there.
    #[error("{path} holds no state of round {round}")]
    Missing {
        /// Store that was asked.
        path: PathBuf,
        /// Round that was asked for.
        round: Round,
    },
}

impl From<PretrainedError> for CheckpointError {
    fn from(error: PretrainedError) -> Self {
        Self::Pretrained(Box::new(error))
    }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> CheckpointError {
    let path = path.to_owned();
    move |source| CheckpointError::Io { path, source }
}
