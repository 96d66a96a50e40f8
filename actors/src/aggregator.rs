//! Collects the slices of the open round, mixes them and stages the result with their holders.
//!
//! Decodes, delegates to [`Collection`], encodes. Sees weights, never data or activations.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix::{Actor, Addr, Context, Handler, ResponseFuture};
use fellrec::checkpoint::CheckpointError;
use fellrec::config::ScreeningConfig;
use fellrec::federation::collection::{Collection, CollectionError, MixedSlices};
use fellrec::federation::member::MemberError;
use fellrec::federation::mixing::Mixer;
use fellrec::federation::round::Attempt;
use fellrec::federation::shared::SharedStore;
use fellrec::ids::{ClientId, ShardId};
use fellrec::model::cut::Place;
use fellrec::model::layout::Layout;
use fellrec::model::slice::{Digest, Slice};
use fellrec::told::chain;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;
use tokio::task::JoinSet;
use tracing::{debug, info};

use crate::messages::{
    Crash, FetchMean, MixRound, RoundMixed, ScreenRound, StageBody, StageSlices, StagedReceipts,
    SubmitSlice,
};
use crate::peer::AskError;
use crate::recovery::Obituary;
use crate::registry::{AggregatorAddress, MemberName, Registry};

/// Why a round could not be mixed and staged.
#[derive(Debug, Error)]
pub enum MixRoundError {
    /// Slices missing, an older attempt, or a rule that refused.
    #[error(transparent)]
    Collection(#[from] CollectionError),
    /// The mean of the mixed models could not be written.
    #[error("the shared mean cannot be staged")]
    Shared(#[from] CheckpointError),
    /// A member ended before it staged.
    #[error("{member} could not stage: {reason}")]
    Lost {
        /// Who.
        member: MemberName,
        /// Why.
        reason: String,
    },
    /// A member refused to stage.
    #[error("{member} refused to stage")]
    Refused {
        /// Who.
        member: MemberName,
        /// Why.
        source: MemberError,
    },
    /// Any of these but missing slices at another node, with its causes.
    #[error("{0}")]
    Told(String),
}

/// What of a [`MixRoundError`] crosses between nodes: missing slices, or a text for people.
#[derive(Serialize, Deserialize)]
enum ToldMix {
    Missing(Vec<ClientId>),
    Other(String),
}

impl Serialize for MixRoundError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let told = match self {
            Self::Collection(CollectionError::Missing { clients }) => {
                ToldMix::Missing(clients.clone())
            }
            other => ToldMix::Other(chain(other)),
        };
        told.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for MixRoundError {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match ToldMix::deserialize(deserializer)? {
            ToldMix::Missing(clients) => CollectionError::Missing { clients }.into(),
            ToldMix::Other(text) => Self::Told(text),
        })
    }
}

/// What the aggregator is made of; a factory makes it anew for a restart.
pub struct AggregatorSeat {
    /// What every participant submits.
    pub layout: Arc<Layout>,
    /// Who learns from whom.
    pub mixer: Mixer,
    /// Where the mean of the mixed models rests.
    pub shared: SharedStore,
    /// What updates must satisfy.
    pub screening: ScreeningConfig,
    /// Where members are.
    pub registry: Arc<Registry>,
    /// Reports this actor's end.
    pub obituary: Obituary,
}

/// Actor around the open round's slices. Lives on a compute arbiter because mixing is torch's work.
pub struct Aggregator {
    seat: AggregatorSeat,
    collection: Collection,
    holders: BTreeMap<(ClientId, Place), ShardId>,
}

impl Aggregator {
    /// An actor without slices.
    pub fn new(seat: AggregatorSeat) -> Self {
        let collection = Collection::new(seat.layout.expected_slices());
        Self { seat, collection, holders: BTreeMap::new() }
    }

    fn mix(&mut self, message: &MixRound) -> Result<MixedSlices, CollectionError> {
        let MixRound { attempt, participants, shared } = message;
        let mixer = &self.seat.mixer;
        let mixed = self.collection.mix(*attempt, participants, mixer, shared.is_some())?;
        // The senders keep theirs until the commit: a copy here would only hold memory.
        self.collection.clear();
        Ok(mixed)
    }

    /// Writes the mean of a mix, if it is wanted.
    fn stage_mean(
        &self,
        message: &MixRound,
        mixed: &mut MixedSlices,
    ) -> Result<Option<Digest>, CheckpointError> {
        let (Some(retain), Some(mean)) = (&message.shared, mixed.mean.take()) else {
            return Ok(None);
        };
        self.seat.shared.stage(message.attempt.round.next(), mean, retain).map(Some)
    }
}

impl AggregatorAddress for Addr<Aggregator> {}

impl Actor for Aggregator {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Every client submits at about the same time; senders wait at their permits, not here.
        ctx.set_mailbox_capacity(256);
    }
}

impl Handler<SubmitSlice> for Aggregator {
    type Result = Result<Digest, CollectionError>;

    fn handle(&mut self, message: SubmitSlice, _ctx: &mut Self::Context) -> Self::Result {
        let SubmitSlice { attempt, client, place, holder, slice } = message;
        if let Some(shard) = holder {
            self.holders.insert((client, place), shard);
        }
        let receipt = self.collection.submit(attempt, client, place, slice)?;
        debug!(%client, ?place, round = %attempt.round, "slice submitted");
        Ok(receipt)
    }
}

impl Handler<FetchMean> for Aggregator {
    type Result = Result<BTreeMap<Place, Slice>, MemberError>;

    fn handle(&mut self, message: FetchMean, _ctx: &mut Self::Context) -> Self::Result {
        let FetchMean { round, places } = message;
        let AggregatorSeat { shared, layout, .. } = &self.seat;
        let load = |place: Place| {
            let expected = layout.expected_slice(place);
            Ok((place, shared.load(place, round, &expected)?.slice))
        };
        places.into_iter().map(load).collect()
    }
}

impl Handler<ScreenRound> for Aggregator {
    type Result = Result<BTreeMap<ClientId, String>, CollectionError>;

    fn handle(&mut self, message: ScreenRound, _ctx: &mut Self::Context) -> Self::Result {
        self.collection.screen(message.attempt, &message.participants, &self.seat.screening)
    }
}

impl Handler<MixRound> for Aggregator {
    type Result = ResponseFuture<Result<RoundMixed, MixRoundError>>;

    fn handle(&mut self, message: MixRound, _ctx: &mut Self::Context) -> Self::Result {
        let mixed = self.mix(&message).map_err(MixRoundError::from).and_then(|mut mixed| {
            let shared = self.stage_mean(&message, &mut mixed)?;
            Ok((mixed, shared))
        });
        let stager = Stager {
            attempt: message.attempt,
            holders: self.holders.clone(),
            registry: Arc::clone(&self.seat.registry),
        };
        Box::pin(async move {
            let (MixedSlices { slices, weights, digest, .. }, shared) = mixed?;
            let receipts = stager.stage_all(slices).await?;
            info!(round = %stager.attempt.round, clients = receipts.len(), "mix staged");
            Ok(RoundMixed { weights, digest, receipts, shared })
        })
    }
}

impl Handler<Crash> for Aggregator {
    type Result = ();

    fn handle(&mut self, _message: Crash, _ctx: &mut Self::Context) {
        panic!("the aggregator was told to crash");
    }
}

/// Brings mixed slices to their holders.
#[derive(Clone)]
struct Stager {
    attempt: Attempt,
    holders: BTreeMap<(ClientId, Place), ShardId>,
    registry: Arc<Registry>,
}

impl Stager {
    async fn stage_all(
        &self,
        slices: BTreeMap<ClientId, BTreeMap<Place, Slice>>,
    ) -> Result<BTreeMap<ClientId, StagedReceipts>, MixRoundError> {
        let mut tasks = JoinSet::new();
        for (client, slices) in slices {
            let stager = self.clone();
            tasks.spawn_local(async move { (client, stager.stage(client, slices).await) });
        }
        let mut receipts = BTreeMap::new();
        while let Some(joined) = tasks.join_next().await {
            let (client, staged) = joined.map_err(|error| MixRoundError::Lost {
                member: MemberName::Aggregator,
                reason: error.to_string(),
            })?;
            receipts.insert(client, staged?);
        }
        Ok(receipts)
    }

    async fn stage(
        &self,
        client: ClientId,
        mut slices: BTreeMap<Place, Slice>,
    ) -> Result<StagedReceipts, MixRoundError> {
        let attempt = self.attempt;
        let mut receipts = StagedReceipts::default();
        let body = slices.split_off(&Place::Stage(0));
        let (stages, back): (BTreeMap<_, _>, BTreeMap<_, _>) =
            body.into_iter().partition(|(place, _)| matches!(place, Place::Stage(_)));
        slices.extend(back);
        for (place, slice) in stages {
            let Some(shard) = self.holders.get(&(client, place)).copied() else { continue };
            let name = MemberName::Shard(shard);
            let entry = self.registry.shard(shard).ok_or_else(|| gone(name))?;
            let message = StageBody { client, attempt, slice };
            let digest = answer(name, entry.peers.stage.ask(message).await)?;
            if let Place::Stage(stage) = place {
                receipts.stages.insert(stage, (shard, digest));
            }
        }
        let name = MemberName::Client(client);
        let entry = self.registry.client(client).ok_or_else(|| gone(name))?;
        let message = StageSlices { attempt, slices };
        receipts.client = Some(answer(name, entry.peers.stage.ask(message).await)?);
        Ok(receipts)
    }
}

fn gone(member: MemberName) -> MixRoundError {
    MixRoundError::Lost { member, reason: "it is not in the registry".to_owned() }
}

fn answer(
    member: MemberName,
    answer: Result<Result<Digest, MemberError>, AskError>,
) -> Result<Digest, MixRoundError> {
    match answer {
        Ok(Ok(digest)) => Ok(digest),
        Ok(Err(source)) => Err(MixRoundError::Refused { member, source }),
        Err(error) => Err(MixRoundError::Lost { member, reason: error.to_string() }),
    }
}
