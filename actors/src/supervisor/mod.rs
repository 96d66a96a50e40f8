//! Runs the federation: feeds the round state machine with what members report and carries out
//! what it decides.
//!
//! Holds the machine, the history and the factories; never data, activations or weights.

mod courier;
mod crew;
mod leave;
mod lookout;
mod rounds;

pub use crew::{Crew, Keeper, KeptCommit, Pending};
pub use lookout::{BEAT, Door, Heard, Lookout};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Context, Handler, Recipient};
use fellrec::blueprint::Blueprint;
use fellrec::checkpoint::{CheckpointError, Fingerprint, Receipt, RunStore};
use fellrec::config::HeatingConfig;
use fellrec::federation::round::{Event, FederationState, Outcome, RoundMachine};
use fellrec::history::EventKind;
use fellrec::told::chain;
use thiserror::Error;
use tokio::sync::oneshot;
use tracing::error;

use crate::client::SupervisorPeers;
use crate::folder::RunFolder;
use crate::journal::{Journal, JournalError};
use crate::messages::{LocalRoundEnded, StepDone, StopRun, TuneHeating};
use crate::peer::Peer;
use crate::recovery::MemberEnded;
use crate::registry::{MemberName, Registry};
use courier::Courier;
use leave::Leaving;
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
    /// The right to supervise is not ours, or that is not known.
    #[error("{reason}")]
    Fenced {
        /// Who has it, or why it is not known.
        reason: String,
    },
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
    /// Members here, or the watch over those of other nodes.
    pub crew: Crew,
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
    folder: RunFolder,
    fingerprint: Fingerprint,
    registry: Arc<Registry>,
    crew: Crew,
    machine: RoundMachine,
    receipts: BTreeMap<String, Receipt>,
    run_store: RunStore,
    journal: Journal,
    opening: Option<EventKind>,
    done: Option<oneshot::Sender<Result<Outcome, RunError>>>,
    /// State of the newest manifest; absent before the first.
    committed: Option<FederationState>,
    /// The run did what it was asked to do, and is over.
    complete: bool,
    started: Instant,
    restarts: u32,
    leaving: BTreeMap<MemberName, Leaving>,
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
            folder: seat.folder,
            fingerprint: seat.fingerprint,
            registry: seat.registry,
            crew: seat.crew,
            machine: seat.machine,
            receipts: seat.receipts,
            journal: seat.journal,
            opening: Some(seat.opening),
            done: Some(seat.done),
            committed: None,
            complete: false,
            started: Instant::now(),
            restarts: 0,
            leaving: BTreeMap::new(),
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
        self.complete |= outcome.as_ref().is_ok_and(Outcome::is_complete);
        if let Some(done) = self.done.take() {
            // Nobody waits any more if the process is being torn down.
            let _ = done.send(outcome);
        }
        self.crew.stop();
    }

    fn courier(&self) -> Courier {
        let lost = self.peers.as_ref().expect("set when started").lost.clone();
        Courier { registry: Arc::clone(&self.registry), lost }
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Heartbeats of all clients and the ends of all local rounds may arrive in one burst.
        ctx.set_mailbox_capacity(4096);
        // A member that is missed is waited for before the answer to whoever misses it.
        let deadline = Duration::from_secs(60) + self.blueprint.config.nodes.absence();
        let addr = ctx.address();
        let peers = SupervisorPeers {
            ended: Peer::new(MemberName::Supervisor, addr.clone().recipient(), deadline),
            step_done: Peer::new(MemberName::Supervisor, addr.clone().recipient(), deadline),
            lost: Peer::new(MemberName::Supervisor, addr.clone().recipient(), deadline),
        };
        let ended: Recipient<MemberEnded> = addr.recipient();
        if let Crew::Here(spawner) = &mut self.crew {
            spawner.spawn_all(&ended, &peers);
        }
        self.peers = Some(peers);
        self.ended = Some(ended);
        if let Some(opening) = self.opening.take()
            && let Err(error) = self.record(opening)
        {
            return self.end(Err(error));
        }
        ctx.run_interval(Duration::from_millis(500), |supervisor, ctx| {
            supervisor.give_up_silent(ctx);
            supervisor.apply(Event::Tick, ctx);
        });
        self.start_when_met(ctx);
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
