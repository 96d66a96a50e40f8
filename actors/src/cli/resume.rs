//! `fellrec resume`: goes on from a run's last commit.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::{ExitStatus, Verbosity};

const EXAMPLES: &str = "\
The run's own stored configuration is used: a resumed run ends as the undisturbed one would have.

Examples:
  fellrec resume runs/20260101-120000-demo
  fellrec resume runs/20260101-120000-demo --json";

/// Continue a run from its last commit
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ResumeArgs {
    /// The run folder
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// Writes the run's events as JSON lines on standard output, and nothing else there
    #[arg(long)]
    pub json: bool,
}

/// Continues the run.
///
/// # Errors
/// No run folder, no usable commit, or a run that failed.
pub fn run(_args: ResumeArgs, _verbosity: &Verbosity) -> Result<ExitStatus> {
    anyhow::bail!("not wired yet")
}
