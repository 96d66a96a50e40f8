//! `fellrec simulate`: a whole federation in this process.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::{ConfigArgs, ExitStatus, Verbosity};

const EXAMPLES: &str = "\
Examples:
  fellrec simulate --config demo
  fellrec simulate --config ml-1m --data data/ml-1m --set federation.rounds=5
  fellrec simulate --config ml-1m --data data/ml-1m --dry-run
  fellrec simulate --config demo --set mixing.rule=fedavg --out runs/fedavg
  fellrec simulate --config demo --json > events.jsonl

Ctrl-C once finishes the step, commits and says how to resume; twice stops now.";

/// Run a federation as a local multi-actor simulation
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct SimulateArgs {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The run folder itself; must not hold a run yet [default: a new folder in run.out]
    #[arg(short, long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Writes the run's events as JSON lines on standard output, and nothing else there
    #[arg(long)]
    pub json: bool,
    /// Says what would run (sizes, memory, an estimate of the time) and runs nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Runs the federation.
///
/// # Errors
/// A wrong configuration, data that cannot be read, or a run that failed.
pub fn run(_args: SimulateArgs, _verbosity: &Verbosity) -> Result<ExitStatus> {
    anyhow::bail!("not wired yet")
}
