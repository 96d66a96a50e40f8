//! The supervisor: carries out what the round machine commands.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::rc::Rc;
use std::time::Duration;

use fellrec::checkpoint::{RUN_FORMAT, RoundManifest};
use fellrec::federation::round::{
    Absence, Adoption, Attempt, Command, Event, FederationState, Participant, RoundMachine,
    RoundRules, StateId,
};
use fellrec::ids::{ClientId, Round};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::Commit;
use super::aggregator::Setback;
use super::cluster::Cluster;
use super::world::{Receipts, SHARED_FOLDER, is_of};

/// Between two looks at something that is under way.
const POLL: Duration = Duration::from_millis(500);

pub struct Supervisor {
    cluster: Rc<Cluster>,
    machine: RoundMachine,
    started: Instant,
    receipts: Receipts,
    /// Staged and not yet committed.
    staged: Receipts,
    participants: BTreeMap<ClientId, Participant>,
    /// Clients that have not yet answered for the open attempt.
    working: BTreeSet<ClientId>,
    jobs: JoinSet<()>,
}

/// An error with its causes.
pub fn text(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

impl Supervisor {
    /// Goes on from the newest commit that is whole.
    pub fn new(cluster: Rc<Cluster>) -> Self {
        let world = Rc::clone(&cluster.world);
        let config = world.config();
        let (manifest, skipped) = world.newest();
        cluster.log.borrow_mut().skip(skipped);
        let (state, receipts) = match manifest {
            Some(manifest) => (manifest.state, manifest.members),
            None => {
                let state = FederationState::initial(&world.clients(), config.heating.clone());
                (state, Receipts::new())
            }
        };
        let rules = RoundRules {
            adoption: Adoption::of(config),
            tables_stay_from: config.tables_stay_from(),
            federation: config.federation.clone(),
            evaluate_every: config.evaluation.every.get(),
            deterministic: config.runtime.deterministic,
            run_seed: config.run.seed,
        };
        let life = cluster.lives.replace(cluster.lives.get() + 1);
        let machine = RoundMachine::new(rules, state).starting_at(life * Attempt::PER_SUPERVISOR);
        let mut jobs = JoinSet::new();
        let node = cluster.supervisor.clone();
        jobs.spawn_local(async move {
            node.with(|supervisor| supervisor.feed(Event::Start));
            loop {
                sleep(POLL).await;
                node.with(|supervisor| supervisor.feed(Event::Tick));
            }
        });
        let (staged, participants, working) = Default::default();
        let started = Instant::now();
        Self { cluster, machine, started, receipts, staged, participants, working, jobs }
    }

    /// Takes an event in and carries out what follows from it.
    pub fn feed(&mut self, event: Event) {
        if let Event::LocalRoundDone { attempt, client, .. }
        | Event::Refused { attempt, client, .. }
        | Event::ClientLost { attempt, client, .. } = &event
            && *attempt == self.machine.attempt()
        {
            self.working.remove(client);
        }
        let now_ms = self.started.elapsed().as_millis() as u64;
        for command in self.machine.handle(now_ms, event) {
            self.carry_out(command);
        }
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::OpenRound { attempt, clients } => self.open(attempt, clients),
            Command::Abandon { attempt, clients } => {
                for client in clients {
                    self.working.remove(&client);
                    let node = self.cluster.clients[client.0 as usize].clone();
                    self.jobs.spawn_local(async move {
                        node.call(move |client| client.abandon(attempt)).await;
                    });
                }
            }
            Command::Screen { attempt, participants } => {
                self.jobs.spawn_local(screen(Rc::clone(&self.cluster), attempt, participants));
            }
            Command::Mix { attempt, participants, shared } => {
                self.participants = participants.clone();
                let mix = mix(Rc::clone(&self.cluster), attempt, participants, shared);
                self.jobs.spawn_local(mix);
            }
            Command::Commit { attempt, state, absent } => {
                let adopted = state.adopted();
                self.receipts.retain(|name, mean| {
                    let followed = name != SHARED_FOLDER || state.is_followed(mean.round);
                    followed && !adopted.iter().any(|client| is_of(name, *client))
                });
                self.commit(attempt, *state, absent);
            }
            Command::Evaluate { round } => {
                self.cluster.log.borrow_mut().evaluated.push(round);
                let states = self.machine.state().all_current();
                self.jobs.spawn_local(evaluate(Rc::clone(&self.cluster), round, states));
            }
            Command::Finish(outcome) => self.cluster.finish(Ok(outcome), self.machine.state()),
        }
    }

    fn open(&mut self, attempt: Attempt, clients: Vec<ClientId>) {
        self.working = clients.iter().copied().collect();
        for client in &clients {
            let base = self.machine.state().current(*client);
            self.jobs.spawn_local(keep_asking(Rc::clone(&self.cluster), *client, attempt, base));
        }
        self.cluster.log.borrow_mut().opened.push((attempt, clients));
    }

    /// Makes the round durable, then tells the members.
    fn commit(
        &mut self,
        attempt: Attempt,
        state: FederationState,
        absent: BTreeMap<ClientId, Absence>,
    ) {
        self.receipts.append(&mut self.staged);
        if let Err(error) = self.write(&state) {
            return self.cluster.finish(Err(error), self.machine.state());
        }
        self.cluster.log.borrow_mut().commits.push(Commit {
            attempt,
            participants: std::mem::take(&mut self.participants),
            absent,
            heating: state.heating.clone(),
        });
        self.jobs.spawn_local(tell_commit(Rc::clone(&self.cluster), attempt));
    }

    fn write(&self, state: &FederationState) -> Result<(), String> {
        let world = &self.cluster.world;
        let manifest = RoundManifest {
            format: RUN_FORMAT,
            fingerprint: world.blueprint.fingerprint().expect("the config can be hashed"),
            config: world.config().clone(),
            state: state.clone(),
            members: self.receipts.clone(),
            events_bytes: 0,
        };
        let store = world.run_store();
        let written = store.commit(&manifest);
        let kept = written.and_then(|()| store.retain(world.config().checkpoint.keep.get()));
        kept.map_err(|error| text(&error))
    }

    /// Every member knows. An operator's words come in before the next round opens.
    fn committed(&mut self, attempt: Attempt) {
        let (round, scenario) = (attempt.round.next(), self.cluster.scenario.clone());
        if scenario.stop_after == Some(round) {
            self.feed(Event::StopRequested);
        }
        self.feed(Event::Committed { attempt });
        if let Some(heating) = scenario.tuning.get(&round) {
            self.machine.set_heating(heating.clone()).expect("the test's heating is a curve");
            // Written at once: a crash before the next commit must not forget it.
            if let Err(error) = self.write(&self.machine.state().clone()) {
                self.cluster.finish(Err(error), self.machine.state());
            }
        }
    }
}

/// Asks a client to train until it has answered: one that crashed starts anew.
async fn keep_asking(cluster: Rc<Cluster>, client: ClientId, attempt: Attempt, base: StateId) {
    let node = cluster.clients[client.0 as usize].clone();
    let waits = || {
        cluster.supervisor.with(|supervisor| {
            supervisor.machine.attempt() == attempt && supervisor.working.contains(&client)
        })
    };
    while waits() {
        let asked = node.call(move |client| client.open_round(attempt, base)).await;
        if let Err(reason) = asked {
            let refused = Event::Refused { attempt, client, reason };
            return cluster.supervisor.with(|supervisor| supervisor.feed(refused));
        }
        sleep(POLL).await;
    }
}

async fn screen(cluster: Rc<Cluster>, attempt: Attempt, participants: Vec<ClientId>) {
    let event = loop {
        let participants = participants.clone();
        let call = cluster.aggregator.call(move |node| node.screen(attempt, &participants));
        match call.await {
            Ok(refused) => break Event::Screened { attempt, refused },
            Err(setback) => match overcome(&cluster, attempt, setback).await {
                Some(failed) => break failed,
                None => continue,
            },
        }
    };
    cluster.supervisor.with(|supervisor| supervisor.feed(event));
}

async fn mix(
    cluster: Rc<Cluster>,
    attempt: Attempt,
    participants: BTreeMap<ClientId, Participant>,
    shared: bool,
) {
    let event = loop {
        let participants = participants.clone();
        let call = cluster.aggregator.call(move |node| node.mix(attempt, &participants, shared));
        match call.await {
            None => sleep(POLL).await,
            Some(Ok(receipts)) => {
                cluster.supervisor.with(|supervisor| {
                    if supervisor.machine.attempt() == attempt {
                        supervisor.staged = receipts;
                    }
                });
                break Event::Staged { attempt };
            }
            Some(Err(setback)) => match overcome(&cluster, attempt, setback).await {
                Some(failed) => break failed,
                None => continue,
            },
        }
    };
    cluster.supervisor.with(|supervisor| supervisor.feed(event));
}

/// Has lost slices submitted again; returns the event to raise where that is no use.
async fn overcome(cluster: &Rc<Cluster>, attempt: Attempt, setback: Setback) -> Option<Event> {
    let missing = match setback {
        Setback::Failed(reason) => return Some(Event::MixFailed { attempt, reason }),
        Setback::Missing(missing) => missing,
    };
    for client in missing {
        let node = &cluster.clients[client.0 as usize];
        let again = node.call(move |client| client.submit_again(attempt)).await;
        if let Err(error) = again {
            return Some(Event::MixFailed { attempt, reason: text(&error) });
        }
    }
    sleep(POLL).await;
    None
}

/// Tells all members; those with a part in the round are waited for.
async fn tell_commit(cluster: Rc<Cluster>, attempt: Attempt) {
    let retained = cluster.world.run_store().referenced();
    let mut tellings = JoinSet::new();
    for client in cluster.world.clients() {
        let (cluster, retain) = (Rc::clone(&cluster), retained[&client].clone());
        tellings.spawn_local(async move {
            for shard in &cluster.shards {
                let retain = retain.clone();
                shard.call(move |shard| shard.commit(client, &retain)).await;
            }
            let node = &cluster.clients[client.0 as usize];
            node.call(move |client| client.commit(&retain)).await;
        });
    }
    while tellings.join_next().await.is_some() {}
    cluster.supervisor.with(|supervisor| supervisor.committed(attempt));
}

async fn evaluate(cluster: Rc<Cluster>, round: Round, states: BTreeMap<ClientId, StateId>) {
    let mut ndcg = BTreeMap::new();
    for (client, state) in states {
        let node = &cluster.clients[client.0 as usize];
        ndcg.insert(client, Some(node.call(move |client| client.evaluate(state)).await));
    }
    cluster.supervisor.with(|supervisor| supervisor.feed(Event::Evaluated { round, ndcg }));
}
