//! libtorch's CUDA half, opened at run time so that one binary serves machines with and without a GPU.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

/// Name of the library that registers the CUDA backend with libtorch when it is opened.
const CUDA_LIBRARY: &str = "libtorch_cuda.so";

/// What came of opening the CUDA backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CudaStatus {
    /// Ready for use.
    Ready {
        /// GPUs that libtorch sees.
        devices: i64,
    },
    /// The libtorch in use has no CUDA half: a CPU build.
    NotInstalled {
        /// Where it was looked for.
        looked_for: PathBuf,
    },
    /// The CUDA half is there and cannot be opened, as when the CUDA run-time libraries are missing.
    NotLoadable {
        /// What the dynamic linker said.
        reason: String,
    },
    /// Opened, but the driver shows no GPU.
    NoDevice,
}

impl fmt::Display for CudaStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CudaStatus::Ready { devices } => write!(f, "{devices} CUDA device(s)"),
            CudaStatus::NotInstalled { looked_for } => {
                write!(f, "this libtorch is a CPU build, no {}", looked_for.display())
            }
            CudaStatus::NotLoadable { reason } => write!(f, "cannot open {CUDA_LIBRARY}: {reason}"),
            CudaStatus::NoDevice => f.write_str("the driver shows no CUDA device"),
        }
    }
}

/// Opens libtorch's CUDA backend.
///
/// Call it before anything else asks libtorch about CUDA: libtorch looks once, and remembers that there was none.
/// The linker drops libtorch_cuda from a program that calls none of its functions directly, hence this call.
pub fn load_cuda_backend() -> CudaStatus {
    // The library must be of the same build as the libtorch in use, so it is looked for beside that one only.
    let library = match loaded_library("libtorch_cpu.so") {
        Some(path) => path.with_file_name(CUDA_LIBRARY),
        None => PathBuf::from(CUDA_LIBRARY),
    };
    if library.is_absolute() && !library.exists() {
        return CudaStatus::NotInstalled { looked_for: library };
    }
    if let Err(error) = open_for_good(&library) {
        return CudaStatus::NotLoadable { reason: error.to_string() };
    }
    match tch::Cuda::device_count() {
        devices if devices > 0 => CudaStatus::Ready { devices },
        _ => CudaStatus::NoDevice,
    }
}

#[allow(
    unsafe_code,
    reason = "opening a library runs its initialisers; this one is libtorch's own"
)]
fn open_for_good(library: &Path) -> Result<(), libloading::Error> {
    // SAFETY: the initialisers register kernels and are made to run in a process that has libtorch.
    let library = unsafe { Library::open(Some(library), RTLD_NOW | RTLD_GLOBAL)? };
    // The kernels stay registered for the life of the process, so their code must stay too.
    std::mem::forget(library);
    Ok(())
}

/// Path of a library that this process has mapped, by its file name. `None` off Linux as well.
pub fn loaded_library(name: &str) -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let paths =
        maps.lines().filter_map(|line| line.find('/').map(|start| Path::new(&line[start..])));
    paths.into_iter().find(|path| path.file_name() == Some(OsStr::new(name))).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_libtorch_in_use_is_found_among_the_mapped_files() {
        // Calls libtorch, so that the linker keeps it.
        assert!(tch::get_num_threads() >= 1);
        let path = loaded_library("libtorch_cpu.so").expect("this test runs on Linux");
        assert!(path.is_absolute());
        assert_eq!(loaded_library("libtorch_nothing.so"), None);
    }

    #[test]
    fn a_machine_without_cuda_gets_a_reason_and_no_panic() {
        let status = load_cuda_backend();
        assert!(!status.to_string().is_empty());
        assert_eq!(status, load_cuda_backend(), "asking twice gives the same answer");
    }
}
