//! Cores, memory and disk against what the configuration asks for.

use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use fellrec::config::Config;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use super::Finding;

const GIB: f64 = (1_u64 << 30) as f64;

/// Below this much memory even the demo is at risk; libtorch alone takes about a third of it.
const LEAST_MEMORY_GIB: f64 = 1.0;

/// Below this much disk the checkpoints of a few rounds may not fit.
const LEAST_DISK_GIB: f64 = 1.0;

/// Cores that this process may use (its cgroup and affinity counted) against `runtime.compute_threads`.
pub(super) fn cores(config: Option<&Config>) -> Finding {
    const SUBJECT: &str = "cores";
    let cores = match available_parallelism() {
        Ok(cores) => cores.get(),
        Err(error) => {
            let remedy = "set runtime.compute_threads by hand";
            return Finding::warning(SUBJECT, format!("unknown: {error}"), remedy);
        }
    };
    let configured = config.and_then(|config| config.runtime.compute_threads.get());
    match configured.map(|threads| threads.get() as usize) {
        None => Finding::ok(SUBJECT, format!("{cores}, one compute thread each")),
        Some(threads) if threads > cores => Finding::warning(
            SUBJECT,
            format!("{cores} for {threads} compute threads"),
            "lower runtime.compute_threads: threads beyond the cores only take turns",
        ),
        Some(threads) => Finding::ok(SUBJECT, format!("{cores} for {threads} compute threads")),
    }
}

/// Memory that is still free, within the cgroup's limit.
pub(super) fn memory() -> Finding {
    const SUBJECT: &str = "memory";
    let kinds = RefreshKind::nothing().with_memory(MemoryRefreshKind::everything());
    let system = System::new_with_specifics(kinds);
    let (mut free, mut total) = (system.available_memory(), system.total_memory());
    if let Some(limits) = system.cgroup_limits() {
        free = free.min(limits.free_memory);
        total = total.min(limits.total_memory);
    }
    let (free, total) = (free as f64 / GIB, total as f64 / GIB);
    let found = format!("{free:.1} of {total:.1} GiB free");
    if free < LEAST_MEMORY_GIB {
        let remedy = "free some, or set runtime.recompute=true and a smaller training.batch";
        return Finding::warning(SUBJECT, found, remedy);
    }
    Finding::ok(SUBJECT, found)
}

/// Space and the right to write where run folders go.
pub(super) fn disk(config: Option<&Config>) -> Finding {
    const SUBJECT: &str = "disk";
    let out = config.map_or_else(|| PathBuf::from("."), |config| config.run.out.clone());
    let folder = existing_ancestor(&out);
    // A real write: permission bits say nothing about read-only mounts and quotas.
    if let Err(error) = tempfile::tempfile_in(&folder) {
        return Finding::error(
            SUBJECT,
            format!("cannot write in {}: {error}", folder.display()),
            "set run.out to a folder that can be written",
        );
    }
    match rustix::fs::statvfs(&folder) {
        Err(error) => Finding::warning(
            SUBJECT,
            format!("space in {} unknown: {error}", folder.display()),
            "make sure that checkpoints fit",
        ),
        Ok(disk) => {
            let free = (disk.f_bavail * disk.f_frsize) as f64 / GIB;
            let found = format!("{free:.1} GiB free for run.out = {}", out.display());
            if free < LEAST_DISK_GIB {
                let remedy = "free some, or set run.out to a larger disk";
                return Finding::warning(SUBJECT, found, remedy);
            }
            Finding::ok(SUBJECT, found)
        }
    }
}

/// The folder itself, or the nearest one above it that is there: the first run creates the rest.
fn existing_ancestor(folder: &Path) -> PathBuf {
    let mut ancestors = folder.ancestors().filter(|folder| !folder.as_os_str().is_empty());
    ancestors.find(|folder| folder.is_dir()).unwrap_or(Path::new(".")).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_existing_folder_is_found() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(existing_ancestor(&folder.path().join("a/b")), folder.path());
        assert_eq!(existing_ancestor(Path::new("no-such-folder/b")), Path::new("."));
    }
}
