//! Folders that are there whole or not at all, and never by chance over another.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

/// Whether something is in the way: a folder with anything in it, or a file.
pub fn is_taken(folder: &Path) -> bool {
    match fs::read_dir(folder) {
        Ok(mut files) => files.next().is_some(),
        Err(_) => folder.exists(),
    }
}

/// Has `write` fill a temporary sibling, which takes the place of `folder` and of what was there.
///
/// # Errors
/// The disk's, and those of `write`; `folder` is as it was then.
pub fn write_folder<T>(folder: &Path, write: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let context = || format!("failed to write {}", folder.display());
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or_else(|| Path::new("."));
    fs::create_dir_all(parent).with_context(context)?;
    // Temporary folders are their owner's alone by default; this one will not be one for long.
    let partial = tempfile::Builder::new()
        .prefix(".fellrec-partial-")
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir_in(parent)
        .with_context(context)?;
    let written = write(partial.path())?;
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(context)?;
    }
    fs::rename(partial.keep(), folder).with_context(context)?;
    Ok(written)
}
