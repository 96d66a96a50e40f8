//! Folders that are there whole or not at all.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use sha2::{Digest, Sha256};

use super::{CheckpointError, io_error};
use crate::ids::Round;

const ROUND_PREFIX: &str = "round-";
const PARTIAL_EXTENSION: &str = "partial";

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
    let partial = target.with_extension(PARTIAL_EXTENSION);
    remove(&partial)?;
    let there = parent.ancestors().find(|folder| folder.is_dir()).map(Path::to_owned);
    fs::create_dir_all(&partial).map_err(io_error(&partial))?;
    fill(&partial)?;
    if fsync {
        for entry in fs::read_dir(&partial).map_err(io_error(&partial))? {
            sync(&entry.map_err(io_error(&partial))?.path())?;
        }
        sync(&partial)?;
    }
    replace(&partial, target).map_err(io_error(target))?;
    if !fsync {
        return Ok(());
    }
    sync(parent)?;
    // A folder made on the way here is itself an entry that a power cut may take.
    let made = parent.ancestors().take_while(|folder| Some(*folder) != there.as_deref());
    made.filter_map(Path::parent).filter(|above| above.is_dir()).try_for_each(sync)
}

/// Renames a folder over another one, which a plain rename does only if that one is empty.
///
/// The two change places in one step where the file system can do that: a kill in between must
/// not leave a committed round without a folder. Elsewhere the old one goes first.
fn replace(partial: &Path, target: &Path) -> io::Result<()> {
    if !target.exists() {
        return fs::rename(partial, target);
    }
    if renameat_with(CWD, partial, CWD, target, RenameFlags::EXCHANGE).is_ok() {
        return fs::remove_dir_all(partial);
    }
    fs::remove_dir_all(target)?;
    fs::rename(partial, target)
}

/// Removes a folder if it is there.
pub fn remove(path: &Path) -> Result<(), CheckpointError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(path)(error)),
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
