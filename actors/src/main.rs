//! The `fellrec` binary: everything it does is in [`fellrec_actors::cli`].

use std::process::ExitCode;

/// libtorch's allocations go through it as well: it takes the place of malloc in the whole process.
///
/// glibc's aligned allocations cannot reuse each other's space, and its large ones are fresh pages every
/// time: a training step then takes twice the memory it needs, and 8 % of its time clears pages.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Freed memory stays with the process for the next step instead of coming back as pages to clear, and a
/// large free piece may be cut for a small request: steps differ in shape, and with twenty clients of
/// MovieLens-1M pieces that only fit their own shape added up to 5.7 GiB where 0.4 GiB were in use.
#[allow(unsafe_code, reason = "jemalloc reads its settings from a symbol of this name")]
#[unsafe(export_name = "malloc_conf")]
pub static MALLOC_CONF: &[u8; 64] =
    b"dirty_decay_ms:-1,muzzy_decay_ms:-1,lg_extent_max_active_fit:20\0";

fn main() -> ExitCode {
    fellrec_actors::cli::main()
}
