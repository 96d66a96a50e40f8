//! Runs the federation: feeds the round state machine with what members report and carries out
//! what it decides.
//!
//! Holds the machine, the history and the factories; never data, activations or weights.

mod courier;
mod rounds;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Recipient, WrapFuture};
use fellrec::blueprint::Blueprint;
use fellrec::checkpoint::{CheckpointError, Fingerprint, Receipt, RunStore};
use fellrec::config::HeatingConfig;
use fellrec::federation::round::{Event, FederationState, Outcome, RoundMachine};
use fellrec::history::EventKind;
use fellrec::ids::ClientId;
use thiserror::Error;
use tokio::sync::oneshot;
use tracing::{error, warn};

pub use courier::chain;

use crate::client::SupervisorPeers;
use crate::folder::RunFolder;
use crate::journal::{Journal, JournalError};
use crate::messages::{LocalRoundEnded, ReportLost, StepDone, StopRun, TuneHeating};
use crate::peer::Peer;
use crate::recovery::{MemberEnded, Spawner};
use crate::registry::{MemberName, Registry};
use courier::Courier;
use rounds::OpenRoundRecord;

/// Cut-off of the metric that chooses a client's best state: validation NDCG@10. Source: ours.
pub const SELECTION_K: u32 = 10;

/// Why a run could not go on; the last commit stands.
#[derive(Debug, Error)]
pub enum RunError {
    /// The history could not be written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A commit could not be written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// What the supervisor is made of.
pub struct SupervisorSeat {
    /// The run's plan.
    pub blueprint: Arc<Blueprint>,
    /// What the run's bits depend on.
    pub fingerprint: Fingerprint,
    /// Where the run is kept.
    pub folder: RunFolder,
    /// Where members are.
    pub registry: Arc<Registry>,
    /// Starts members.
    pub spawner: Spawner,
    /// Decides.
    pub machine: RoundMachine,
    /// Receipts of every member's newest state.
    pub receipts: BTreeMap<String, Receipt>,
    /// Writes the history.
    pub journal: Journal,
    /// Event that opens this process' part of the history.
    pub opening: EventKind,
    /// Told once, at the end.
    pub done: oneshot::Sender<Result<Outcome, RunError>>,
}

/// Actor around the round state machine. Lives on the main thread: it never computes.
pub struct Supervisor {
    blueprint: Arc<Blueprint>,
    fingerprint: Fingerprint,
    registry: Arc<Registry>,
    spawner: Spawner,
    machine: RoundMachine,
    receipts: BTreeMap<String, Receipt>,
    run_store: RunStore,
    journal: Journal,
    opening: Option<EventKind>,
    done: Option<oneshot::Sender<Result<Outcome, RunError>>>,
    /// State of the newest manifest; absent before the first.
    committed: Option<FederationState>,
    started: Instant,
    restarts: u32,
    round: OpenRoundRecord,
    peers: Option<SupervisorPeers>,
    ended: Option<Recipient<MemberEnded>>,
}

impl Supervisor {
    /// An actor that starts everybody once it is started itself.
    pub fn new(seat: SupervisorSeat) -> Self {
        Self {
            run_store: seat.folder.run_store(&seat.blueprint.config),
            blueprint: seat.blueprint,
            fingerprint: seat.fingerprint,
            registry: seat.registry,
            spawner: seat.spawner,
            machine: seat.machine,
            receipts: seat.receipts,
            journal: seat.journal,
            opening: Some(seat.opening),
            done: Some(seat.done),
            committed: None,
            started: Instant::now(),
            restarts: 0,
            round: OpenRoundRecord::default(),
            peers: None,
            ended: None,
        }
    }

    /// Feeds the machine and carries out what it says.
    fn apply(&mut self, event: Event, ctx: &mut Context<Self>) {
        let now_ms = self.started.elapsed().as_millis() as u64;
        for command in self.machine.handle(now_ms, event) {
            if self.done.is_none() {
                return;
            }
            if let Err(error) = self.execute(command, ctx) {
                self.end(Err(error));
            }
        }
    }

    fn record(&mut self, kind: EventKind) -> Result<(), RunError> {
        Ok(self.journal.record(kind)?)
    }

    /// Ends the run once.
    fn end(&mut self, outcome: Result<Outcome, RunError>) {
        if let Err(error) = &outcome {
            error!(error = chain(error), "the run cannot go on");
        }
        if let Some(done) = self.done.take() {
            // Nobody waits any more if the process is being torn down.
            let _ = done.send(outcome);
        }
        self.spawner.stop();
    }

    fn courier(&self) -> Courier {
        let lost = self.peers.as_ref().expect("set when started").lost.clone();
        Courier { registry: Arc::clone(&self.registry), lost }
    }

    /// Starts a successor of a member that has ended, within its budget. `Ok` if somebody serves in
    /// its place, now or already.
    fn revive(&mut self, lost: &ReportLost, ctx: &mut Context<Self>) -> Result<(), String> {
        let ReportLost { member, generation, cause } = lost;
        if self.done.is_none() {
            return Err("the run is over".to_owned());
        }
        match self.registry.generation(*member) {
            Some(current) if current == *generation => {}
            Some(_) => return Ok(()),
            None => return Err(format!("{member} has no restarts left")),
        }
        let budget = u64::from(self.blueprint.config.federation.restart_budget);
        if self.spawner.lives(*member) > budget {
            warn!(%member, %cause, "restart budget spent");
            self.registry.remove(*member);
            if let MemberName::Client(client) = member {
                let reason = format!("{cause}; its restart budget of {budget} is spent");
                let attempt = self.machine.attempt();
                self.apply(Event::ClientLost { attempt, client: *client, reason }, ctx);
            }
            return self.registry.has_substitute(*member);
        }
        warn!(%member, %cause, "starting it again");
        self.restarts += 1;
        let (ended, peers) = (self.ended.clone(), self.peers.clone());
        if let (Some(ended), Some(peers)) = (ended, peers) {
            self.spawner.spawn(*member, &ended, &peers);
        }
        let (member, cause, restarts) = (member.to_string(), cause.clone(), self.restarts);
        if let Err(error) = self.record(EventKind::MemberRestarted { member, cause, restarts }) {
            self.end(Err(error));
        }
        if let MemberName::Client(client) = lost.member
            && self.machine.is_working(client)
        {
            self.open_client(client, ctx);
        }
        Ok(())
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Heartbeats of all clients and the ends of all local rounds may arrive in one burst.
        ctx.set_mailbox_capacity(4096);
        let deadline = Duration::from_secs(60);
        let addr = ctx.address();
        let peers = SupervisorPeers {
            ended: Peer::new(MemberName::Supervisor, addr.clone().recipient(), deadline),
            step_done: Peer::new(MemberName::Supervisor, addr.clone().recipient(), deadline),
            lost: Peer::new(MemberName::Supervisor, addr.clone().recipient(), deadline),
        };
        let ended: Recipient<MemberEnded> = addr.recipient();
        self.spawner.spawn_all(&ended, &peers);
        self.peers = Some(peers);
        self.ended = Some(ended);
        if let Some(opening) = self.opening.take()
            && let Err(error) = self.record(opening)
        {
            return self.end(Err(error));
        }
        ctx.run_interval(Duration::from_millis(500), |supervisor, ctx| {
            supervisor.apply(Event::Tick, ctx);
        });
        self.apply(Event::Start, ctx);
    }
}

impl Handler<StepDone> for Supervisor {
    type Result = ();

    fn handle(&mut self, message: StepDone, ctx: &mut Self::Context) {
        let StepDone { attempt, client, done, of } = message;
        self.journal.step(client, done, of);
        self.apply(Event::Progress { attempt, client }, ctx);
    }
}

impl Handler<LocalRoundEnded> for Supervisor {
    type Result = ();

    fn handle(&mut self, message: LocalRoundEnded, ctx: &mut Self::Context) {
        let LocalRoundEnded { attempt, client, outcome } = message;
        let event = match outcome {
            Ok(finished) => {
                self.round.costs.insert(client, finished.cost);
                Event::LocalRoundDone { attempt, client, report: finished.report }
            }
            Err(reason) => Event::ClientLost { attempt, client, reason },
        };
        self.apply(event, ctx);
    }
}

impl Handler<MemberEnded> for Supervisor {
    type Result = ();

    fn handle(&mut self, message: MemberEnded, ctx: &mut Self::Context) {
        let MemberEnded { member, generation } = message;
        let lost = ReportLost { member, generation, cause: "it ended by a defect".to_owned() };
        if let Err(reason) = self.revive(&lost, ctx) {
            tracing::debug!(%member, reason, "not started again");
        }
    }
}

impl Handler<ReportLost> for Supervisor {
    type Result = Result<(), String>;

    fn handle(&mut self, message: ReportLost, ctx: &mut Self::Context) -> Self::Result {
        self.revive(&message, ctx)
    }
}

impl Handler<StopRun> for Supervisor {
    type Result = ();

    fn handle(&mut self, _message: StopRun, ctx: &mut Self::Context) {
        self.apply(Event::StopRequested, ctx);
    }
}

impl Handler<TuneHeating> for Supervisor {
    type Result = Result<(), String>;

    fn handle(&mut self, message: TuneHeating, _ctx: &mut Self::Context) -> Self::Result {
        let TuneHeating { alpha, beta } = message;
        let state = self.machine.state();
        let (round, heating) =
            (state.committed, HeatingConfig { alpha, beta, ..state.heating.clone() });
        self.machine.set_heating(heating.clone()).map_err(|error| error.to_string())?;
        // The commit under way is written again with the new values: a resumed run has them too.
        let committed = self.committed.clone().unwrap_or_else(|| self.machine.state().clone());
        self.record(EventKind::HeatingChanged { round, heating: heating.clone() })
            .and_then(|()| self.write_manifest(FederationState { heating, ..committed }))
            .map_err(|error| chain(&error))
    }
}

impl Supervisor {
    /// Opens the round under way at one client and waits for its word in the background.
    fn open_client(&mut self, client: ClientId, ctx: &mut Context<Self>) {
        let (attempt, base) = (self.machine.attempt(), self.machine.state().training(client));
        let courier = self.courier();
        let ask = async move { courier.open(client, attempt, base).await };
        ctx.spawn(ask.into_actor(self).map(move |answer, supervisor, ctx| {
            if let Err(reason) = answer {
                supervisor.apply(Event::Refused { attempt, client, reason }, ctx);
            }
        }));
    }
}
