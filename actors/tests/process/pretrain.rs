//! `fellrec pretrain` as a process: made once, refused over something else, whole or not there.

use std::fs;

use serde_json::Value;

use crate::support::{Place, Process};

fn pretrain(place: &Place, more: &[&str]) -> Process {
    let base = ["pretrain", "--config", "small.toml", "--set", "model.backbone=bigrec"];
    let small = ["--set", "model.vocab=400", "--steps", "4", "--out", "base"];
    place.process(&[&base[..], &small, more].concat())
}

fn outcome(process: Process) -> Value {
    let (status, stdout, stderr) = process.end();
    assert!(status.success(), "{stderr}");
    serde_json::from_str(&stdout).expect("JSON and nothing else")
}

#[test]
fn a_base_is_made_once_and_not_over_another() {
    let place = Place::new();
    let first = outcome(pretrain(&place, &["--json"]));
    assert_eq!(first["cached"], false);
    let weights = || fs::read(place.base().join("model.safetensors")).expect("written");
    let made = weights();
    let again = outcome(pretrain(&place, &["--json"]));
    assert_eq!((&again["cached"], &again["key"]), (&Value::Bool(true), &first["key"]));

    let (status, _, stderr) = pretrain(&place, &["--set", "run.seed=7"]).end();
    assert_eq!(status.code(), Some(1));
    let key = &first["key"].as_str().expect("text")[..12];
    assert!(stderr.contains(&format!("something else (key {key}, asked for ")), "{stderr}");
    assert_eq!(weights(), made);
    let forced = outcome(pretrain(&place, &["--json", "--force", "--set", "run.seed=7"]));
    assert_ne!(forced["key"], first["key"]);
    assert_ne!(weights(), made);

    let simulate = ["--set", "model.backbone=bigrec", "--set", "model.checkpoint=base"];
    let short = ["--set", "federation.rounds=1", "--set", "evaluation.validation_users=2"];
    place.simulate(&[simulate, short].concat()).succeed();
}

#[test]
fn a_folder_with_other_things_is_left_alone() {
    let place = Place::new();
    fs::create_dir(place.base()).expect("a new folder");
    fs::write(place.base().join("thesis.tex"), "years").expect("written");
    let (status, _, stderr) = pretrain(&place, &[]).end();
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("base is not empty and holds no base"), "{stderr}");
    assert!(place.base().join("thesis.tex").exists());
}

#[test]
fn an_interrupted_training_leaves_nothing() {
    let place = Place::new();
    let process = pretrain(&place, &["--steps", "1000000"]);
    std::thread::sleep(std::time::Duration::from_millis(700));
    process.signal("INT");
    let (status, _, _) = process.end();
    assert!(!status.success());
    let kept: Vec<_> = fs::read_dir(place.base().parent().expect("a folder"))
        .expect("a folder")
        .map(|entry| entry.expect("read").file_name())
        .collect();
    assert_eq!(kept, ["small.toml"], "nothing is left behind");
}
