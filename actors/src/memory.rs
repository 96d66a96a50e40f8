//! Resident memory of this process, and memory in use on a GPU.

use std::fs;
use std::path::Path;

use tch::Device;

use crate::cuda::loaded_library;

/// Highest resident memory so far, in bytes; 0 where the system does not tell.
pub fn peak_memory_bytes() -> u64 {
    status_kib("VmHWM:").map_or(0, |kib| kib * 1024)
}

fn status_kib(key: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Bytes in use on a GPU, by everybody; `None` on the CPU and where the CUDA run-time library does not tell.
///
/// libtorch keeps what it once took, so that after some steps this is the highest use of them.
pub fn device_memory_used(device: Device) -> Option<u64> {
    let Device::Cuda(_) = device else { return None };
    let library = loaded_library("libcudart.so.13")?;
    let (mut free, mut total) = (0usize, 0usize);
    memory_info(&library, &mut free, &mut total).then(|| (total - free) as u64)
}

#[allow(
    unsafe_code,
    reason = "tch has no function for it; the signature is that of the library's header"
)]
fn memory_info(library: &Path, free: &mut usize, total: &mut usize) -> bool {
    type MemGetInfo = unsafe extern "C" fn(*mut usize, *mut usize) -> i32;
    // SAFETY: the library is mapped already, opening it again runs nothing; both pointers are valid
    // for the call.
    unsafe {
        let Ok(library) = libloading::Library::new(library) else { return false };
        let Ok(info) = library.get::<MemGetInfo>(b"cudaMemGetInfo\0") else { return false };
        info(free, total) == 0
    }
}
