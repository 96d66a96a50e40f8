//! `fellrec export` as a process: what comes out is what the client had, and a run starts from it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use fellrec::config::Trainable;
use fellrec::history::{EventKind, TestResult};
use fellrec::ids::ClientId;
use fellrec::model::pretrained::{Adapter, Checkpoint};
use fellrec::model::start::StartingPoint;
use fellrec::split::{ClientSettings, WholePlan};
use serde_json::Value;
use tch::Tensor;

use crate::support::{Place, event};

const BIGREC: [&str; 10] = [
    "--set",
    "model.backbone=bigrec",
    "--set",
    "model.vocab=400",
    "--set",
    "prompt.max_items=3",
    "--set",
    "generation.max_new_tokens=8",
    "--set",
    "evaluation.validation_users=4",
];
/// Weights far from their start, so that ranks differ.
const LORA: [&str; 6] = [
    "--set",
    "model.trainable=lora",
    "--set",
    "model.init_std=0.2",
    "--set",
    "optimizer.learning_rate=1e-2",
];

fn test(run: &Path) -> BTreeMap<ClientId, TestResult> {
    let log = fs::read_to_string(run.join("events.jsonl")).expect("a run writes its history");
    let finished = log.lines().find_map(|line| match event(line) {
        EventKind::RunFinished { test, .. } => Some(test),
        _ => None,
    });
    finished.expect("the run ended")
}

fn export(place: &Place, client: &str, format: &str, more: &[&str]) -> (Option<i32>, String) {
    let args = ["export", "run", "--client", client, "--format", format, "--out", format];
    let (status, _, stderr) = place.process(&[&args[..], more].concat()).end();
    (status.code(), stderr)
}

/// Logits after `ids` of a base with an adapter.
fn logits(base: &Path, adapter: &Path, ids: &[i64]) -> Tensor {
    let checkpoint = Arc::new(Checkpoint::open(base).expect("the base beside the adapter"));
    let adapter = Arc::new(Adapter::open(adapter).expect("an adapter"));
    let architecture = checkpoint.architecture().clone();
    let config = fellrec::config::Loaded::load(&Default::default()).expect("the defaults").config;
    let plan = WholePlan {
        architecture: &architecture,
        trainable: Trainable::Lora,
        lora: adapter.lora().clone(),
        optimizer: &config.optimizer,
        settings: ClientSettings::of(&config),
        longest: ids.len() as i64,
    };
    let start = StartingPoint::pretrained(0, checkpoint).adapted(Some(adapter));
    let model = plan.build(&start).expect("tensors that fit");
    model.next_token_scores(ids).expect("a whole model")
}

#[test]
fn a_run_goes_on_from_where_the_exported_one_ended() {
    let place = Place::new();
    place.simulate(&[&BIGREC[..], &LORA].concat()).succeed();
    let ended = test(&place.run());
    // Somebody whom training helped, or there would be nothing to see.
    let helped = |result: &&TestResult| result.before.ndcg != result.after.ndcg;
    let client = ended.iter().find(|(_, result)| helped(result)).expect("somebody learnt").0;
    let number = client.0.to_string();
    for format in ["peft", "merged"] {
        let (code, stderr) = export(&place, &number, format, &[]);
        assert_eq!(code, Some(0), "{stderr}");
    }
    let folder = place.run().parent().expect("a folder").to_owned();
    let (peft, merged) = (folder.join("peft"), folder.join("merged"));

    // Merged weights and the base with its adapter are the same model.
    let inspect = ["model", "inspect", "merged", "--ids", "1,5,17,40,33", "--json"];
    let (_, stdout, stderr) = place.process(&inspect).end();
    let inspected: Value = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stderr}"));
    let merged_v: Vec<f32> = serde_json::from_value(inspected["logits"].clone()).expect("numbers");
    let adapted_v = logits(&peft.join("base"), &peft, &[1, 5, 17, 40, 33]);
    let difference = (Tensor::from_slice(&merged_v) - &adapted_v).abs().max().double_value(&[]);
    assert!(difference < 1e-4, "{difference}");
    assert!(merged.join("tokenizer.json").is_file());

    // Before its training, the next run ranks as this one did after.
    let again = ["simulate", "--config", "small.toml", "--out", "again"];
    let from = ["--set", "model.checkpoint=peft/base", "--set", "model.adapter=peft"];
    let short = ["--set", "federation.rounds=1"];
    place.process(&[&again[..], &BIGREC, &LORA, &from, &short].concat()).succeed();
    let (before, after) = (test(&folder.join("again")), &ended[client].after);
    assert_eq!(&before[client].before, after);
}

#[test]
fn what_is_not_there_or_does_not_fit_is_refused() {
    let place = Place::new();
    place.simulate(&[]).succeed();
    let full = export(&place, "0", "peft", &[]);
    assert!(full.1.contains("model.trainable is \"full\""), "{}", full.1);
    let nobody = export(&place, "9", "merged", &[]);
    assert_eq!(nobody.0, Some(2), "wrong usage");
    assert!(nobody.1.contains("--client: got 9, expected 0 to 4"), "{}", nobody.1);
    let never = export(&place, "0", "merged", &["--round", "77"]);
    assert!(never.1.contains("client-0 holds states of rounds "), "{}", never.1);
    let folder = place.run().parent().expect("a folder").to_owned();
    assert!(!folder.join("merged").exists() && !folder.join("peft").exists(), "nothing half done");

    let (code, stderr) = export(&place, "0", "merged", &[]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("fellrec_extra.safetensors holds"), "the projector: {stderr}");
    Checkpoint::open(&folder.join("merged")).expect("a model of transformers");
    let (code, stderr) = export(&place, "0", "merged", &[]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("merged is not empty; --force replaces it"), "{stderr}");
    assert_eq!(export(&place, "0", "merged", &["--force"]).0, Some(0));

    let other =
        ["simulate", "--config", "small.toml", "--out", "other", "--set", "model.adapter=x"];
    let (status, _, stderr) = place.process(&other).end();
    assert_eq!(status.code(), Some(2));
    assert!(stderr.contains("needs model.trainable = \"lora\""), "{stderr}");
}
