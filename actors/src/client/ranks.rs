//! What a client writes of its own users: it stays in the client's folder, no message carries it.

use std::path::PathBuf;
use std::{fs, io};

use fellrec::ranking::UserRanks;
use thiserror::Error;

use super::ClientSeat;
use crate::folder::write_whole;

/// Why a client could not keep the ranks of its users.
#[derive(Debug, Error)]
#[error("failed to write {path}")]
pub struct RanksError {
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// Writes the ranks of the final test to the client's own folder, if the run is configured to keep them.
///
/// A repeated test replaces the file at once, so that it is never half there.
pub fn keep_ranks(seat: &ClientSeat, users: &[UserRanks]) -> Result<(), RanksError> {
    if !seat.blueprint.config.evaluation.keep_ranks {
        return Ok(());
    }
    let path = seat.folder.test_ranks(seat.id);
    let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
    folder
        .and_then(|()| write_whole(&path, &UserRanks::to_csv(users)))
        .map_err(|source| RanksError { path, source })
}
