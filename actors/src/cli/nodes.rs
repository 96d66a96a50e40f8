//! The subcommands of a federation over nodes.

use anyhow::Result;
use clap::Subcommand;

use super::{ExitStatus, Verbosity, node, operate, provision, up};

/// Those of a build with nodes; `not_built` has the others.
#[derive(Debug, Subcommand)]
#[allow(missing_docs, reason = "documented at the argument structs, whose words become the help")]
pub enum NodesCommand {
    Up(up::UpArgs),
    Provision(provision::ProvisionArgs),
    Node(node::NodeArgs),
    Status(operate::StatusArgs),
    Drain(operate::DrainArgs),
    Tune(operate::TuneArgs),
}

/// Runs the subcommand.
///
/// # Errors
/// Those of the subcommands.
pub fn run(command: NodesCommand, verbosity: &Verbosity) -> Result<ExitStatus> {
    match command {
        NodesCommand::Up(args) => up::run(args, verbosity),
        NodesCommand::Provision(args) => provision::run(args),
        NodesCommand::Node(args) => node::run(args, verbosity),
        NodesCommand::Status(args) => operate::status(&args),
        NodesCommand::Drain(args) => operate::drain(&args),
        NodesCommand::Tune(args) => operate::tune(&args),
    }
}
