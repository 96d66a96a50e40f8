//! Claims about federations that encode item text (method.md 6.2): the cut and the machine change no
//! bit, a stopped run resumes to the same end, the table's traffic is counted and capped.

mod common;

use common::federation::{Ended, Meddle, Meddler, resume, run, small_config, undisturbed};
use fellrec::blueprint::Blueprint;
use fellrec::config::Config;
use fellrec::federation::round::Outcome;
use fellrec::history::EventKind;
use fellrec_actors::journal::Notice;

const RECFORMER: [&str; 6] = [
    "model.backbone=recformer",
    "recformer.window=8",
    "recformer.max_items=6",
    "recformer.max_tokens=48",
    "recformer.max_attribute_tokens=6",
    "evaluation.validation_users=8",
];

fn config(sets: &[&str]) -> Config {
    small_config(&[&RECFORMER[..], sets].concat())
}

/// Bytes that clients sent and got in each round.
fn traffic(ended: &Ended) -> Vec<u64> {
    let bytes = |event: &fellrec::history::RunEvent| match &event.kind {
        EventKind::RoundCommitted { clients, .. } => {
            Some(clients.values().map(|c| c.cost.bytes_up + c.cost.bytes_down).sum())
        }
        _ => None,
    };
    ended.events.iter().filter_map(bytes).collect()
}

#[test]
fn the_cut_and_the_threads_change_no_metric() {
    let metrics = |sets: &[&str]| undisturbed(config(sets)).trace().metrics;
    let plain = metrics(&["runtime.compute_threads=1"]);
    assert_eq!(plain.len(), 5, "the start, three rounds and the test");
    assert_eq!(metrics(&["runtime.compute_threads=2"]), plain);
    assert_eq!(metrics(&["split.k_front=3", "split.k_back=0"]), plain, "nothing offloaded");
    assert_eq!(metrics(&["split.k_front=1", "split.k_back=0"]), plain);
}

#[test]
fn a_stopped_run_resumes_to_the_same_end() {
    let sets = ["recformer.freeze_table_from=2"];
    let calm = undisturbed(config(&sets)).trace();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut committed = 0;
    let stop: Meddler = Box::new(move |_, notice| {
        let is_commit = matches!(notice, Notice::Event(event)
            if matches!(event.kind, EventKind::RoundCommitted { .. }));
        committed += u32::from(is_commit);
        if committed == 2 { Meddle::Stop } else { Meddle::GoOn }
    });
    let stopped = run(config(&sets), folder.path(), stop);
    assert_eq!(stopped.outcome, Outcome::Stopped);
    let ended = resume(config(&sets), folder.path());
    assert_eq!(ended.outcome, Outcome::RoundsDone);
    assert_eq!(ended.trace().slices, calm.slices);
    assert_eq!(ended.trace().metrics.last(), calm.metrics.last());
}

#[test]
fn a_frozen_table_costs_no_traffic_and_its_weight_is_felt() {
    let (free, frozen) =
        (undisturbed(config(&[])), undisturbed(config(&["recformer.freeze_table_from=1"])));
    assert!(traffic(&frozen)[2] < traffic(&free)[2], "{:?} {:?}", traffic(&frozen), traffic(&free));
    assert_ne!(frozen.trace().metrics, free.trace().metrics);
}

#[test]
fn a_table_beyond_its_cap_does_not_start() {
    let many = ["data.synthetic.items=4000", "model.hidden=64", "recformer.table_traffic_mib=1"];
    let error = Blueprint::new(config(&many)).expect_err("the table is too large");
    assert!(error.to_string().contains("recformer.table_traffic_mib"), "{error}");
}
