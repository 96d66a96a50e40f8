//! Members and their ends: started again here, or waited for where others start them.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use actix::{ActorFutureExt, AsyncContext, Context, Handler, ResponseActFuture, WrapFuture, fut};
use fellrec::federation::round::Event;
use fellrec::history::EventKind;
use fellrec::ids::{ClientId, Round, ShardId};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::{info, warn};

use super::lookout::{Heard, Joined, Lookout};
use super::{RunError, Supervisor};
use crate::messages::{AskStatus, Beat, ReportLost, RunStatus};
use crate::recovery::{MemberEnded, Spawner};
use crate::registry::MemberName;

/// Work that takes time and ends on this thread.
pub type Pending<T> = Pin<Box<dyn Future<Output = T>>>;

/// Keeps the right to supervise, and the last commit for whoever takes the supervisor's place.
pub trait Keeper {
    /// Makes sure that the right is still ours; `Err` says who has it, or why that is not known.
    fn hold(&self) -> Pending<Result<(), String>>;
    /// Comes when the right is lost, with the reason.
    fn lost(&self) -> Pending<String>;
    /// Keeps a commit, as far as there is room.
    fn keep(&self, commit: KeptCommit) -> Pending<()>;
}

/// All that another supervisor needs to go on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeptCommit {
    /// The commit.
    pub round: Round,
    /// The resolved config.
    pub config: String,
    /// The manifest.
    pub manifest: String,
    /// The history up to it.
    pub events: String,
}

/// Who keeps members alive.
pub enum Crew {
    /// This process: it starts them.
    Here(Box<Spawner>),
    /// Other nodes: whether they are alive is told by their heartbeats.
    Apart {
        /// Who is here.
        lookout: Arc<Lookout>,
        /// Replicas of each stage.
        replicas: u32,
        /// What makes this supervisor the only one.
        keeper: Rc<dyn Keeper>,
    },
}

impl Crew {
    /// Ends what this process started.
    pub fn stop(&self) {
        if let Crew::Here(spawner) = self {
            spawner.stop();
        }
    }
}

impl Supervisor {
    /// Begins when everybody is here, or has been waited for.
    pub(super) fn start_when_met(&mut self, ctx: &mut Context<Self>) {
        let Crew::Apart { lookout, replicas, keeper } = &self.crew else {
            return self.apply(Event::Start, ctx);
        };
        let lost = keeper.lost();
        let (lookout, replicas) = (Arc::clone(lookout), *replicas);
        ctx.spawn(lost.into_actor(self).map(|reason, supervisor, _ctx| {
            supervisor.end(Err(RunError::Fenced { reason }));
        }));
        let stages = self.blueprint.layout.cut.stages().len() as u32;
        let shards = (0..stages)
            .flat_map(move |stage| (0..replicas).map(move |replica| ShardId { stage, replica }));
        let clients = self.blueprint.clients().into_iter().map(MemberName::Client);
        let expected: Vec<MemberName> = std::iter::once(MemberName::Aggregator)
            .chain(shards.map(MemberName::Shard))
            .chain(clients)
            .collect();
        info!(members = expected.len(), "waiting for the members");
        let met = async move { lookout.wait_for_all(&expected).await };
        ctx.spawn(met.into_actor(self).map(|absent, supervisor, ctx| {
            for member in absent {
                warn!(%member, "absent at the start");
            }
            supervisor.apply(Event::Start, ctx);
        }));
    }

    /// What keeps commits elsewhere, too, where there is such a place.
    pub(super) fn keeper(&self) -> Option<Rc<dyn Keeper>> {
        match &self.crew {
            Crew::Here(_) => None,
            Crew::Apart { keeper, .. } => Some(Rc::clone(keeper)),
        }
    }

    /// Whether a client can be asked: those of other nodes only while their heartbeats come.
    pub(super) fn is_here(&self, client: ClientId) -> bool {
        match &self.crew {
            Crew::Here(_) => true,
            Crew::Apart { lookout, .. } => lookout.is_here(MemberName::Client(client)),
        }
    }

    /// Goes on without members of other nodes that have been silent for too long.
    pub(super) fn give_up_silent(&mut self, ctx: &mut Context<Self>) {
        let Crew::Apart { lookout, .. } = &self.crew else { return };
        for member in lookout.silent() {
            warn!(%member, "silent for too long");
            if let MemberName::Client(client) = member {
                let reason = "no heartbeat within nodes.absence_secs".to_owned();
                let attempt = self.machine.attempt();
                self.apply(Event::ClientLost { attempt, client, reason }, ctx);
            }
        }
    }

    /// Somebody of another node was started again: the round under way has to be opened anew for it.
    fn joined(&mut self, member: MemberName, joined: Joined, ctx: &mut Context<Self>) {
        info!(%member, again = joined.again, "joined");
        if !joined.again {
            return;
        }
        let cause = "its node was started again".to_owned();
        self.note_restart(member, cause, ctx);
    }

    /// Writes a restart into the history, and opens the round under way at a client that lost it.
    fn note_restart(&mut self, member: MemberName, cause: String, ctx: &mut Context<Self>) {
        self.restarts += 1;
        let kind = EventKind::MemberRestarted {
            member: member.to_string(),
            cause,
            restarts: self.restarts,
        };
        if let Err(error) = self.record(kind) {
            self.end(Err(error));
        }
        if let MemberName::Client(client) = member
            && self.machine.is_working(client)
        {
            self.open_client(client, ctx);
        }
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
        let Crew::Here(spawner) = &mut self.crew else {
            return Err("members of other nodes are not started from here".to_owned());
        };
        let budget = u64::from(self.blueprint.config.federation.restart_budget);
        if spawner.lives(*member) > budget {
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
        if let (Some(ended), Some(peers)) = (&self.ended, &self.peers) {
            spawner.spawn(*member, ended, peers);
        }
        self.note_restart(*member, cause.clone(), ctx);
        Ok(())
    }

    /// Opens the round under way at one client and waits for its word in the background.
    pub(super) fn open_client(&mut self, client: ClientId, ctx: &mut Context<Self>) {
        let (attempt, base) = (self.machine.attempt(), self.machine.state().training(client));
        let reason = match MemberName::Client(client) {
            member if self.is_leaving(member) => Some("an operator sent it away"),
            _ if !self.is_here(client) => Some("its node is not running"),
            _ => None,
        };
        if let Some(reason) = reason {
            let reason = reason.to_owned();
            return self.apply(Event::Refused { attempt, client, reason }, ctx);
        }
        let courier = self.courier();
        let ask = async move { courier.open(client, attempt, base).await };
        ctx.spawn(ask.into_actor(self).map(move |answer, supervisor, ctx| {
            if let Err(reason) = answer {
                supervisor.apply(Event::Refused { attempt, client, reason }, ctx);
            }
        }));
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
    type Result = ResponseActFuture<Self, Result<(), String>>;

    fn handle(&mut self, message: ReportLost, ctx: &mut Self::Context) -> Self::Result {
        let Crew::Apart { lookout, .. } = &self.crew else {
            return Box::pin(fut::ready(self.revive(&message, ctx)));
        };
        if self.done.is_none() {
            return Box::pin(fut::ready(Err("the run is over".to_owned())));
        }
        let (lookout, since) = (Arc::clone(lookout), Instant::now());
        warn!(member = %message.member, cause = message.cause, "missed");
        let back = async move { lookout.wait_for(message.member, since).await };
        Box::pin(back.into_actor(self))
    }
}

impl Handler<AskStatus> for Supervisor {
    type Result = RunStatus;

    fn handle(&mut self, _message: AskStatus, _ctx: &mut Self::Context) -> Self::Result {
        let heard = match &self.crew {
            Crew::Here(_) => BTreeMap::new(),
            Crew::Apart { lookout, .. } => lookout.present(),
        };
        let heard = heard.into_iter().map(|(name, ago)| (name.to_string(), ago.as_secs_f64()));
        let clients = self.blueprint.clients().into_iter();
        RunStatus {
            committed: self.machine.state().committed,
            rounds: self.blueprint.config.federation.rounds,
            phase: self.machine.phase().to_owned(),
            working: clients.filter(|client| self.machine.is_working(*client)).collect(),
            heard_secs: heard.collect(),
            leaving: self.leaving.keys().map(MemberName::to_string).collect(),
            restarts: self.restarts,
        }
    }
}

impl Handler<Beat> for Supervisor {
    type Result = Heard;

    fn handle(&mut self, message: Beat, ctx: &mut Self::Context) -> Self::Result {
        let Beat { member, life, door } = message;
        let Crew::Apart { lookout, .. } = &self.crew else { return Heard::Over };
        let lookout = Arc::clone(lookout);
        if self.complete {
            lookout.forget(member);
            return Heard::Over;
        }
        let (heard, joined) = lookout.hear(member, life, door.as_ref());
        if let Some(joined) = joined {
            self.joined(member, joined, ctx);
        }
        if heard == Heard::Welcome {
            return self.farewell(member, life, &lookout).unwrap_or(heard);
        }
        heard
    }
}
