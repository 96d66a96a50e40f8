//! Who goes on from the shared mean (protocol.md 2).

use std::collections::BTreeSet;

use fellrec::federation::round::{Command, Event};
use fellrec::ids::{ClientId, Round};

use super::driver::*;

/// Takes one sampled round to its commit: who was asked, who follows the mean, and everyone's state.
fn sampled_round(rule: &str, rounds: usize) -> Vec<(BTreeSet<ClientId>, BTreeSet<ClientId>)> {
    let rule = format!("mixing.rule={rule}");
    let sets = ["federation.participation=0.34", "federation.rounds=9", rule.as_str()];
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
    for (asked, adopted) in sampled_round("fedavg", 4) {
        assert_eq!((asked.len(), adopted), (2, &all - &asked));
    }
}

#[test]
fn under_fellrec_those_follow_the_mean_that_never_had_a_part() {
    let mut newcomers: BTreeSet<ClientId> = clients(6).into_iter().collect();
    for (asked, adopted) in sampled_round("fellrec", 4) {
        newcomers = &newcomers - &asked;
        assert_eq!(adopted, newcomers);
    }
}

#[test]
fn alone_nobody_follows_anybody() {
    assert!(sampled_round("local", 3).iter().all(|(_, adopted)| adopted.is_empty()));
}
