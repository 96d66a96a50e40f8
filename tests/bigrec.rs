//! Claims about federations that write titles (method.md 6.1): they learn, the cut and the machine
//! change no bit, a shard that dies while titles are written costs nothing but time.

mod common;

use common::federation::{Ended, Meddle, Meddler, run, small_config, undisturbed};
use fellrec::config::{Config, Layers, Loaded};
use fellrec::history::EventKind;
use fellrec::ids::ShardId;
use fellrec_actors::folder::RunFolder;
use fellrec_actors::journal::Notice;
use fellrec_actors::messages::Crash;
use fellrec_actors::registry::MemberName;

const BIGREC: [&str; 8] = [
    "model.backbone=bigrec",
    "model.vocab=320",
    "prompt.max_items=4",
    "prompt.loss=text",
    "generation.beams=2",
    "generation.max_new_tokens=12",
    "evaluation.validation_users=8",
    "federation.rounds=2",
];

fn config(sets: &[&str]) -> Config {
    small_config(&[&BIGREC[..], sets].concat())
}

/// Mean test NDCG@10 over users: before training and after.
fn ndcg(ended: &Ended) -> (f64, f64) {
    let finished = ended.events.iter().find_map(|event| match &event.kind {
        EventKind::RunFinished { test, .. } => Some(test),
        _ => None,
    });
    let test = finished.expect("the run ended");
    let mean = |value: fn(&fellrec::history::TestResult) -> &fellrec::ranking::Metrics| {
        let sums = test.values().map(|result| {
            let metrics = value(result);
            (metrics.ndcg[&10] * metrics.users as f64, metrics.users as f64)
        });
        let (sum, users) = sums.fold((0.0, 0.0), |(a, b), (c, d)| (a + c, b + d));
        sum / users
    };
    (mean(|result| &result.before), mean(|result| &result.after))
}

#[test]
fn a_federation_learns_to_write_titles() {
    let sets = [
        "federation.rounds=24",
        "evaluation.every=8",
        "evaluation.validation_users=none",
        "training.local_epochs=2",
        "model.hidden=32",
        "model.ffn=64",
        "optimizer.learning_rate=5e-3",
    ];
    let ended = undisturbed(config(&sets));
    let losses: Vec<f64> = ended
        .events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::RoundCommitted { clients, .. } => {
                Some(clients.values().map(|client| client.report.loss).sum::<f64>())
            }
            _ => None,
        })
        .collect();
    assert!(losses[23] < losses[0] / 2.0, "{losses:?}");
    let (before, after) = ndcg(&ended);
    assert!(after > 1.3 * before, "test NDCG@10 was {before}, is {after}");
}

#[test]
fn the_cut_and_the_threads_change_no_metric() {
    let metrics = |sets: &[&str]| undisturbed(config(sets)).trace().metrics;
    let plain = metrics(&["runtime.compute_threads=1"]);
    assert_eq!(plain.len(), 4, "the start, two rounds and the test");
    assert_eq!(metrics(&["runtime.compute_threads=2"]), plain);
    assert_eq!(metrics(&["split.k_front=3", "split.k_back=0"]), plain, "nothing offloaded");
    assert_eq!(metrics(&["split.k_front=1", "split.k_back=0"]), plain);
    let stages = ["split.stages=[[1,2],[2,3]]", "split.k_back=0", "split.replicas=2"];
    assert_eq!(metrics(&stages), plain);
}

/// A shard dies when a round is committed: the titles of its evaluation are written anew elsewhere.
#[test]
fn a_shard_that_dies_while_titles_are_written_changes_no_metric() {
    let calm = undisturbed(config(&[])).trace();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut crashed = false;
    let meddler: Meddler = Box::new(move |registry, notice| {
        if let Notice::Event(event) = notice
            && let EventKind::RoundCommitted { .. } = event.kind
            && !crashed
        {
            crashed = true;
            let shard = ShardId { stage: 0, replica: 0 };
            let entry = registry.shard(shard).expect("it is there");
            assert!(
                entry.peers.crash.tell(Crash),
                "{} takes the message",
                MemberName::Shard(shard)
            );
        }
        Meddle::GoOn
    });
    let ended = run(config(&[]), folder.path(), meddler);
    let restarted =
        ended.events.iter().any(|e| matches!(e.kind, EventKind::MemberRestarted { .. }));
    assert!(restarted, "the crash was seen");
    assert_eq!(ended.trace(), calm);
}

/// method.md 6.1: the embedding model is the base, adapters off, so the catalogue is embedded once.
#[test]
fn the_catalogue_is_embedded_once_a_run_by_the_base() {
    for trainable in ["model.trainable=lora", "model.trainable=full"] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        run(config(&[trainable]), folder.path(), Box::new(|_, _| Meddle::GoOn));
        let embeddings = RunFolder::new(folder.path().join("run")).root().join("embeddings");
        let files: Vec<_> = std::fs::read_dir(embeddings).expect("kept").collect();
        assert_eq!(files.len(), 1, "{trainable}: one base, one catalogue, one file");
    }
}

/// Popularity weighs where validation says that it helps, and nothing is weighed without a grid.
#[test]
fn the_exponent_of_popularity_is_chosen_on_validation_rows() {
    let metrics = |sets: &[&str]| undisturbed(config(sets)).trace().metrics;
    let plain = metrics(&[]);
    assert_eq!(metrics(&["grounding.gammas=[0.0]"]), plain, "exponent 0 is no weight");
    assert_ne!(metrics(&["grounding.gammas=[8.0]"]), plain, "a large one is felt");
}

#[test]
fn a_prompt_that_cannot_fit_is_refused_by_its_key() {
    let sets = BIGREC.iter().chain(&["prompt.cutoff=10"]).map(|set| (*set).to_owned()).collect();
    let loaded = Loaded::load(&Layers { sets, ..Layers::default() });
    let config = loaded.expect("it takes the catalogue to see it").config;
    let error = fellrec::blueprint::Blueprint::new(config).expect_err("it does not fit");
    assert!(error.to_string().contains("prompt.cutoff"), "{error}");
    let sets = vec!["generation.beams=0".to_owned()];
    let refused = Loaded::load(&Layers { sets, ..Layers::default() }).expect_err("no beam");
    assert!(refused.to_string().contains("generation.beams"), "{refused}");
}
