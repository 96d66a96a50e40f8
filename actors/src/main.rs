//! The `fellrec` binary: everything it does is in [`fellrec_actors::cli`].

use std::process::ExitCode;

/// libtorch's allocations go through it as well: it takes the place of malloc in the whole process.
///
/// glibc's aligned allocations cannot reuse each other's space, and its large ones are fresh pages every
/// time: a training step then takes twice the memory it needs, and 8 % of its time clears pages.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Freed memory stays with the process for the next step instead of coming back as pages to clear.
#[allow(unsafe_code, reason = "jemalloc reads its settings from a symbol of this name")]
#[unsafe(export_name = "malloc_conf")]
pub static MALLOC_CONF: &[u8; 36] = b"dirty_decay_ms:-1,muzzy_decay_ms:-1\0";

fn main() -> ExitCode {
    fellrec_actors::cli::main()
}
