//! Many small clients of which a few take part in a round: who is not asked goes on from the shared
//! mean, which is kept once (protocol.md 2).

mod common;

use std::collections::BTreeSet;

use common::federation::{Ended, Meddle, Meddler, resume, run, small_config, undisturbed};
use fellrec::config::Config;
use fellrec::federation::round::Outcome;
use fellrec::history::EventKind;
use fellrec::ids::ClientId;
use fellrec_actors::journal::Notice;

const CLIENTS: usize = 12;

fn sampled(rule: &str) -> Config {
    let rule = format!("mixing.rule={rule}");
    small_config(&[
        "clients.assignment=uniform",
        "clients.count=12",
        "federation.participation=0.25",
        "split.stages=[[1,2],[2,3]]",
        "model.layers=4",
        &rule,
    ])
}

/// Who took part, and who follows the mean, round by round.
fn rounds(ended: &Ended) -> Vec<(BTreeSet<ClientId>, BTreeSet<ClientId>)> {
    let round = |event: &fellrec::history::RunEvent| match &event.kind {
        EventKind::RoundCommitted { clients, adopted, .. } => {
            Some((clients.keys().copied().collect(), adopted.clone()))
        }
        _ => None,
    };
    ended.events.iter().filter_map(round).collect()
}

/// Clients whose users rank better than at the start: those whose model has learnt anything.
fn learnt(ended: &Ended) -> usize {
    let test = ended.events.iter().find_map(|event| match &event.kind {
        EventKind::RunFinished { test, .. } => Some(test),
        _ => None,
    });
    let rounds = test.expect("the run has finished").values().map(|result| result.best_round.0);
    rounds.filter(|round| *round > 0).count()
}

#[test]
fn one_model_for_all_reaches_those_who_are_not_asked() {
    let ended = undisturbed(sampled("fedavg"));
    for (asked, adopted) in rounds(&ended) {
        assert_eq!((asked.len(), adopted.len()), (3, CLIENTS - 3));
        assert!(asked.is_disjoint(&adopted));
    }
    let alone = undisturbed(sampled("local"));
    assert!(learnt(&ended) > learnt(&alone), "{} and {}", learnt(&ended), learnt(&alone));
}

#[test]
fn the_mean_survives_a_stop_and_a_resume() {
    for rule in ["fedavg", "fellrec"] {
        let calm = undisturbed(sampled(rule)).trace();
        for steps in [5, 8] {
            let folder = tempfile::tempdir().unwrap();
            let mut seen = 0;
            let stop: Meddler = Box::new(move |_, notice| {
                seen += u32::from(matches!(notice, Notice::Step { .. }));
                if seen == steps { Meddle::Stop } else { Meddle::GoOn }
            });
            let stopped = run(sampled(rule), folder.path(), stop);
            assert_eq!(stopped.outcome, Outcome::Stopped);
            let ended = resume(sampled(rule), folder.path());
            assert_eq!(ended.trace().slices, calm.slices, "{rule}, stopped at step {steps}");
            assert_eq!(ended.trace().metrics.last(), calm.metrics.last());
        }
    }
}
