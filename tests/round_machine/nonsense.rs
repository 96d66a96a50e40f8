//! Whatever comes in, in whatever order: no panic, phases in order, no commit without a quorum.

use std::collections::{BTreeMap, BTreeSet};

use fellrec::federation::round::{Attempt, Command, Event, RoundMachine};
use fellrec::ids::{ClientId, Round};
use proptest::prelude::*;

use super::driver::{evaluated, lost, machine, report, screened};

const CLIENTS: u32 = 4;
const QUORUM: usize = 2;
const BUDGET: u32 = 2;

/// An event before it is known which attempt is open.
#[derive(Clone, Debug)]
struct Blank {
    kind: u8,
    client: u32,
    /// Up to 1 the open attempt, above it another one.
    age: u8,
    loss: f64,
    refused: Vec<u32>,
    now_ms: u64,
}

/// Kinds of events, those that move a round forward more often than the others.
fn kind() -> impl Strategy<Value = u8> {
    prop_oneof![6 => 3..=5u8, 8 => prop_oneof![Just(7), Just(8), Just(10), Just(11)], 3 => 0..13u8]
}

fn blank() -> impl Strategy<Value = Blank> {
    let loss = prop_oneof![9 => 0.1..9.0, 1 => Just(f64::NAN), 1 => Just(f64::INFINITY)];
    let refused = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(0..CLIENTS + 2, 1)];
    let age = prop_oneof![4 => Just(0), 1 => 1..5u8];
    (kind(), 0..CLIENTS + 2, age, loss, refused, 0..400_000u64).prop_map(
        |(kind, client, age, loss, refused, now_ms)| Blank {
            kind,
            client,
            age,
            loss,
            refused,
            now_ms,
        },
    )
}

impl Blank {
    fn fill(&self, open: Attempt) -> Event {
        let attempt = match self.age {
            0 | 1 => open,
            2 => Attempt { attempt: open.attempt.wrapping_sub(1), ..open },
            3 => Attempt { attempt: open.attempt + 1, ..open },
            _ => Attempt { round: Round(open.round.0.wrapping_sub(1)), ..open },
        };
        let client = ClientId(self.client);
        match self.kind {
            0 => Event::Start,
            1 => Event::Refused { attempt, client, reason: String::new() },
            2 => Event::Progress { attempt, client },
            3..=5 => Event::LocalRoundDone { attempt, client, report: report(self.loss) },
            6 => lost(attempt, self.client),
            7 => screened(attempt, &self.refused),
            8 => Event::Staged { attempt },
            9 => Event::MixFailed { attempt, reason: String::new() },
            10 => Event::Committed { attempt },
            11 => evaluated(attempt.round.0, &[self.loss; CLIENTS as usize + 2]),
            _ => Event::Tick,
        }
    }
}

/// What an observer knows of a machine.
#[derive(Default)]
struct Observer {
    open: Option<Attempt>,
    asked: BTreeSet<ClientId>,
    reported: BTreeSet<ClientId>,
    refused: BTreeSet<ClientId>,
    /// Position in open, screen, mix, commit.
    phase: u8,
    mixed: BTreeSet<ClientId>,
    finished: bool,
}

impl Observer {
    fn sees(&mut self, event: &Event) {
        match event {
            Event::LocalRoundDone { attempt, client, report }
                if Some(*attempt) == self.open && report.loss.is_finite() =>
            {
                self.reported.insert(*client);
            }
            Event::Screened { attempt, refused }
                if Some(*attempt) == self.open && self.phase == 1 =>
            {
                self.refused.extend(refused.keys());
            }
            _ => {}
        }
    }

    fn checks(&mut self, before: Round, machine: &RoundMachine, command: &Command) {
        assert!(!self.finished, "{command:?} after the end");
        match command {
            Command::OpenRound { attempt, clients } => {
                assert!(attempt.attempt <= BUDGET);
                assert!(self.open.is_none_or(|earlier| earlier < *attempt));
                assert_eq!(*attempt, machine.attempt());
                *self = Self::default();
                self.open = Some(*attempt);
                self.asked = clients.iter().copied().collect();
            }
            Command::Abandon { attempt, .. } => assert_eq!(Some(*attempt), self.open),
            Command::Screen { attempt, participants } => {
                self.advances(*attempt, 0);
                let screened: BTreeSet<ClientId> = participants.iter().copied().collect();
                assert!(screened.is_subset(&self.reported) && screened.is_subset(&self.asked));
            }
            Command::Mix { attempt, participants, .. } => {
                self.advances(*attempt, 1);
                self.mixed = participants.keys().copied().collect();
                assert!(self.mixed.len() >= QUORUM);
                assert!(self.mixed.is_subset(&self.reported));
                assert!(self.mixed.is_disjoint(&self.refused));
                assert!(participants.values().all(|p| (0.0..=1.0).contains(&p.openness)));
            }
            Command::Commit { attempt, state, absent } => {
                self.advances(*attempt, 2);
                assert_eq!(state.committed, before.next());
                let newest = |(client, round): (&ClientId, &Round)| {
                    (*round == state.committed).then_some(*client)
                };
                let moved: BTreeSet<ClientId> = state.slices.iter().filter_map(newest).collect();
                let adopted = state.adopted();
                assert!(adopted.is_disjoint(&self.mixed));
                assert_eq!(moved, &adopted | &self.mixed);
                let others = &self.asked - &self.mixed;
                assert_eq!(absent.keys().copied().collect::<BTreeSet<_>>(), others);
            }
            Command::Evaluate { round } => assert_eq!(*round, machine.state().committed),
            Command::Finish(_) => self.finished = true,
        }
    }

    fn advances(&mut self, attempt: Attempt, phase: u8) {
        assert_eq!(Some(attempt), self.open);
        assert_eq!(self.phase, phase);
        self.phase += 1;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_events_never_break_the_protocol(
        blanks in prop::collection::vec(blank(), 0..300),
        deterministic in any::<bool>(),
    ) {
        let deterministic = format!("runtime.deterministic={deterministic}");
        let quorum = format!("federation.quorum={QUORUM}");
        let budget = format!("federation.reopen_budget={BUDGET}");
        let sets = [deterministic.as_str(), &quorum, &budget, "federation.participation=0.75"];
        let mut machine = machine(CLIENTS, &sets);
        let mut observer = Observer::default();
        let mut commits = BTreeMap::new();
        for blank in blanks {
            let event = blank.fill(machine.attempt());
            let before = machine.state().committed;
            observer.sees(&event);
            for command in machine.handle(blank.now_ms, event) {
                observer.checks(before, &machine, &command);
                if let Command::Commit { state, .. } = command {
                    prop_assert!(commits.insert(state.committed, ()).is_none());
                }
            }
            prop_assert!(machine.state().best_mean.is_none_or(f64::is_finite));
        }
    }
}
