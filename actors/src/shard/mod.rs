//! Holds the server-held layers of one stage and answers one half step at a time.
//!
//! Decodes, delegates to [`BodySession`] and [`Member`], encodes. Knows nothing about rounds beyond
//! what a commit needs.

mod queue;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use actix::{Actor, Addr, AsyncContext, Context, Handler, Response, ResponseFuture};
use fellrec::blueprint::Blueprint;
use fellrec::checkpoint::CheckpointError;
use fellrec::federation::collection::CollectionError;
use fellrec::federation::member::{Member, MemberError, Opening, Purpose};
use fellrec::federation::round::Attempt;
use fellrec::federation::track::Track;
use fellrec::ids::{ClientId, ShardId};
use fellrec::model::cut::Place;
use fellrec::model::slice::Digest;
use fellrec::split::{BodyGradient, BodySession, DecodePool, HiddenStates, SplitError, Stage};
use fellrec::told::chain;
use fellrec::training::Timed;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use queue::{ComputeNext, HalfStepAnswer, Queue};

use crate::folder::RunFolder;
use crate::messages::{
    BackwardBody, CloseLocalRound, CloseSession, CommitBodies, Crash, DecodeBody, EvaluateBody,
    ForwardBody, KeepPersonal, OpenSession, StageBody, StepBody, SubmitSlice,
};
use crate::peer::AskError;
use crate::recovery::Obituary;
use crate::registry::{Registry, ShardAddress};

/// Why a shard could not serve a session.
#[derive(Debug, Error)]
pub enum ShardError {
    /// The client's state could not be loaded.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The trained slice is not here, as after a restart.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// The aggregator ended before its receipt.
    #[error("no receipt for the body slice")]
    Aggregator(#[from] AskError),
    /// The aggregator's restart budget is spent.
    #[error("the aggregator has no restarts left")]
    NoAggregator,
    /// The aggregator refused the slice.
    #[error("the aggregator refused the body slice")]
    Refused(#[from] CollectionError),
    /// What was trained is not there at another node, as after its restart.
    #[error("{0}")]
    ToldNotTrained(String),
    /// Any other of these at another node, with its causes.
    #[error("{0}")]
    Told(String),
}

impl ShardError {
    /// Whether the shard has lost what was trained: it is another life of it that answers.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Member(MemberError::NotTrained { .. }) | Self::ToldNotTrained(_))
    }
}

/// What of a [`ShardError`] crosses between nodes: whom to blame, or a text for people.
#[derive(Serialize, Deserialize)]
enum ToldShard {
    Aggregator(AskError),
    NotTrained(String),
    Other(String),
}

impl Serialize for ShardError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let told = match self {
            Self::Aggregator(error) => ToldShard::Aggregator(error.clone()),
            error if error.is_lost() => ToldShard::NotTrained(chain(error)),
            other => ToldShard::Other(chain(other)),
        };
        told.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ShardError {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match ToldShard::deserialize(deserializer)? {
            ToldShard::Aggregator(error) => Self::Aggregator(error),
            ToldShard::NotTrained(text) => Self::ToldNotTrained(text),
            ToldShard::Other(text) => Self::Told(text),
        })
    }
}

/// What a shard is made of; a factory makes it anew for a restart.
pub struct ShardSeat {
    /// Which replica of which stage.
    pub id: ShardId,
    /// The run's plan.
    pub blueprint: Arc<Blueprint>,
    /// What its sessions compute with.
    pub stage: Stage,
    /// Where states rest.
    pub folder: RunFolder,
    /// Where the aggregator is.
    pub registry: Arc<Registry>,
    /// Reports this actor's end.
    pub obituary: Obituary,
}

/// Actor around one stage's blocks. Lives on a compute arbiter because torch blocks.
pub struct ServerShard {
    seat: ShardSeat,
    desks: BTreeMap<ClientId, Desk>,
    queue: Queue,
    decodings: DecodePool,
}

/// One client's slice here: in a session, or at rest after a local round.
struct Desk {
    member: Member,
    session: Option<(Opening, BodySession)>,
}

impl Desk {
    /// Ends an open local round: what it trained stays here until the commit.
    fn rest(&mut self, attempt: Attempt, place: Place) {
        if let Some((opening, session)) = self.session.take()
            && opening.purpose == Purpose::Training
        {
            let Opening { track, base, .. } = opening;
            self.member.finish(track, attempt, base, [(place, session.close())]);
        }
    }
}

impl ServerShard {
    /// An actor that serves `seat`.
    pub fn new(seat: ShardSeat) -> Self {
        let runtime = &seat.blueprint.config.runtime;
        let decodings = DecodePool::new(runtime.decode_cache_bytes());
        let queue = Queue::new(runtime.clients_at_once.get() as usize);
        Self { seat, desks: BTreeMap::new(), queue, decodings }
    }

    fn place(&self) -> Place {
        self.seat.stage.place
    }

    fn desk(&mut self, client: ClientId) -> &mut Desk {
        let seat = &self.seat;
        self.desks.entry(client).or_insert_with(|| {
            let config = &seat.blueprint.config;
            let store = seat.folder.stage_store(seat.id.stage, client, config);
            let layout = Arc::clone(&seat.blueprint.layout);
            let start = seat.blueprint.start.clone();
            let member =
                Member::new(store, seat.folder.shared_store(config), layout, start, config);
            Desk { member, session: None }
        })
    }

    fn open(&mut self, client: ClientId, opening: Opening) -> Result<(), ShardError> {
        let (place, device) = (self.place(), self.seat.blueprint.shard_device());
        let part = self.desk(client).member.open(place, opening, device)?;
        let session = BodySession::new(&self.seat.stage, client, part);
        self.desk(client).session = Some((opening, session));
        // What an earlier session decoded came from other weights.
        self.decodings.drop_client(client);
        Ok(())
    }

    /// Sees to it that what comes now is computed once the mailbox is empty: as long as anything waits,
    /// [`ComputeNext`] is on its way.
    fn expect_half_step(&self, ctx: &mut Context<Self>) {
        if self.queue.is_empty() {
            ctx.notify(ComputeNext);
        }
    }

    fn session(&mut self, client: ClientId) -> Option<&mut BodySession> {
        self.desks.get_mut(&client)?.session.as_mut().map(|(_, session)| session)
    }
}

/// Measures a computation.
fn timed<T>(run: impl FnOnce() -> Result<T, SplitError>) -> Result<Timed<T>, SplitError> {
    let started = Instant::now();
    let value = run()?;
    Ok(Timed { value, seconds: started.elapsed().as_secs_f64() })
}

impl ShardAddress for Addr<ServerShard> {}

impl Actor for ServerShard {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // A client asks for one thing at a time, so this is one request from each of many clients.
        ctx.set_mailbox_capacity(256);
    }
}

impl Handler<OpenSession> for ServerShard {
    type Result = Result<(), ShardError>;

    fn handle(&mut self, message: OpenSession, _ctx: &mut Self::Context) -> Self::Result {
        self.open(message.client, message.opening)
    }
}

impl Handler<ForwardBody> for ServerShard {
    type Result = Response<HalfStepAnswer<HiddenStates>>;

    fn handle(&mut self, message: ForwardBody, ctx: &mut Self::Context) -> Self::Result {
        let ForwardBody { client, step, hidden } = message;
        self.expect_half_step(ctx);
        self.queue.forward(client, step, hidden)
    }
}

impl Handler<BackwardBody> for ServerShard {
    type Result = Response<HalfStepAnswer<BodyGradient>>;

    fn handle(&mut self, message: BackwardBody, ctx: &mut Self::Context) -> Self::Result {
        let BackwardBody { client, step, grad } = message;
        self.expect_half_step(ctx);
        self.queue.backward(client, step, grad)
    }
}

impl Handler<ComputeNext> for ServerShard {
    type Result = ();

    fn handle(&mut self, _message: ComputeNext, ctx: &mut Self::Context) {
        let sessions = self.desks.iter_mut().filter_map(|(client, desk)| {
            let (_, session) = desk.session.as_mut()?;
            Some((*client, session))
        });
        self.queue.compute(&self.seat.stage, sessions.collect());
        if !self.queue.is_empty() {
            // After the mailbox: what has come meanwhile may be computed with it.
            ctx.notify(ComputeNext);
        }
    }
}

impl Handler<StepBody> for ServerShard {
    type Result = Result<Timed<()>, SplitError>;

    fn handle(&mut self, message: StepBody, _ctx: &mut Self::Context) -> Self::Result {
        let StepBody { client, step, plan } = message;
        let session = self.session(client).ok_or(SplitError::UnknownStep { step })?;
        timed(|| session.step(step, plan))
    }
}

impl Handler<EvaluateBody> for ServerShard {
    type Result = Result<Timed<HiddenStates>, SplitError>;

    fn handle(&mut self, message: EvaluateBody, _ctx: &mut Self::Context) -> Self::Result {
        let EvaluateBody { client, hidden } = message;
        let session = self.session(client).ok_or(SplitError::NoSession { client })?;
        timed(|| session.evaluate(&hidden))
    }
}

impl Handler<DecodeBody> for ServerShard {
    type Result = Result<Option<Timed<HiddenStates>>, SplitError>;

    fn handle(&mut self, message: DecodeBody, _ctx: &mut Self::Context) -> Self::Result {
        let DecodeBody { client, turn, hidden } = message;
        let desk = self.desks.get(&client).and_then(|desk| desk.session.as_ref());
        let (_, session) = desk.ok_or(SplitError::NoSession { client })?;
        let pool = &mut self.decodings;
        let run = |held: &mut _| session.decode(held, &turn, &hidden);
        let Timed { value, seconds } = timed(|| pool.turn(client, run))?;
        Ok(value.map(|value| Timed { value, seconds }))
    }
}

impl Handler<CloseSession> for ServerShard {
    type Result = ();

    fn handle(&mut self, message: CloseSession, _ctx: &mut Self::Context) {
        if let Some(desk) = self.desks.get_mut(&message.client) {
            desk.session = None;
        }
        self.decodings.drop_client(message.client);
    }
}

impl Handler<KeepPersonal> for ServerShard {
    type Result = Result<(), ShardError>;

    fn handle(&mut self, message: KeepPersonal, _ctx: &mut Self::Context) -> Self::Result {
        let KeepPersonal { client, attempt } = message;
        let place = self.place();
        let desk = self.desk(client);
        desk.rest(attempt, place);
        Ok(desk.member.holds(Track::Personal, attempt, place)?)
    }
}

impl Handler<CloseLocalRound> for ServerShard {
    type Result = ResponseFuture<Result<Digest, ShardError>>;

    fn handle(&mut self, message: CloseLocalRound, _ctx: &mut Self::Context) -> Self::Result {
        let CloseLocalRound { client, attempt } = message;
        let (place, id) = (self.place(), self.seat.id);
        let desk = self.desk(client);
        desk.rest(attempt, place);
        let submission = desk.member.submission(attempt, place);
        let aggregator = self.seat.registry.aggregator();
        Box::pin(async move {
            let slice = submission?;
            let aggregator = aggregator.ok_or(ShardError::NoAggregator)?;
            let holder = Some(id);
            let message = SubmitSlice { attempt, client, place, holder, slice };
            Ok(aggregator.peers.submit.ask(message).await??)
        })
    }
}

impl Handler<StageBody> for ServerShard {
    type Result = Result<Digest, MemberError>;

    fn handle(&mut self, message: StageBody, _ctx: &mut Self::Context) -> Self::Result {
        let StageBody { client, attempt, slice } = message;
        let place = self.place();
        self.desk(client).member.stage(attempt, BTreeMap::from([(place, slice)]))
    }
}

impl Handler<CommitBodies> for ServerShard {
    type Result = Result<(), MemberError>;

    fn handle(&mut self, message: CommitBodies, _ctx: &mut Self::Context) -> Self::Result {
        for (client, retain) in &message.retain {
            self.desk(*client).member.commit(retain)?;
        }
        Ok(())
    }
}

impl Handler<Crash> for ServerShard {
    type Result = ();

    fn handle(&mut self, _message: Crash, _ctx: &mut Self::Context) {
        panic!("{} was told to crash", self.seat.id);
    }
}
