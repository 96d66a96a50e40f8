//! A study as a process: killed, interrupted, run by two, begun with something else; in the end the same files.

use std::fs;
use std::path::Path;

use fellrec::history::EventKind;
use fellrec::ids::ClientId;

use crate::support::{Place, Process, event};

/// Two methods with two seeds, one run at a time; `more` may say otherwise.
fn compare(place: &Place, more: &[&str]) -> Process {
    let study =
        ["compare", "--methods", "local,fedavg", "--seeds", "1,2", "--config", "small.toml"];
    let small = ["--set", "federation.rounds=3", "--out", "study"];
    place.process(&[&study[..], &small, more].concat())
}

/// Files that equal studies share.
const RESULTS: [&str; 7] = [
    "table.md",
    "results.csv",
    "summary.csv",
    "curves.csv",
    "curves.svg",
    "ndcg5.svg",
    "to-local.svg",
];

fn results(place: &Place) -> Vec<String> {
    let read = |name| fs::read_to_string(place.study().join(name)).expect("written at the end");
    RESULTS.map(read).to_vec()
}

fn folders(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).expect("a folder");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("read").file_name().into_string().expect("text"))
        .collect();
    names.sort();
    names
}

#[test]
fn a_study_that_is_killed_and_interrupted_comes_to_the_same_files() {
    let undisturbed = Place::new();
    let (status, table, stderr) = compare(&undisturbed, &["--jobs", "2"]).end();
    assert!(status.success(), "{stderr}");
    assert!(table.contains("fedavg") && table.contains("VS FEDAVG"), "{table}");
    assert!(stderr.contains("(4 of 4 runs)"), "{stderr}");

    let place = Place::new();
    let mut process = compare(&place, &["--jobs", "1", "-v"]);
    process.until_said("fedavg seed 1: done");
    process.until_said("round=1 ");
    process.kill();
    assert!(!place.study().join("table.md").exists());

    let mut process = compare(&place, &["--jobs", "2", "-v"]);
    process.until_said("2 of 4 runs are finished already");
    process.until_said("round=2 ");
    process.signal("INT");
    let (status, _, stderr) = process.end();
    assert_eq!(status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("go on with the same command"), "{stderr}");

    compare(&place, &["--jobs", "1"]).succeed();
    assert_eq!(results(&place), results(&undisturbed));
    // Once more there is nothing to run, and the table is the same.
    let stderr = compare(&place, &[]).succeed();
    assert!(stderr.contains("4 of 4 runs are finished already"), "{stderr}");
    assert_eq!(results(&place), results(&undisturbed));
}

/// NDCG@5 of client 0 as the study computes it from the kept ranks.
fn client_0_by_results(place: &Place) -> f64 {
    let results = fs::read_to_string(place.study().join("results.csv")).expect("written");
    let row = results.lines().find(|line| line.starts_with("fedavg,1,0,")).expect("a row");
    row.split(',').nth(4).expect("a column").parse().expect("a number")
}

/// The same as the client reported it.
fn client_0_by_events(run: &Path) -> f64 {
    let log = fs::read_to_string(run.join("events.jsonl")).expect("the history");
    match event(log.lines().last().expect("an end")) {
        EventKind::RunFinished { test, .. } => test[&ClientId(0)].after.ndcg[&5],
        other => panic!("{other:?} is no end"),
    }
}

#[test]
fn ranks_stay_and_states_go_unless_they_are_kept() {
    let place = Place::new();
    let one = ["--methods", "fedavg", "--seeds", "1", "--keep-states"];
    let small = ["--config", "small.toml", "--set", "federation.rounds=1", "--out", "study"];
    place.process(&[&["compare"], &one[..4], &small].concat()).succeed();
    let run = place.study().join("runs/fedavg/seed-1");
    assert_eq!(folders(&run.join("clients/client-0")), ["test-ranks.csv"]);
    assert!(!run.join("shards").exists() && !run.join("rounds").exists());
    assert_eq!(client_0_by_results(&place), client_0_by_events(&run));
    let facts = fs::read_to_string(place.study().join("study.toml")).expect("written");
    assert!(facts.contains("[methods.fedavg]") && facts.contains("training_labels = ["), "{facts}");
    let config = place.study().join("configs/fedavg.toml");
    let config = fs::read_to_string(config).expect("written");
    for line in ["rule = \"fedavg\"", "keep_ranks = true", "fsync = false", "compute_threads = 1"] {
        assert!(config.contains(line), "{line} is not in\n{config}");
    }

    let place = Place::new();
    place.process(&[&["compare"], &one[..], &small].concat()).succeed();
    assert!(place.study().join("runs/fedavg/seed-1/shards").exists());
}

#[test]
fn another_configuration_and_another_process_are_refused() {
    let place = Place::new();
    let mut process = compare(&place, &["--jobs", "1", "-v"]);
    process.until_said("round=1 ");
    let (status, _, stderr) = compare(&place, &[]).end();
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("another process works on study"), "{stderr}");
    process.kill();

    let before = folders(&place.study());
    let (status, _, stderr) = compare(&place, &["--set", "training.batch=4"]).end();
    assert_eq!(status.code(), Some(2));
    let expected = "study/runs/local/seed-1 was begun with another configuration: \
                    training.batch was 8, is 4; nothing is overwritten";
    assert!(stderr.contains(expected), "{stderr}");
    assert_eq!(folders(&place.study()), before);
}

/// A learning rate at which every loss is no number, for one of two methods.
#[test]
fn a_run_that_fails_leaves_the_others_and_is_missing_in_the_table() {
    let place = Place::new();
    let methods = "fedavg:optimizer.learning_rate=1e30,fedavg";
    let study = ["compare", "--methods", methods, "--seeds", "1", "--config", "small.toml"];
    let small = ["--set", "federation.rounds=1", "--out", "study"];
    let (status, table, stderr) = place.process(&[&study[..], &small].concat()).end();
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("error: fedavg:optimizer.learning_rate=1e30 seed 1: "), "{stderr}");
    assert!(stderr.contains("its loss is NaN"), "{stderr}");
    assert!(table.contains("fedavg"), "{table}");
    let text = fs::read_to_string(place.study().join("table.md")).expect("of what there is");
    let missing = "not in any number above: fedavg:optimizer.learning_rate=1e30 seed 1.";
    assert!(text.contains(missing) && text.contains("| fedavg | 1 | "), "{text}");
}
