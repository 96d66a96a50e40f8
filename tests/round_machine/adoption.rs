//! Who goes on from the shared mean (protocol.md 2).

use std::collections::BTreeSet;

use fellrec::federation::round::{Command, Event};
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
