//! `fellrec resume`: goes on from a run's last commit.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Args;
use fellrec::blueprint::Blueprint;
use fellrec::config::Config;

use super::run::{prepare_devices, resume_with, run_federation};
use super::{ExitStatus, Verbosity};
use crate::folder::RunFolder;
use crate::system::Federation;

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
pub fn run(args: ResumeArgs, verbosity: &Verbosity) -> Result<ExitStatus> {
    let folder = RunFolder::new(args.run);
    let path = folder.config();
    let text = fs::read_to_string(&path)
        .with_context(|| format!("no run to resume: failed to read {}", path.display()))?;
    let config = Config::from_toml(&text, &path)?;
    prepare_devices(&config)?;
    let blueprint = Blueprint::new(config)?;
    let resume = async |launch| Federation::resume(launch);
    let again = resume_with(&folder);
    run_federation(Arc::new(blueprint), folder, resume, &again, args.json, verbosity)
}
