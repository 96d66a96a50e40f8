//! The runs of `scripts/odd-client.sh` as a CSV file, a table and a plot.
//!
//! `cargo run --example odd_client_plot -- RUNS IMAGES` reads every run folder `RUNS/METHOD-SEED`, writes
//! `RUNS/odd-client.csv` and `IMAGES/odd-client.svg`, and prints the table of docs/odd-client.md. It shows
//! how a report of one's own is made: a run folder's event log folds into a `History`, the rest is plain
//! numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use fellrec::ids::ClientId;
use fellrec::report::History;
use fellrec::report::plots::{BarSeries, Labels, grouped_bars};
use serde::Serialize;

/// Methods by the name of their run folders, as the table and the plot call them.
const METHODS: [(&str, &str); 7] = [
    ("local", "local only"),
    ("fedavg", "FedAvg"),
    ("published", "published form"),
    ("update-1", "sharpness 1"),
    ("update-3", "sharpness 3"),
    ("update-8", "sharpness 8"),
    ("intended-3", "3, intended"),
];

/// Measured against: what a client reaches alone.
const BASE: &str = "local";

/// One client of one run, as the CSV has it.
#[derive(Clone, Debug, Serialize)]
struct Row {
    method: &'static str,
    seed: u64,
    client: u32,
    /// State that validated best; its test result is the client's.
    best_round: u64,
    test_ndcg10: f64,
    /// Validation of the last round's state, whether it is the best or not.
    last_validation_ndcg10: f64,
}

fn main() -> Result<()> {
    let mut folders = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(runs), Some(images), None) = (folders.next(), folders.next(), folders.next()) else {
        anyhow::bail!("usage: odd_client_plot RUNS IMAGES");
    };
    let rows = read_runs(&runs)?;
    write_csv(&rows, &runs.join("odd-client.csv"))?;
    print_table(&rows);
    std::fs::create_dir_all(&images)?;
    std::fs::write(images.join("odd-client.svg"), plot(&rows)?)?;
    Ok(())
}

/// Rows by method in the order of [`METHODS`], then seed and client.
fn read_runs(runs: &Path) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut seeds_of_all: Option<BTreeSet<u64>> = None;
    for (method, _) in METHODS {
        let seeds = seeds(runs, method)?;
        let expected = seeds_of_all.get_or_insert_with(|| seeds.clone());
        ensure!(seeds == *expected, "{method} has the seeds {seeds:?}, expected {expected:?}");
        for seed in seeds {
            rows.extend(read_run(&runs.join(format!("{method}-{seed}")), method, seed)?);
        }
    }
    ensure!(!rows.is_empty(), "{} holds no run, expected METHOD-SEED folders", runs.display());
    Ok(rows)
}

fn seeds(runs: &Path, method: &str) -> Result<BTreeSet<u64>> {
    let mut seeds = BTreeSet::new();
    for entry in runs.read_dir().with_context(|| format!("failed to list {}", runs.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let seed = name.strip_prefix(method).and_then(|rest| rest.strip_prefix('-'));
        seeds.extend(seed.and_then(|seed| seed.parse::<u64>().ok()));
    }
    Ok(seeds)
}

fn read_run(folder: &Path, method: &'static str, seed: u64) -> Result<Vec<Row>> {
    let history = History::read(&folder.join("events.jsonl"))?;
    let unfinished = || format!("{} has not finished", folder.display());
    let finish = history.finish.with_context(unfinished)?;
    let (_, last) = history.evaluations.last_key_value().with_context(unfinished)?;
    let row = |(client, test): (&ClientId, &fellrec::history::TestResult)| {
        let validation = last.clients.get(client).with_context(unfinished)?;
        Ok(Row {
            method,
            seed,
            client: client.0,
            best_round: test.best_round.0,
            test_ndcg10: test.after.ndcg[&10],
            last_validation_ndcg10: validation.ndcg[&10],
        })
    };
    finish.test.iter().map(row).collect()
}

fn write_csv(rows: &[Row], path: &Path) -> Result<()> {
    let mut csv = csv::Writer::from_path(path)?;
    for row in rows {
        csv.serialize(row)?;
    }
    Ok(csv.flush()?)
}

/// One line a method: mean and range over seeds, for the odd client, which is the last one.
fn print_table(rows: &[Row]) {
    let odd = last_client(rows);
    println!(
        "| method | odd client, test | against local only | its last round, validation | others, test |"
    );
    println!("|---|---|---|---|---|");
    for (method, name) in METHODS {
        let of_odd = |value: fn(&Row) -> f64| -> Vec<f64> {
            let rows = rows.iter().filter(|row| row.method == method && row.client == odd);
            rows.map(value).collect()
        };
        let others: Vec<f64> = rows
            .iter()
            .filter(|row| row.method == method && row.client != odd)
            .map(|row| row.test_ndcg10)
            .collect();
        println!(
            "| {name} | {} | {} | {} | {:.3} |",
            spread(&of_odd(|row| row.test_ndcg10)),
            signed_spread(&gains(rows, method, odd)),
            spread(&of_odd(|row| row.last_validation_ndcg10)),
            mean(&others),
        );
    }
}

/// Bars of every method's mean gain over [`BASE`], by client.
fn plot(rows: &[Row]) -> Result<String> {
    let odd = last_client(rows);
    let name = |client| if client == odd { "odd".to_owned() } else { format!("client {client}") };
    let groups: Vec<String> = (0..=odd).map(name).collect();
    let series: Vec<BarSeries> = METHODS
        .iter()
        .filter(|(method, _)| *method != BASE)
        .map(|(method, name)| BarSeries {
            name: (*name).to_owned(),
            values: (0..=odd).map(|client| mean(&gains(rows, method, client))).collect(),
        })
        .collect();
    let seeds: BTreeSet<u64> = rows.iter().map(|row| row.seed).collect();
    let labels = Labels {
        title: &format!("What learning together is worth, mean of {} seeds", seeds.len()),
        x: "",
        y: "test NDCG@10 minus that of local only",
    };
    Ok(grouped_bars(&labels, &groups, &series)?)
}

/// Test NDCG@10 of a client less what it reaches alone, seed by seed.
fn gains(rows: &[Row], method: &str, client: u32) -> Vec<f64> {
    let by_seed = |method: &str| -> BTreeMap<u64, f64> {
        let rows = rows.iter().filter(|row| row.method == method && row.client == client);
        rows.map(|row| (row.seed, row.test_ndcg10)).collect()
    };
    let alone = by_seed(BASE);
    by_seed(method).into_iter().map(|(seed, ndcg)| ndcg - alone[&seed]).collect()
}

fn last_client(rows: &[Row]) -> u32 {
    rows.iter().map(|row| row.client).max().unwrap_or_default()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn range(values: &[f64]) -> (f64, f64) {
    let start = (f64::INFINITY, f64::NEG_INFINITY);
    values.iter().fold(start, |(low, high), &value| (low.min(value), high.max(value)))
}

fn spread(values: &[f64]) -> String {
    let (low, high) = range(values);
    format!("{:.3} ({low:.3} to {high:.3})", mean(values))
}

fn signed_spread(values: &[f64]) -> String {
    let (low, high) = range(values);
    format!("{:+.3} ({low:+.3} to {high:+.3})", mean(values))
}
