//! Folders that are there whole or not at all.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{CheckpointError, io_error};
use crate::ids::Round;

const ROUND_PREFIX: &str = "round-";
const PARTIAL_SUFFIX: &str = ".partial";

/// Folder of a round within `parent`.
pub fn round_directory(parent: &Path, round: Round) -> PathBuf {
    parent.join(format!("{ROUND_PREFIX}{:06}", round.0))
}

/// Rounds that have a folder in `parent`, oldest first; none if `parent` is not there.
pub fn rounds(parent: &Path) -> Vec<Round> {
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    let number = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        name.strip_prefix(ROUND_PREFIX)?.parse().ok().map(Round)
    };
    let mut rounds: Vec<Round> = entries.flatten().filter_map(number).collect();
    rounds.sort_unstable();
    rounds
}

/// Fills a new folder through `fill`, syncs it and renames it to `target`, which it replaces.
///
/// With `fsync` the files are on the disk before the rename and the rename before the return.
pub fn commit_directory(
    target: &Path,
    fsync: bool,
    fill: impl FnOnce(&Path) -> Result<(), CheckpointError>,
) -> Result<(), CheckpointError> {
    let parent = target.parent().unwrap_or(Path::new("."));
    let partial = target.with_extension(&PARTIAL_SUFFIX[1..]);
    remove(&partial)?;
    fs::create_dir_all(&partial).map_err(io_error(&partial))?;
    fill(&partial)?;
    if fsync {
        for entry in fs::read_dir(&partial).map_err(io_error(&partial))? {
            sync(&entry.map_err(io_error(&partial))?.path())?;
        }
        sync(&partial)?;
    }
    // A folder cannot be renamed over a filled one: what an earlier attempt staged goes first.
    remove(target)?;
    fs::rename(&partial, target).map_err(io_error(target))?;
    if fsync { sync(parent) } else { Ok(()) }
}

/// Removes a folder if it is there.
pub fn remove(path: &Path) -> Result<(), CheckpointError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io_error(path)(error)),
        _ => Ok(()),
    }
}

/// SHA-256 of a file's bytes, in hex.
pub fn sha256_file(path: &Path) -> Result<String, CheckpointError> {
    let bytes = fs::read(path).map_err(io_error(path))?;
    Ok(sha256(&bytes))
}

/// SHA-256 in hex.
pub fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

fn sync(path: &Path) -> Result<(), CheckpointError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(io_error(path))
}
