//! Folders that are there whole or not at all, and never by chance over another.

use std::fs;
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
    let partial = tempfile::Builder::new()
        .prefix(".fellrec-partial-")
        .tempdir_in(parent)
        .with_context(context)?;
    let written = write(partial.path())?;
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(context)?;
    }
    let partial = partial.keep();
    make_readable(&partial).with_context(context)?;
    fs::rename(partial, folder).with_context(context)?;
    Ok(written)
}

/// Temporary folders are their owner's alone; this one is not.
fn make_readable(folder: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}
