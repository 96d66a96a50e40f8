//! The files of a study.
//!
//! ```text
//! table.md        results.csv   summary.csv   curves.csv     results, the same for equal studies
//! curves.svg      ndcg5.svg     to-local.svg                 plots
//! study.toml                                                 command, versions, machine, times, budgets
//! configs/M.toml                                             resolved configuration of method M, first seed
//! runs/M/seed-S/                                             the run folders
//! log.jsonl       lock
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread::available_parallelism;

use anyhow::{Context, Result};
use fellrec::study::{Study, curves_csv, markdown, plots, results_csv, summary_csv};
use serde::Serialize;
use sysinfo::{CpuRefreshKind, RefreshKind, System};

use super::plan::Plan;
use super::results::FinishedRun;
use crate::folder::write_whole;

/// `study.toml`.
#[derive(Debug, Serialize)]
struct Facts<'a> {
    command: &'a str,
    versions: Versions,
    machine: Machine,
    methods: BTreeMap<&'a str, MethodFacts>,
}

/// What computed it.
#[derive(Debug, Serialize)]
struct Versions {
    fellrec: String,
    libtorch: String,
}

/// Where it was computed.
#[derive(Debug, Serialize)]
struct Machine {
    cores: usize,
    cpu: String,
    /// Vector extensions that libtorch used.
    vectors: String,
}

/// Time and budget of a method's finished runs, one entry a seed.
#[derive(Debug, Default, Serialize)]
struct MethodFacts {
    seeds: Vec<u64>,
    /// Rounds and evaluations, without the final test.
    seconds: Vec<f64>,
    /// Labels trained on by all clients in all rounds.
    training_labels: Vec<u64>,
    optimizer_steps: Vec<u64>,
    rounds: Vec<u64>,
}

/// Writes the configuration of every method, as its run of the first seed has it.
///
/// # Errors
/// The files cannot be written.
pub fn write_configs(plan: &Plan, out: &Path) -> Result<()> {
    let folder = out.join("configs");
    fs::create_dir_all(&folder)
        .with_context(|| format!("failed to create {}", folder.display()))?;
    // Seed by seed, so the first cells are those of the first seed.
    for (method, cell) in plan.methods.iter().zip(&plan.cells) {
        // Not `with_extension`: names of methods have points.
        write(&folder, &format!("{}.toml", method.folder()), &cell.config.to_toml()?)?;
    }
    Ok(())
}

/// Writes tables, plots and facts.
///
/// # Errors
/// The files cannot be written.
pub fn write_results(
    study: &Study,
    runs: &[FinishedRun],
    missing: &[(String, u64)],
    out: &Path,
) -> Result<()> {
    write(out, "table.md", &markdown(study, missing))?;
    write(out, "results.csv", &results_csv(study))?;
    write(out, "summary.csv", &summary_csv(study))?;
    write(out, "curves.csv", &curves_csv(study))?;
    let plots = plots(study)?;
    write(out, "curves.svg", &plots.curves)?;
    write(out, "ndcg5.svg", &plots.ndcg5)?;
    match &plots.to_local {
        Some(svg) => write(out, "to-local.svg", svg)?,
        // One of an earlier choice of methods would not belong to this table.
        None => drop(fs::remove_file(out.join("to-local.svg"))),
    }
    let command = std::env::args().collect::<Vec<_>>().join(" ");
    write(out, "study.toml", &toml::to_string(&facts(runs, &command))?)
}

fn facts<'a>(runs: &'a [FinishedRun], command: &'a str) -> Facts<'a> {
    let fingerprint = runs.first().map(|run| &run.history.fingerprint);
    let system =
        System::new_with_specifics(RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing()));
    let mut methods: BTreeMap<&str, MethodFacts> = BTreeMap::new();
    for run in runs {
        let parts = run.history.rounds.values().flat_map(|round| round.clients.values());
        let facts = methods.entry(&run.method).or_default();
        facts.seeds.push(run.seed);
        facts.seconds.push(run.history.seconds());
        facts.training_labels.push(parts.clone().map(|part| part.report.labels).sum());
        facts.optimizer_steps.push(parts.map(|part| part.report.steps).sum());
        facts.rounds.push(run.history.completed_rounds());
    }
    Facts {
        command,
        versions: Versions {
            fellrec: env!("CARGO_PKG_VERSION").to_owned(),
            libtorch: fingerprint.map(|print| print.libtorch.clone()).unwrap_or_default(),
        },
        machine: Machine {
            cores: available_parallelism().map_or(1, usize::from),
            cpu: system.cpus().first().map(|cpu| cpu.brand().to_owned()).unwrap_or_default(),
            vectors: fingerprint.map(|print| print.cpu.clone()).unwrap_or_default(),
        },
        methods,
    }
}

fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    let path = folder.join(name);
    write_whole(&path, text).with_context(|| format!("failed to write {}", path.display()))
}
