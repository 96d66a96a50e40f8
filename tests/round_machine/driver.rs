//! A machine under test with shorthands for its events.

use std::collections::BTreeMap;

use fellrec::config::{Config, Layers, Loaded};
use fellrec::federation::round::{
    Absence, Adoption, Attempt, Command, Event, FederationState, LocalRoundReport, Outcome,
    RoundMachine, RoundRules,
};
use fellrec::ids::{ClientId, Round};

/// A config with these keys set.
pub fn config(sets: &[&str]) -> Config {
    let sets = sets.iter().map(|set| (*set).to_owned()).collect();
    Loaded::load(&Layers { sets, ..Layers::default() }).expect("the settings are legal").config
}

pub fn rules(config: &Config) -> RoundRules {
    RoundRules {
        adoption: Adoption::of(config),
        tables_stay_from: config.tables_stay_from(),
        federation: config.federation.clone(),
        evaluate_every: config.evaluation.every.get(),
        deterministic: config.runtime.deterministic,
        run_seed: config.run.seed,
    }
}

pub fn clients(count: u32) -> Vec<ClientId> {
    (0..count).map(ClientId).collect()
}

/// A fresh machine for `count` clients.
pub fn machine(count: u32, sets: &[&str]) -> RoundMachine {
    let config = config(sets);
    let state = FederationState::initial(&clients(count), config.heating.clone());
    RoundMachine::new(rules(&config), state)
}

pub fn report(loss: f64) -> LocalRoundReport {
    LocalRoundReport { loss, labels: 10, steps: 2, rows: 5 }
}

pub fn done(attempt: Attempt, client: u32, loss: f64) -> Event {
    Event::LocalRoundDone { attempt, client: ClientId(client), report: report(loss) }
}

pub fn lost(attempt: Attempt, client: u32) -> Event {
    Event::ClientLost { attempt, client: ClientId(client), reason: "gone".to_owned() }
}

pub fn screened(attempt: Attempt, refused: &[u32]) -> Event {
    let refused = refused.iter().map(|client| (ClientId(*client), "odd".to_owned())).collect();
    Event::Screened { attempt, refused }
}

pub fn evaluated(round: u64, ndcg: &[f64]) -> Event {
    let ndcg = ndcg.iter().enumerate().map(|(client, v)| (ClientId(client as u32), Some(*v)));
    Event::Evaluated { round: Round(round), ndcg: ndcg.collect() }
}

/// The clients that the next round is opened for, its evaluation answered with `ndcg`.
pub fn open(machine: &mut RoundMachine, first: Event, ndcg: &[f64]) -> (Attempt, Vec<ClientId>) {
    match &through_evaluation(machine, first, ndcg)[..] {
        [Command::OpenRound { attempt, clients }] => (*attempt, clients.clone()),
        other => panic!("expected a round to be opened, got {other:?}"),
    }
}

/// How the run ends, where it ends.
pub fn finish(machine: &mut RoundMachine, first: Event, ndcg: &[f64]) -> Outcome {
    match &through_evaluation(machine, first, ndcg)[..] {
        [Command::Finish(outcome)] => outcome.clone(),
        other => panic!("expected the run to end, got {other:?}"),
    }
}

pub fn through_evaluation(machine: &mut RoundMachine, event: Event, ndcg: &[f64]) -> Vec<Command> {
    let commands = machine.handle(0, event);
    match commands[..] {
        [Command::Evaluate { round }] => machine.handle(0, evaluated(round.0, ndcg)),
        _ => commands,
    }
}

/// Takes an open round to its commit with everyone of `clients`; returns who was absent.
pub fn commit(
    machine: &mut RoundMachine,
    attempt: Attempt,
    clients: &[ClientId],
) -> (FederationState, BTreeMap<ClientId, Absence>) {
    for client in clients {
        machine.handle(0, done(attempt, client.0, 1.0));
    }
    machine.handle(0, screened(attempt, &[]));
    match machine.handle(0, Event::Staged { attempt }).pop() {
        Some(Command::Commit { state, absent, .. }) => (*state, absent),
        other => panic!("expected a commit, got {other:?}"),
    }
}
