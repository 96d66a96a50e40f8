//! Claims about Ditto (method.md 9): its global model is FedAvg's, its personal one lies between
//! local training and the global model, and both survive deaths and a resume to the bit.

mod common;

use std::path::Path;

use common::federation::{Ended, Meddle, Meddler, Trace, resume, run, small_config, undisturbed};
use fellrec::blueprint::Blueprint;
use fellrec::config::Config;
use fellrec::cost::ClientCost;
use fellrec::federation::member::Member;
use fellrec::federation::round::{Outcome, StateId};
use fellrec::federation::track::Track;
use fellrec::history::{EventKind, RunEvent};
use fellrec::ids::{ClientId, Round, ShardId};
use fellrec::model::cut::Place;
use fellrec::model::slice::{NamedTensor, Slice};
use fellrec_actors::folder::RunFolder;
use fellrec_actors::journal::Notice;
use fellrec_actors::messages::Crash;
use fellrec_actors::registry::Registry;

fn fedavg(sets: &[&str]) -> Config {
    small_config(&[&["mixing.rule=fedavg"], sets].concat())
}

fn ditto(lambda: &str) -> Config {
    fedavg(&[&format!("training.ditto_lambda={lambda}")])
}

/// The personal model takes no part in the mixing and changes nothing of it; what is measured is the
/// personal model.
#[test]
fn the_global_model_is_fedavgs_to_the_bit_whatever_lambda() {
    let plain = undisturbed(fedavg(&[])).trace();
    for lambda in ["0.1", "10"] {
        let trace = undisturbed(ditto(lambda)).trace();
        assert_eq!(trace.slices, plain.slices, "lambda {lambda}");
        assert_eq!(trace.metrics[0], plain.metrics[0], "both start from the shared state");
        assert_ne!(trace.metrics, plain.metrics, "lambda {lambda}: the personal model is ranked");
    }
}

/// A lambda that vanishes in f32: the personal model is trained locally, with the same batches.
#[test]
fn without_a_pull_the_personal_model_is_local_training_to_the_bit() {
    let local = undisturbed(small_config(&["mixing.rule=local"])).trace();
    assert_eq!(undisturbed(ditto("1e-300")).trace().metrics, local.metrics);
}

/// ||v - w||: how far the personal model of client 0 is from the global one that round 0 began with.
fn distance_after_a_round(lambda: &str) -> f64 {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let sets = ["federation.rounds=1", &format!("training.ditto_lambda={lambda}")];
    let config = fedavg(&sets);
    run(config.clone(), folder.path(), Box::new(|_, _| Meddle::GoOn));
    let (store, client) = (RunFolder::new(folder.path().join("run")), ClientId(0));
    let Blueprint { layout, start, .. } = Blueprint::new(config.clone()).expect("the data fits");
    let squared = |place| {
        let states = match place {
            Place::Stage(stage) => store.stage_store(stage as u32, client, &config),
            Place::Front | Place::Back => store.client_store(client, &config),
        };
        let member = Member::new(
            states,
            store.shared_store(&config),
            layout.clone(),
            start.clone(),
            &config,
        );
        let slice = |round| {
            let state = member.load(Track::Personal, place, StateId::own(round));
            state.expect("the state is there").slice
        };
        let change = |(now, start): (&NamedTensor, &NamedTensor)| {
            NamedTensor::new(&now.name, &now.tensor - &start.tensor)
        };
        let (now, start) = (slice(Round(1)), slice(Round(0)));
        Slice::new(now.tensors.iter().zip(&start.tensors).map(change).collect()).squared_norm()
    };
    layout.cut.places().into_iter().map(squared).sum::<f64>().sqrt()
}

#[test]
fn a_large_lambda_keeps_the_personal_model_near_the_global_one() {
    let distances = ["1e-6", "1", "1000"].map(distance_after_a_round);
    assert!(distances.is_sorted_by(|far, near| far > near), "{distances:?}");
    assert!(distances[2] < distances[0] / 2.0, "{distances:?}");
}

/// Crashes a member once, after so many steps of all clients together, on either track.
fn crash_after(steps: u64, crash: impl Fn(&Registry) -> Option<bool> + 'static) -> Meddler {
    let mut seen = 0;
    Box::new(move |registry, notice| {
        seen += u64::from(matches!(notice, Notice::Step { .. }));
        if seen == steps && matches!(notice, Notice::Step { .. }) {
            assert_eq!(crash(registry), Some(true), "the member is there and takes the message");
        }
        Meddle::GoOn
    })
}

fn steps(ended: &Ended) -> u64 {
    let of_round = |event: &RunEvent| match &event.kind {
        EventKind::RoundCommitted { clients, .. } => {
            clients.values().map(|part| part.report.steps).sum()
        }
        _ => 0,
    };
    ended.events.iter().map(of_round).sum()
}

fn was_restarted(ended: &Ended) -> bool {
    let restarted = |event: &RunEvent| matches!(event.kind, EventKind::MemberRestarted { .. });
    ended.events.iter().any(restarted)
}

/// Deaths spread over both passes of a local round and the rounds of a run.
#[test]
fn equal_bits_after_a_client_or_a_shard_dies_in_either_pass() {
    let undisturbed = undisturbed(ditto("0.5"));
    let calm: Trace = undisturbed.trace();
    // Every step is made on both tracks.
    let all = 2 * steps(&undisturbed);
    for share in [1, 4, 7, 10] {
        let after = all * share / 12;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let shard = |registry: &Registry| {
            let shard = registry.shard(ShardId { stage: 0, replica: 0 });
            shard.map(|entry| entry.peers.crash.tell(Crash))
        };
        let ended = run(ditto("0.5"), folder.path(), crash_after(after, shard));
        assert!(was_restarted(&ended), "the crash was seen");
        assert_eq!(ended.trace(), calm, "the shard after step {after} of {all}");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let client = |registry: &Registry| {
            registry.client(ClientId(1)).map(|entry| entry.peers.crash.tell(Crash))
        };
        let ended = run(ditto("0.5"), folder.path(), crash_after(after, client));
        assert!(was_restarted(&ended), "the crash was seen");
        assert_eq!(ended.trace(), calm, "a client after step {after} of {all}");
    }
}

fn stop_after(folder: &Path, steps: u64) -> Ended {
    let mut seen = 0;
    let stop: Meddler = Box::new(move |_, notice| {
        seen += u64::from(matches!(notice, Notice::Step { .. }));
        if seen == steps { Meddle::Stop } else { Meddle::GoOn }
    });
    run(ditto("0.5"), folder, stop)
}

#[test]
fn a_stopped_run_resumes_to_the_same_personal_models() {
    let undisturbed = undisturbed(ditto("0.5"));
    let calm = undisturbed.trace();
    let all = 2 * steps(&undisturbed);
    let folder = tempfile::tempdir().expect("a temporary folder");
    assert_eq!(stop_after(folder.path(), all / 2).outcome, Outcome::Stopped);
    let ended = resume(ditto("0.5"), folder.path());
    assert_eq!(ended.outcome, Outcome::RoundsDone);
    assert_eq!(ended.trace().slices, calm.slices);
    assert_eq!(ended.trace().metrics.last(), calm.metrics.last());
}

fn costs(ended: &Ended) -> Vec<ClientCost> {
    let of_round = |event: &RunEvent| match &event.kind {
        EventKind::RoundCommitted { clients, .. } => {
            clients.values().map(|part| part.cost).collect()
        }
        _ => Vec::new(),
    };
    ended.events.iter().flat_map(of_round).collect()
}

/// The hidden states cross the cut twice, the slices of the global model once.
#[test]
fn both_passes_are_paid_for_and_planned_for() {
    let (plain, both) = (undisturbed(fedavg(&[])), undisturbed(ditto("0.5")));
    let plan = |config| Blueprint::new(config).expect("the synthetic data fits").cost_plan().split;
    let (need, need_both) = (plan(fedavg(&[])), plan(ditto("0.5")));
    // Client-held slices travel as 4 bytes a number.
    let slices = 4 * need.trainable;
    for (once, twice) in costs(&plain).iter().zip(costs(&both)) {
        assert_eq!(twice.bytes_up - slices, 2 * (once.bytes_up - slices));
        assert_eq!(twice.bytes_down - slices, 2 * (once.bytes_down - slices));
    }
    assert_eq!(need_both.bytes - need.bytes, 12 * need.trainable, "the personal one waits");
    let proximal = plan(fedavg(&["training.proximal_mu=0.1"]));
    assert_eq!(proximal.bytes - need.bytes, 4 * need.trainable, "the start is held");
}
