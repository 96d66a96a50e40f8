//! What the supervisor does at each of the machine's commands.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use fellrec::checkpoint::{CheckpointError, RUN_FORMAT, Receipt, RoundManifest};
use fellrec::cost::ClientCost;
use fellrec::federation::round::{
    Absence, Attempt, Command, Event, FederationState, Outcome, Participant, StateId, TabledState,
};
use fellrec::history::{ClientRound, EventKind};
use fellrec::ids::{ClientId, Round, ShardId};

use super::{KeptCommit, RunError, SELECTION_K, Supervisor};
use crate::folder::{SHARED_PATH, client_path, stage_path};
use crate::memory::peak_memory_bytes;
use crate::messages::RoundMixed;

/// What is known of the open round and goes into the history when it is committed.
#[derive(Debug, Default)]
pub struct OpenRoundRecord {
    /// When it was opened.
    pub opened: Option<Instant>,
    /// Time and traffic of the clients that finished.
    pub costs: BTreeMap<ClientId, ClientCost>,
    /// Clients whose update is mixed.
    pub participants: BTreeMap<ClientId, Participant>,
    /// The staged mix.
    pub mixed: Option<RoundMixed>,
}

impl Supervisor {
    pub(super) fn execute(
        &mut self,
        command: Command,
        ctx: &mut Context<Self>,
    ) -> Result<(), RunError> {
        match command {
            Command::OpenRound { attempt, clients } => self.open_round(attempt, clients, ctx),
            Command::Abandon { attempt, clients } => {
                let clients = clients.into_iter().filter(|client| self.is_here(*client)).collect();
                let courier = self.courier();
                let abandon = async move { courier.abandon(clients, attempt).await };
                ctx.spawn(abandon.into_actor(self));
                Ok(())
            }
            Command::Screen { attempt, participants } => {
                let courier = self.courier();
                let screen = async move { courier.screen(attempt, participants).await };
                ctx.spawn(screen.into_actor(self).map(move |answer, supervisor, ctx| {
                    let event = match answer {
                        Ok(refused) => Event::Screened { attempt, refused },
                        Err(reason) => Event::MixFailed { attempt, reason },
                    };
                    supervisor.apply(event, ctx);
                }));
                Ok(())
            }
            Command::Mix { attempt, participants, shared } => {
                self.mix(attempt, participants, shared, ctx);
                Ok(())
            }
            Command::Commit { attempt, state, absent } => {
                let Some(keeper) = self.keeper() else {
                    return self.commit(attempt, *state, absent, ctx);
                };
                ctx.spawn(keeper.hold().into_actor(self).map(move |held, supervisor, ctx| {
                    let committed = match held {
                        Ok(()) => supervisor.commit(attempt, *state, absent, ctx),
                        Err(reason) => Err(RunError::Fenced { reason }),
                    };
                    if let Err(error) = committed {
                        supervisor.end(Err(error));
                    }
                }));
                Ok(())
            }
            Command::Evaluate { round } => {
                self.evaluate(round, ctx);
                Ok(())
            }
            Command::Finish(outcome) => self.finish(outcome, ctx),
        }
    }

    fn open_round(
        &mut self,
        attempt: Attempt,
        clients: Vec<ClientId>,
        ctx: &mut Context<Self>,
    ) -> Result<(), RunError> {
        self.round = OpenRoundRecord { opened: Some(Instant::now()), ..Default::default() };
        let asked = clients.iter().copied().collect();
        self.record(EventKind::RoundOpened { attempt, clients: asked })?;
        for client in clients {
            self.open_client(client, ctx);
        }
        Ok(())
    }

    fn mix(
        &mut self,
        attempt: Attempt,
        participants: BTreeMap<ClientId, Participant>,
        shared: bool,
        ctx: &mut Context<Self>,
    ) {
        self.round.participants = participants.clone();
        let courier = self.courier();
        let kept = || self.run_store.referenced().into_values().flatten().collect();
        let shared = shared.then(kept);
        let mix = async move { courier.mix(attempt, participants, shared).await };
        ctx.spawn(mix.into_actor(self).map(move |answer, supervisor, ctx| {
            let event = match answer {
                Ok(mixed) => {
                    supervisor.round.mixed = Some(mixed);
                    Event::Staged { attempt }
                }
                Err(reason) => Event::MixFailed { attempt, reason },
            };
            supervisor.apply(event, ctx);
        }));
    }

    /// The commit point is the manifest: before it the round never was, after it the round is.
    fn commit(
        &mut self,
        attempt: Attempt,
        state: FederationState,
        absent: BTreeMap<ClientId, Absence>,
        ctx: &mut Context<Self>,
    ) -> Result<(), RunError> {
        let record = std::mem::take(&mut self.round);
        let mixed = record.mixed.expect("a round is staged before it is committed");
        let (stagers, receipts) = receipts(&mixed, state.committed);
        // A mean stays vouched for as long as somebody follows it, as in rounds that stage none.
        self.receipts.retain(|path, mean| path != SHARED_PATH || state.is_followed(mean.round));
        self.receipts.extend(receipts);
        let adopted = state.adopted();
        for client in &adopted {
            self.receipts.remove(&client_path(*client));
            for stage in 0..self.blueprint.layout.cut.stages().len() as u32 {
                self.receipts.remove(&stage_path(stage, *client));
            }
        }
        let client_round = |(client, participant): (ClientId, Participant)| {
            let cost = record.costs.get(&client).copied().unwrap_or_default();
            let Participant { openness, report } = participant;
            (client, ClientRound { report, openness, cost })
        };
        self.record(EventKind::RoundCommitted {
            attempt,
            seconds: record.opened.map_or(0.0, |opened| opened.elapsed().as_secs_f64()),
            clients: record.participants.into_iter().map(client_round).collect(),
            absent,
            adopted,
            mixing: if mixed.receipts.len() > RECORDED_SIMILARITIES {
                mixed.weights.without_similarity()
            } else {
                mixed.weights
            },
            slices: mixed.digest,
            peak_memory_bytes: peak_memory_bytes(),
        })?;
        // Who is not here finds the commit in the manifest when it comes.
        let here = state.slices.keys().copied().filter(|client| self.is_here(*client));
        let clients: Vec<ClientId> = here.collect();
        self.write_manifest(state)?;
        self.run_store.retain(self.blueprint.config.checkpoint.keep.get())?;
        let referenced = self.run_store.referenced();
        let retained =
            |client: &ClientId| (*client, referenced.get(client).cloned().unwrap_or_default());
        let clients = clients.iter().map(retained).collect();
        let mut bodies: BTreeMap<ShardId, BTreeMap<ClientId, BTreeSet<Round>>> = BTreeMap::new();
        for (shard, client) in stagers {
            let (client, rounds) = retained(&client);
            bodies.entry(shard).or_default().insert(client, rounds);
        }
        let kept = self.keeper().map(|keeper| Ok::<_, RunError>(keeper.keep(self.kept()?)));
        let (courier, kept) = (self.courier(), kept.transpose()?);
        let commit = async move {
            // Before anybody drops a state that an older commit needs.
            if let Some(kept) = kept {
                kept.await;
            }
            courier.commit(clients, bodies).await;
        };
        ctx.spawn(commit.into_actor(self).map(move |(), supervisor, ctx| {
            supervisor.apply(Event::Committed { attempt }, ctx);
        }));
        Ok(())
    }

    /// The last commit as another supervisor needs it.
    fn kept(&self) -> Result<KeptCommit, RunError> {
        let round = self.committed.as_ref().map(|state| state.committed).unwrap_or_default();
        let path = self.folder.events();
        let events = std::fs::read_to_string(&path)
            .map_err(|source| CheckpointError::Io { path, source })?;
        let path = self.folder.config();
        let config = std::fs::read_to_string(&path)
            .map_err(|source| CheckpointError::Io { path, source })?;
        Ok(KeptCommit { round, config, manifest: self.run_store.text(round)?, events })
    }

    /// Makes a state durable; the one before stays until it is retained no longer.
    pub(super) fn write_manifest(&mut self, state: FederationState) -> Result<(), RunError> {
        let manifest = RoundManifest {
            format: RUN_FORMAT,
            fingerprint: self.fingerprint.clone(),
            config: self.blueprint.config.clone(),
            members: self.receipts.clone(),
            events_bytes: self.journal.sync()?,
            state,
        };
        self.run_store.commit(&manifest)?;
        self.committed = Some(manifest.state);
        Ok(())
    }

    /// A state of every client that can be asked, as it ranks.
    fn ranked(
        &self,
        of: impl Fn(&FederationState, ClientId) -> StateId,
    ) -> BTreeMap<ClientId, TabledState> {
        let state = self.machine.state();
        let ranked = |client: &ClientId| (*client, state.ranked(*client, of(state, *client)));
        let here = state.slices.keys().filter(|client| self.is_here(**client));
        here.map(ranked).collect()
    }

    fn evaluate(&mut self, round: Round, ctx: &mut Context<Self>) {
        let (courier, states) = (self.courier(), self.ranked(FederationState::current));
        let started = Instant::now();
        let evaluate = async move { courier.evaluate(states).await };
        ctx.spawn(evaluate.into_actor(self).map(move |answers, supervisor, ctx| {
            let ndcg = answers.iter().map(|(client, metrics)| {
                (*client, metrics.as_ref().and_then(|m| m.ndcg.get(&SELECTION_K)).copied())
            });
            let event = Event::Evaluated { round, ndcg: ndcg.collect() };
            let measured = answers.into_iter().filter_map(|(client, m)| Some((client, m?)));
            let kind = EventKind::RoundEvaluated {
                round,
                clients: measured.collect(),
                seconds: started.elapsed().as_secs_f64(),
            };
            match supervisor.record(kind) {
                Ok(()) => supervisor.apply(event, ctx),
                Err(error) => supervisor.end(Err(error)),
            }
        }));
    }

    /// A complete run ends with the test of every client's best state; a stopped one just ends.
    fn finish(&mut self, outcome: Outcome, ctx: &mut Context<Self>) -> Result<(), RunError> {
        if !outcome.is_complete() {
            return self.close(outcome, BTreeMap::new());
        }
        let (courier, best) = (self.courier(), self.ranked(FederationState::best_state));
        let test = async move { courier.test(best).await };
        ctx.spawn(test.into_actor(self).map(move |answers, supervisor, _ctx| {
            let test = answers.into_iter().filter_map(|(client, result)| Some((client, result?)));
            if let Err(error) = supervisor.close(outcome, test.collect()) {
                supervisor.end(Err(error));
            }
        }));
        Ok(())
    }

    fn close(
        &mut self,
        outcome: Outcome,
        test: BTreeMap<ClientId, fellrec::history::TestResult>,
    ) -> Result<(), RunError> {
        let seconds = self.started.elapsed().as_secs_f64();
        self.record(EventKind::RunFinished { outcome: outcome.clone(), test, seconds })?;
        self.journal.sync()?;
        self.end(Ok(outcome));
        Ok(())
    }
}

/// Clients up to which the similarities are recorded beside the weights: at 1,000 clients each matrix
/// takes 20 MB of text a round.
const RECORDED_SIMILARITIES: usize = 100;

/// Who staged which client's body, and the receipts by the members' paths.
fn receipts(
    mixed: &RoundMixed,
    round: Round,
) -> (Vec<(ShardId, ClientId)>, BTreeMap<String, Receipt>) {
    let (mut stagers, mut receipts) = (Vec::new(), BTreeMap::new());
    if let Some(digest) = &mixed.shared {
        receipts.insert(SHARED_PATH.to_owned(), Receipt { round, digest: digest.clone() });
    }
    for (client, staged) in &mixed.receipts {
        if let Some(digest) = &staged.client {
            receipts.insert(client_path(*client), Receipt { round, digest: digest.clone() });
        }
        for (stage, (shard, digest)) in &staged.stages {
            stagers.push((*shard, *client));
            let path = stage_path(*stage as u32, *client);
            receipts.insert(path, Receipt { round, digest: digest.clone() });
        }
    }
    (stagers, receipts)
}
