//! What the subcommands of a federation over nodes say in a build without them.

use std::ffi::OsString;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use super::{ExitStatus, Verbosity};

/// Their names, so that the message is about the build and not about a typo.
#[derive(Debug, Subcommand)]
#[allow(missing_docs, reason = "hidden")]
pub enum NodesCommand {
    #[command(hide = true)]
    Up(NotBuilt),
    #[command(hide = true)]
    Provision(NotBuilt),
    #[command(hide = true)]
    Node(NotBuilt),
    #[command(hide = true)]
    Status(NotBuilt),
    #[command(hide = true)]
    Drain(NotBuilt),
    #[command(hide = true)]
    Tune(NotBuilt),
}

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
pub fn run(_command: NodesCommand, _verbosity: &Verbosity) -> Result<ExitStatus> {
    bail!(
        "this build has no nodes: build it with `cargo build --release` (feature `nodes`, which `make demo` leaves out)"
    )
}
