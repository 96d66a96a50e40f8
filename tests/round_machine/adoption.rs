//! Who goes on from the shared mean (protocol.md 2).

use std::collections::BTreeSet;

use fellrec::federation::round::{Best, Command, Event, Source, StateId};
use fellrec::ids::{ClientId, Round};

use super::driver::*;

/// Takes sampled rounds to their commits: who was asked, and who then goes on from the mean.
fn sampled_rounds(sets: &[&str], rounds: usize) -> Vec<(BTreeSet<ClientId>, BTreeSet<ClientId>)> {
    let sets = [&["federation.participation=0.34", "federation.rounds=9"], sets].concat();
    let mut machine = machine(6, &sets);
    let mut event = Event::Start;
    let mut seen = Vec::new();
    for round in 0..rounds {
        let (attempt, asked) = open(&mut machine, event, &[0.1; 6]);
        for client in &asked {
            machine.handle(0, done(attempt, client.0, 1.0));
        }
        let mix = machine.handle(0, screened(attempt, &[]));
        let [Command::Mix { shared, .. }] = &mix[..] else { panic!("got {mix:?}") };
        let commit = machine.handle(0, Event::Staged { attempt });
        let [Command::Commit { state, .. }] = &commit[..] else { panic!("got {commit:?}") };
        let adopted = state.adopted();
        assert_eq!(*shared, !adopted.is_empty(), "the mean is staged when somebody needs it");
        for client in &adopted {
            assert_eq!(state.slices[client], Round(round as u64 + 1));
        }
        assert!(asked.iter().all(|client| !state.following.contains(client)));
        seen.push((asked.into_iter().collect(), adopted));
        event = Event::Committed { attempt };
    }
    seen
}

#[test]
fn under_one_model_for_all_everyone_else_follows_the_mean() {
    let all: BTreeSet<ClientId> = clients(6).into_iter().collect();
    for (asked, adopted) in sampled_rounds(&["mixing.rule=fedavg"], 4) {
        assert_eq!((asked.len(), adopted), (2, &all - &asked));
    }
}

#[test]
fn under_fellrec_those_follow_the_mean_that_never_had_a_part() {
    let mut newcomers: BTreeSet<ClientId> = clients(6).into_iter().collect();
    for (asked, adopted) in sampled_rounds(&["mixing.rule=fellrec"], 4) {
        newcomers = &newcomers - &asked;
        assert_eq!(adopted, newcomers);
    }
}

/// In the rounds of fine-tuning the state stays what the last mix made it.
#[test]
fn fine_tuning_hands_nothing_out() {
    let rounds = sampled_rounds(&["mixing.rule=fedavg", "mixing.fine_tune_rounds=7"], 3);
    let adopted: Vec<usize> = rounds.iter().map(|(_, adopted)| adopted.len()).collect();
    assert_eq!(adopted, [4, 4, 0]);
}

#[test]
fn alone_nobody_follows_anybody() {
    assert!(
        sampled_rounds(&["mixing.rule=local"], 3).iter().all(|(_, adopted)| adopted.is_empty())
    );
}

/// The current state names the mean where a client follows it, and a best one says what it was then.
#[test]
fn a_best_state_remembers_that_it_was_the_mean() {
    let sets = ["mixing.rule=fedavg", "federation.quorum=1", "federation.rounds=3"];
    let mut machine = machine(2, &sets);
    let (first, _) = open(&mut machine, Event::Start, &[0.1, 0.1]);
    machine.handle(0, lost(first, 1));
    commit(&mut machine, first, &[ClientId(0)]);
    let (second, _) = open(&mut machine, Event::Committed { attempt: first }, &[0.3, 0.3]);
    let (own, mean) = (StateId::own(Round(1)), StateId::shared(Round(1)));
    let of_all = |first, second| [(ClientId(0), first), (ClientId(1), second)].into();
    assert_eq!(machine.state().all_current(), of_all(own, mean));
    assert_eq!(machine.state().best_state(ClientId(1)), mean);
    commit(&mut machine, second, &clients(2));
    open(&mut machine, Event::Committed { attempt: second }, &[0.2, 0.2]);
    let newest = StateId::own(Round(2));
    assert_eq!(machine.state().all_current(), of_all(newest, newest));
    let state = machine.state();
    assert_eq!([0, 1].map(|client| state.best_state(ClientId(client))), [own, mean]);
}

/// Manifests of runs without a mean keep their bytes, and those without the field can be read.
#[test]
fn a_best_state_of_ones_own_is_written_as_it_always_was() {
    let best = |source| Best { round: Round(3), source, ndcg: 0.25 };
    let text = r#"{"round":3,"ndcg":0.25}"#;
    assert_eq!(serde_json::to_string(&best(Source::Own)).unwrap(), text);
    assert_eq!(serde_json::from_str::<Best>(text).unwrap(), best(Source::Own));
    let shared = serde_json::to_string(&best(Source::Shared)).unwrap();
    assert_eq!(serde_json::from_str::<Best>(&shared).unwrap(), best(Source::Shared));
}
