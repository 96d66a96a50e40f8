//! Which libtorch this process runs on, and whether it has a GPU.

use fellrec::config::{Config, DeviceName};
use libloading::os::unix::Library;

use super::Finding;
use crate::cuda::{CudaStatus, load_cuda_backend, loaded_library};

/// The version that the tch crate is made for.
const EXPECTED_VERSION: (u8, u8) = (2, 11);

/// A function whose mangled name exists under the C++11 ABI only.
const CXX11_SYMBOL: &[u8] = b"_ZN2at11show_configB5cxx11Ev\0";

/// Version, ABI and place of libtorch.
pub(super) fn library() -> Finding {
    const SUBJECT: &str = "libtorch";
    let process = Library::this();
    let place = loaded_library("libtorch_cpu.so")
        .map_or("at an unknown place".to_owned(), |path| format!("in {}", path.display()));
    let abi = if has_symbol(&process, CXX11_SYMBOL) { "C++11 ABI" } else { "old C++ ABI" };
    match version(&process) {
        Some((major, minor, patch)) if (major, minor) == EXPECTED_VERSION => {
            Finding::ok(SUBJECT, format!("{major}.{minor}.{patch}, {abi}, {place}"))
        }
        Some((major, minor, patch)) => Finding::error(
            SUBJECT,
            format!("{major}.{minor}.{patch}, {abi}, {place}"),
            format!(
                "use {}.{}: run scripts/libtorch.sh, or point LIBTORCH at it and build again",
                EXPECTED_VERSION.0, EXPECTED_VERSION.1
            ),
        ),
        None => Finding::warning(
            SUBJECT,
            format!("version unknown, {abi}, {place}"),
            "if anything misbehaves, run scripts/libtorch.sh and build again",
        ),
    }
}

/// CUDA against the configured devices.
pub(super) fn cuda(config: Option<&Config>) -> Finding {
    const SUBJECT: &str = "cuda";
    let wanted = config.and_then(highest_gpu);
    let status = load_cuda_backend();
    match (wanted, &status) {
        (None, _) => Finding::ok(SUBJECT, format!("{status}; not needed, both devices are cpu")),
        (Some(index), CudaStatus::Ready { devices }) if (index as i64) < *devices => {
            Finding::ok(SUBJECT, status.to_string())
        }
        (Some(index), CudaStatus::Ready { .. }) => Finding::error(
            SUBJECT,
            format!("{status}, but cuda:{index} is configured"),
            "name a device that exists in runtime.client_device and runtime.shard_device",
        ),
        (Some(index), _) => Finding::error(
            SUBJECT,
            format!("cuda:{index} is configured, but {status}"),
            "install a CUDA build of libtorch 2.11 and the driver, or set both devices to cpu",
        ),
    }
}

/// The highest GPU number that the configuration names.
fn highest_gpu(config: &Config) -> Option<usize> {
    let devices = [config.runtime.client_device, config.runtime.shard_device];
    let gpu = |device| match device {
        DeviceName::Cpu => None,
        DeviceName::Cuda(index) => Some(index),
    };
    devices.into_iter().filter_map(gpu).max()
}

#[allow(unsafe_code, reason = "a symbol has the type that libtorch declares for it")]
fn version(process: &Library) -> Option<(u8, u8, u8)> {
    // SAFETY: declared as `uint64_t aoti_torch_abi_version()` in torch/csrc/inductor/aoti_torch/c/shim.h;
    // it returns a constant.
    let packed = unsafe {
        let function = process.get::<extern "C" fn() -> u64>(b"aoti_torch_abi_version\0").ok()?;
        function()
    };
    // Major, minor and patch are the three highest bytes (torch/headeronly/version.h).
    let [major, minor, patch, ..] = packed.to_be_bytes();
    Some((major, minor, patch))
}

#[allow(unsafe_code, reason = "the symbol is looked up and never used")]
fn has_symbol(process: &Library, name: &[u8]) -> bool {
    // SAFETY: only whether the address exists is asked.
    unsafe { process.get::<*const ()>(name).is_ok() }
}
