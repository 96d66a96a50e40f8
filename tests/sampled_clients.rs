//! Many small clients of which a few take part in a round: who is not asked goes on from the shared
//! mean, which is kept once (protocol.md 2).

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use common::federation::{Ended, Meddle, Meddler, resume, run, small_config, undisturbed};
use fellrec::config::Config;
use fellrec::federation::round::Outcome;
use fellrec::history::EventKind;
use fellrec::ids::{ClientId, Round};
use fellrec_actors::folder::{RunFolder, SHARED_PATH, client_path, stage_path};
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

/// A run that was stopped after so many steps of all clients together.
fn stop_after(rule: &str, folder: &Path, steps: u32) -> Ended {
    let mut seen = 0;
    let stop: Meddler = Box::new(move |_, notice| {
        seen += u32::from(matches!(notice, Notice::Step { .. }));
        if seen == steps { Meddle::Stop } else { Meddle::GoOn }
    });
    let stopped = run(sampled(rule), folder, stop);
    assert_eq!(stopped.outcome, Outcome::Stopped);
    stopped
}

#[test]
fn the_mean_survives_a_stop_and_a_resume() {
    for rule in ["fedavg", "fellrec"] {
        let calm = undisturbed(sampled(rule)).trace();
        for steps in [5, 8] {
            let folder = tempfile::tempdir().unwrap();
            stop_after(rule, folder.path(), steps);
            let ended = resume(sampled(rule), folder.path());
            assert_eq!(ended.trace().slices, calm.slices, "{rule}, stopped at step {steps}");
            assert_eq!(ended.trace().metrics.last(), calm.metrics.last());
        }
    }
}

/// Gives a client the states of another one, as if it had staged them itself in an attempt that came
/// to nothing.
fn plant(run: &Path, round: usize, from: ClientId, to: ClientId) {
    let stages = (0..2).flat_map(|stage| [(stage_path(stage, from), stage_path(stage, to))]);
    for (from, to) in stages.chain([(client_path(from), client_path(to))]) {
        let folder = format!("round-{round:06}");
        let (from, to) = (run.join(from).join(&folder), run.join(to).join(&folder));
        std::fs::create_dir_all(&to).expect("writable");
        for file in std::fs::read_dir(&from).expect("the participant has staged") {
            let file = file.expect("readable");
            std::fs::copy(file.path(), to.join(file.file_name())).expect("writable");
        }
    }
}

/// Everyone who follows the mean has a state of its own of that round on disk, front, body and back:
/// nobody takes it.
#[test]
fn a_state_of_ones_own_does_not_stand_in_for_the_mean() {
    for rule in ["fedavg", "fellrec"] {
        let calm = undisturbed(sampled(rule)).trace();
        let folder = tempfile::tempdir().unwrap();
        let committed = rounds(&stop_after(rule, folder.path(), 8));
        let (asked, adopted) = committed.last().expect("a round is committed");
        let staged = *asked.first().expect("somebody took part");
        for client in adopted {
            plant(&folder.path().join("run"), committed.len(), staged, *client);
        }
        let ended = resume(sampled(rule), folder.path());
        assert_eq!(ended.trace().slices, calm.slices, "{rule}");
        assert_eq!(ended.trace().metrics.last(), calm.metrics.last(), "{rule}");
    }
}

/// Rounds of fine-tuning stage no mean: the commit still vouches for the one that somebody follows.
#[test]
fn a_commit_vouches_for_an_older_mean_that_is_followed() {
    let mut config = sampled("fedavg");
    config.mixing.fine_tune_rounds = 1;
    let folder = tempfile::tempdir().unwrap();
    run(config.clone(), folder.path(), Box::new(|_, _| Meddle::GoOn));
    let store = RunFolder::new(folder.path().join("run")).run_store(&config);
    let manifest = store.newest(|_| Ok(())).0.expect("the run has committed");
    assert_eq!((manifest.state.committed, manifest.state.is_followed(Round(2))), (Round(3), true));
    assert_eq!(manifest.members[SHARED_PATH].round, Round(2));
}
