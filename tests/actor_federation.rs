//! Claims about whole federations of actors: same bits whatever the threads, the order and the
//! deaths (architecture.md 3 and 4).

mod common;

use std::cell::Cell;
use std::rc::Rc;

use common::federation::{Ended, Meddle, Meddler, resume, run, small_config, undisturbed};
use fellrec::federation::round::{Absence, Outcome};
use fellrec::history::EventKind;
use fellrec::ids::{ClientId, ShardId};
use fellrec_actors::journal::Notice;
use fellrec_actors::messages::Crash;
use fellrec_actors::registry::{MemberName, Registry};

fn crash(registry: &Registry, member: MemberName) {
    let told = match member {
        MemberName::Client(client) => registry.client(client).map(|e| e.peers.crash.tell(Crash)),
        MemberName::Shard(shard) => registry.shard(shard).map(|e| e.peers.crash.tell(Crash)),
        MemberName::Aggregator => registry.aggregator().map(|e| e.peers.crash.tell(Crash)),
        MemberName::Supervisor | MemberName::Operator => None,
    };
    assert_eq!(told, Some(true), "{member} is there and takes the message");
}

/// Crashes a member once, after so many steps of all clients together.
fn crash_after(member: MemberName, steps: u64) -> Meddler {
    let mut seen = 0;
    Box::new(move |registry, notice| {
        if let Notice::Step { .. } = notice {
            seen += 1;
            if seen == steps {
                crash(registry, member);
            }
        }
        Meddle::GoOn
    })
}

fn restarts(ended: &Ended) -> usize {
    let restarted =
        |e: &&fellrec::history::RunEvent| matches!(e.kind, EventKind::MemberRestarted { .. });
    ended.events.iter().filter(restarted).count()
}

#[test]
fn equal_bits_with_one_two_and_four_compute_threads() {
    let on = |threads: &str| undisturbed(small_config(&[threads])).trace();
    let one = on("runtime.compute_threads=1");
    assert_eq!(one.slices.len(), 3);
    assert_eq!(on("runtime.compute_threads=2"), one);
    assert_eq!(on("runtime.compute_threads=4"), one);
}

/// protocol.md 4 and 5: stages, replicas, depth and recomputation change where and when, never what.
#[test]
fn equal_bits_with_other_pools_and_stages() {
    let with = |sets: &[&str]| undisturbed(small_config(sets)).trace();
    let four = ["model.layers=4"];
    let plain = with(&four);
    let staged = ["model.layers=4", "split.stages=[[1,2],[2,3]]", "split.replicas=3"];
    assert_eq!(with(&staged), plain);
    assert_eq!(with(&["model.layers=4", "runtime.pipeline_depth=2"]), plain);
    assert_eq!(with(&["model.layers=4", "runtime.recompute=true"]), plain);
    assert_eq!(with(&["model.layers=4", "split.k_front=4", "split.k_back=0"]).slices.len(), 3);
}

/// Whoever is computed with whom, and whoever dies meanwhile: what clients learn is what they learn alone, up to
/// rounding.
#[test]
fn shards_that_compute_several_clients_at_once_change_nothing_but_rounding() {
    let losses = |ended: &Ended| -> Vec<f64> {
        let committed = ended.events.iter().filter_map(|event| match &event.kind {
            EventKind::RoundCommitted { clients, .. } => {
                Some(clients.values().map(|c| c.report.loss))
            }
            _ => None,
        });
        committed.flatten().collect()
    };
    let sets = [
        "model.trainable=lora",
        "runtime.recompute=true",
        "runtime.deterministic=false",
        "runtime.compute_threads=1",
        "runtime.pipeline_depth=4",
    ];
    let alone = losses(&undisturbed(small_config(&sets)));
    assert_eq!(alone.len(), 15);
    let together = small_config(&[&sets[..], &["runtime.clients_at_once=4"]].concat());
    let folder = tempfile::tempdir().unwrap();
    let shard = MemberName::Shard(ShardId { stage: 0, replica: 0 });
    let ended = run(together, folder.path(), crash_after(shard, 9));
    assert!(restarts(&ended) > 0, "the crash was seen");
    for (alone, together) in alone.iter().zip(losses(&ended)) {
        assert!((alone - together).abs() < 1e-4 * alone, "{alone} and {together}");
    }
}

#[test]
fn equal_bits_after_a_client_dies_at_any_step() {
    let calm = undisturbed(small_config(&[])).trace();
    for steps in [1, 7, 20] {
        let folder = tempfile::tempdir().unwrap();
        let member = MemberName::Client(ClientId(steps as u32 % 5));
        let ended = run(small_config(&[]), folder.path(), crash_after(member, steps));
        assert!(restarts(&ended) > 0, "the crash was seen");
        assert_eq!(ended.trace(), calm, "{member} after step {steps}");
    }
}

#[test]
fn equal_bits_after_a_shard_dies_at_any_step() {
    let calm = undisturbed(small_config(&[])).trace();
    for steps in [1, 9, 22] {
        let folder = tempfile::tempdir().unwrap();
        let member = MemberName::Shard(ShardId { stage: 0, replica: 0 });
        let ended = run(small_config(&[]), folder.path(), crash_after(member, steps));
        assert!(restarts(&ended) > 0, "the crash was seen");
        assert_eq!(ended.trace(), calm, "{member} after step {steps}");
    }
}

#[test]
fn equal_bits_after_the_aggregator_dies() {
    let calm = undisturbed(small_config(&[])).trace();
    for steps in [1, 12, 14] {
        let folder = tempfile::tempdir().unwrap();
        let ended =
            run(small_config(&[]), folder.path(), crash_after(MemberName::Aggregator, steps));
        assert!(restarts(&ended) > 0, "the crash was seen");
        assert_eq!(ended.trace(), calm, "aggregator after step {steps}");
    }
}

#[test]
fn a_stopped_run_resumes_to_the_same_end() {
    let calm = undisturbed(small_config(&[])).trace();
    let folder = tempfile::tempdir().unwrap();
    let mut seen = 0;
    let stop: Meddler = Box::new(move |_, notice| {
        seen += u32::from(matches!(notice, Notice::Step { .. }));
        if seen == 25 { Meddle::Stop } else { Meddle::GoOn }
    });
    let stopped = run(small_config(&[]), folder.path(), stop);
    assert_eq!(stopped.outcome, Outcome::Stopped);
    assert!(stopped.trace().slices.len() < 3, "it was stopped in the middle");
    let ended = resume(small_config(&[]), folder.path());
    assert_eq!(ended.outcome, Outcome::RoundsDone);
    assert_eq!(ended.trace().slices, calm.slices);
    assert_eq!(ended.trace().metrics.last(), calm.metrics.last());
}

/// A client whose restart budget is spent is left out by name; the others go on (quorum holds).
#[test]
fn a_client_that_cannot_stay_up_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let crashes = Rc::new(Cell::new(0));
    let counted = Rc::clone(&crashes);
    let keep_crashing: Meddler = Box::new(move |registry, notice| {
        let victim = ClientId(2);
        let works = matches!(notice, Notice::Step { client, .. } if *client == victim);
        if works && registry.client(victim).is_some() {
            counted.set(counted.get() + 1);
            crash(registry, MemberName::Client(victim));
        }
        Meddle::GoOn
    });
    let config = small_config(&["federation.restart_budget=2"]);
    let ended = run(config, folder.path(), keep_crashing);
    assert_eq!(ended.outcome, Outcome::RoundsDone);
    assert!(crashes.get() >= 3, "first life and two restarts");
    let absence = |event: &fellrec::history::RunEvent| match &event.kind {
        EventKind::RoundCommitted { absent, clients, .. } => {
            assert_eq!(clients.len(), 4);
            absent.get(&ClientId(2)).cloned()
        }
        _ => None,
    };
    let absences: Vec<Absence> = ended.events.iter().filter_map(absence).collect();
    assert_eq!(absences.len(), 3);
    let names_the_budget =
        |a: &Absence| matches!(a, Absence::Lost(why) if why.contains("restart budget"));
    assert!(absences.iter().take(1).all(names_the_budget), "{absences:?}");
}
