//! `fellrec compare`: several methods on the same data and budget, and the table of what came of it.
//!
//! [`plan`] decides on all cells before anything runs, [`runner`] runs them, [`display`] shows it,
//! [`results`] reads what they came to and [`files`] writes it. The numbers are `fellrec::study`'s.

mod display;
mod files;
mod plan;
mod results;
mod runner;

use std::fs::{self, File, TryLockError};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use anyhow::{Context, Result, bail};
use clap::Args;
use fellrec::study;

use super::output::{print, say, table as words_table};
use super::run::{prepare_devices, start_logging};
use super::{ConfigArgs, ExitStatus, Verbosity, table};
use display::Display;
use plan::{Cell, CellState, Plan};
use results::Results;
use runner::Ended;

pub use plan::PlanError;

const EXAMPLES: &str = "\
A study is methods x seeds. Every pair is a run of its own in OUT/runs/METHOD/seed-S; finished ones are
kept, begun ones go on from their last commit: the same command again continues a study, whatever ended
it, and comes to the same table. More methods or seeds may be added later.

The configuration is shared by all methods; a method's own keys win over it. Clients' states of a finished
run are deleted to save disk (--keep-states keeps them: some 12 bytes a parameter, client and kept round);
its events and the ranks of its test users stay.

Examples:
  fellrec compare --list
  fellrec compare --methods local,fedavg,fellrec --config demo --out studies/demo
  fellrec compare --methods local,fedavg,fellrec+ --seeds 1,2,3,4,5 --config ml-1m --data data/ml-1m \\
      --out studies/ml-1m
  fellrec compare --methods fedavg,fedavg:optimizer.learning_rate=3e-3 --config demo --out studies/rates
  fellrec compare --methods fedavg,my-method.toml --config demo --out studies/mine --dry-run

Ctrl-C once lets every run keep its last commit; twice stops now.";

/// Run several methods with several seeds and compare them in one table
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CompareArgs {
    /// Methods: names (see --list), files of differences, NAME:section.key=value for variants
    #[arg(short, long, value_name = "METHOD,...", value_delimiter = ',')]
    #[arg(required_unless_present = "list")]
    pub methods: Vec<String>,
    /// Seeds, one run a method each
    #[arg(long, value_name = "SEED,...", value_delimiter = ',', default_value = "1,2,3")]
    #[arg(value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    pub seeds: Vec<u64>,
    /// Method that gains are over [default: fedavg, where it is among the methods]
    #[arg(long, value_name = "METHOD")]
    pub baseline: Option<String>,
    /// Where the shared configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Folder of the study; may hold a study already
    #[arg(short, long, value_name = "DIR", required_unless_present = "list")]
    pub out: Option<PathBuf>,
    /// Runs at the same time, one compute thread each [default: one for each core]
    #[arg(short, long, value_name = "N")]
    pub jobs: Option<NonZeroUsize>,
    /// Keeps the states of finished runs on the disk
    #[arg(long)]
    pub keep_states: bool,
    /// Checks every configuration, says which runs there would be and runs nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Lists the methods and runs nothing
    #[arg(long)]
    pub list: bool,
}

/// Runs the study.
///
/// # Errors
/// Methods or configurations that are wrong, a study that another process works on, files that cannot be
/// read or written. Runs that fail are no error: the table says what is missing.
pub fn run(args: CompareArgs, verbosity: &Verbosity) -> Result<ExitStatus> {
    if args.list {
        return list();
    }
    let out = args.out.clone().unwrap_or_default();
    let plan = Plan::new(&args, &out)?;
    if args.dry_run {
        return dry_run(&plan);
    }
    plan.cells.iter().try_for_each(|cell| prepare_devices(&cell.config))?;
    fs::create_dir_all(&out)
        .with_context(|| format!("failed to create the study's folder {}", out.display()))?;
    let _lock = lock(&out)?;
    let (finished, due) = split(&plan)?;
    files::write_configs(&plan, &out)?;

    let display = Display::new(&due, finished, verbosity);
    let logging = &plan.cells[0].config.logging;
    start_logging(logging, verbosity, &out.join("log.jsonl"), display.above())?;
    let jobs = args.jobs.or_else(|| available_parallelism().ok()).map_or(1, NonZeroUsize::get);
    let ended = runner::run_cells(&due, jobs, args.keep_states, display)?;
    if ended == Ended::Interrupted {
        say("stopped; every run keeps its last commit\ngo on with the same command");
        return Ok(ExitStatus::Interrupted);
    }
    conclude(&plan, &out)
}

/// Writes and prints what there is.
fn conclude(plan: &Plan, out: &Path) -> Result<ExitStatus> {
    let Results { study, runs, missing } = results::collect(plan)?;
    if !runs.is_empty() {
        files::write_results(&study, &runs, &missing, out)?;
        print(&table::render(&study::table(&study)))?;
        say(&format!("\nstudy  {0}\ntable  {0}/table.md", out.display()));
    }
    if missing.is_empty() {
        return Ok(ExitStatus::Success);
    }
    let missing = missing.iter().map(|(method, seed)| format!("{method} seed {seed}"));
    let missing = missing.collect::<Vec<_>>().join(", ");
    say(&format!("error: not finished: {missing}\ngo on with the same command"));
    Ok(ExitStatus::Failure)
}

/// How many cells are finished, and those that are not.
fn split(plan: &Plan) -> Result<(usize, Vec<(&Cell, CellState)>)> {
    let states: Result<Vec<_>> = plan.cells.iter().map(|cell| Ok((cell, cell.state()?))).collect();
    let states = states?;
    let due: Vec<_> =
        states.iter().filter(|(_, state)| *state != CellState::Finished).copied().collect();
    Ok((states.len() - due.len(), due))
}

/// The study's lock: it falls with the process, however that ends.
fn lock(out: &Path) -> Result<File> {
    let path = out.join("lock");
    let file = File::options().create(true).append(true).open(&path);
    let file = file.with_context(|| format!("failed to open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!("another process works on {}: wait for it, or give another --out", out.display())
        }
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("failed to lock {}", path.display()))
        }
    }
}

fn list() -> Result<ExitStatus> {
    let mut rows = words_table(["method", "title", "what it is"]);
    for method in study::methods() {
        rows.add_row([method.name, method.title, method.about]);
    }
    print(&rows.to_string())?;
    Ok(ExitStatus::Success)
}

fn dry_run(plan: &Plan) -> Result<ExitStatus> {
    let mut rows = words_table(["method", "seed", "run"]);
    for cell in &plan.cells {
        let state = cell.state()?.to_string();
        rows.add_row([cell.method.clone(), cell.seed.to_string(), state]);
    }
    let rounds = plan.cells[0].config.federation.rounds;
    print(&format!(
        "{} methods, {} seeds: {} runs; {rounds} rounds under {}\n\n{rows}",
        plan.methods.len(),
        plan.seeds.len(),
        plan.cells.len(),
        plan.methods[0].name
    ))?;
    Ok(ExitStatus::Success)
}
