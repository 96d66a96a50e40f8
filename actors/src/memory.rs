//! Memory of this process: what it holds, and how it asks for it.

use std::fs;

/// Lets the C allocator keep what a training step frees for the next step.
///
/// By default glibc gives every block of more than 32 MiB at most, often far less, back to the
/// system when it is freed; the next step gets it as fresh pages that the kernel has to clear: 8 % of
/// a step's time, measured with perf on the defaults of `fellrec bench round`. One arena for all
/// threads, because arenas of their own keep as much again for each thread. To be called first.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const NEVER: libc::c_int = libc::c_int::MAX;
        for (parameter, value) in [
            (libc::M_MMAP_THRESHOLD, NEVER),
            (libc::M_TRIM_THRESHOLD, NEVER),
            (libc::M_ARENA_MAX, 1),
        ] {
            // SAFETY: mallopt only stores a number; no other thread runs yet.
            #[allow(unsafe_code, reason = "the C allocator has no safe interface")]
            unsafe {
                libc::mallopt(parameter, value);
            }
        }
    }
}

/// Highest resident memory so far, in bytes; 0 where the system does not tell.
pub fn peak_memory_bytes() -> u64 {
    status_kib("VmHWM:").map_or(0, |kib| kib * 1024)
}

fn status_kib(key: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}
