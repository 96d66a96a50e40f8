//! `fellrec simulate`: a whole federation in this process.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Args;
use fellrec::blueprint::Blueprint;
use fellrec::study::Method;

use super::dry_run::dry_run;
use super::run::{prepare_devices, resume_with, run_federation};
use super::{ConfigArgs, ExitStatus, Verbosity};
use crate::folder::RunFolder;
use crate::system::{Federation, SystemError};

const EXAMPLES: &str = "\
Examples:
  fellrec simulate --config demo
  fellrec simulate --config ml-1m --data data/ml-1m --set federation.rounds=5
  fellrec simulate --config ml-1m --data data/ml-1m --dry-run
  fellrec simulate --config demo --method fedavg --out runs/fedavg
  fellrec simulate --config demo --json > events.jsonl

Ctrl-C once keeps the last commit and says how to resume; twice stops now.";

/// Run a federation as a local multi-actor simulation
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct SimulateArgs {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// A method of `fellrec compare --list`, such as ditto or fellrec+; its keys win over all others, and
    /// NAME:section.key=value changes one of them
    #[arg(short, long, value_name = "METHOD")]
    pub method: Option<String>,
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
pub fn run(args: SimulateArgs, verbosity: &Verbosity) -> Result<ExitStatus> {
    let method = args.method.as_deref().map(Method::parse).transpose()?;
    let config = args.config.load_with(method.map(|method| method.layer))?.config;
    prepare_devices(&config)?;
    let name = args.config.config.as_deref().unwrap_or("run");
    let folder = RunFolder::new(args.out.unwrap_or_else(|| new_folder(&config.run.out, name)));
    let blueprint = Blueprint::new(config)?;
    if args.dry_run {
        return dry_run(&blueprint, args.json);
    }
    if folder.config().exists() {
        return Err(SystemError::Occupied { path: folder.root().to_owned() }.into());
    }
    fs::create_dir_all(folder.root())
        .with_context(|| format!("failed to create the run folder {}", folder.root().display()))?;
    let start = async |launch| Federation::start(launch);
    let again = resume_with(&folder);
    run_federation(Arc::new(blueprint), folder, start, &again, args.json, verbosity)
}

/// A folder that does not exist yet: name and time, and a number if that is taken.
fn new_folder(parent: &Path, name: &str) -> PathBuf {
    let name = Path::new(name).file_stem().and_then(|stem| stem.to_str()).unwrap_or("run");
    let now = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
    let plain = parent.join(format!("{now}-{name}"));
    let numbered = (2..).map(|number| parent.join(format!("{now}-{name}-{number}")));
    std::iter::once(plain).chain(numbered).find(|path| !path.exists()).unwrap_or_default()
}
