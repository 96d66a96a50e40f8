//! The `fellrec` binary: everything it does is in [`fellrec_actors::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    fellrec_actors::memory::keep_freed_memory();
    fellrec_actors::cli::main()
}
