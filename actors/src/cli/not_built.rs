//! What the subcommands of a federation over nodes say in a build without them.

use std::ffi::OsString;

use anyhow::{Result, bail};
use clap::Args;

use super::ExitStatus;

/// Part of another build
#[derive(Debug, Args)]
pub struct NotBuilt {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<OsString>,
}

/// Says how to get it.
///
/// # Errors
/// Always.
pub fn run(args: NotBuilt) -> Result<ExitStatus> {
    let _ = args.rest;
    bail!(
        "this build has no nodes: build it with `cargo build --release` (feature `nodes`, which `make demo` leaves out)"
    )
}
