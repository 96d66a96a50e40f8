//! A client's data and states; local rounds are in `train`, evaluations in `rank`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fellrec::blueprint::Blueprint;
use fellrec::checkpoint::CheckpointError;
use fellrec::data::ClientData;
use fellrec::federation::collection::CollectionError;
use fellrec::federation::member::{Member, MemberError, Opening};
use fellrec::federation::round::Attempt;
use fellrec::ids::{ClientId, Round, ShardId};
use fellrec::model::backbone::Backbone;
use fellrec::model::cut::Place;
use fellrec::model::pretrained::PretrainedError;
use fellrec::model::rope::RopeTable;
use fellrec::model::slice::{Digest, Slice, SliceFileError};
use fellrec::model::spec::BaseWeights;
use fellrec::split::{ClientModel, ClientSettings};
use fellrec::told::chain;
use fellrec::training::{Examples, ItemTable};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;
use tokio::sync::Semaphore;

use super::link::{Line, LinkError, ShardLink, lost};
use super::ranks::RanksError;
use super::tables::Tables;
use crate::folder::RunFolder;
use crate::messages::{LocalRoundEnded, OpenSession, ReportLost, StepDone};
use crate::peer::{AskError, Peer};
use crate::recovery::Obituary;
use crate::registry::{Entry, FindShard, MemberName, Registry, ShardPeers};
use crate::shard::ShardError;

/// Why a client could not do what it was asked.
#[derive(Debug, Error)]
pub enum ClientError {
    /// A newer attempt was opened: this one is of a supervisor that was replaced, or late.
    #[error("attempt {got:?} is over, the client is at {newest:?}")]
    Stale {
        /// Attempt of the message.
        got: Attempt,
        /// Attempt that is open.
        newest: Attempt,
    },
    /// The client is ending.
    #[error("the client is ending")]
    Ended,
    /// A state could not be loaded.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The trained state is not here.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// A half step failed.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A shard could not serve the session.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// The aggregator refused a slice.
    #[error(transparent)]
    Refused(#[from] CollectionError),
    /// The base model could not be read.
    #[error(transparent)]
    Pretrained(Box<PretrainedError>),
    /// The embeddings of the catalogue could not be kept.
    #[error("failed to keep the embeddings of the catalogue")]
    Embeddings(#[from] SliceFileError),
    /// The ranks of its users could not be kept.
    #[error(transparent)]
    Ranks(#[from] RanksError),
    /// A dead member could not be replaced.
    #[error("{member} cannot be replaced: {reason}")]
    NotReplaced {
        /// Who.
        member: MemberName,
        /// Why.
        reason: String,
    },
    /// Any of these at another node, with its causes.
    #[error("{0}")]
    Told(String),
}

impl Serialize for ClientError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        chain(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ClientError {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::Told)
    }
}

impl From<PretrainedError> for ClientError {
    fn from(error: PretrainedError) -> Self {
        Self::Pretrained(Box::new(error))
    }
}

/// Addresses at the supervisor that a client needs.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "each field carries the message its type names")]
pub struct SupervisorPeers {
    pub ended: Peer<LocalRoundEnded>,
    pub step_done: Peer<StepDone>,
    pub lost: Peer<ReportLost>,
}

/// Times that a job begins anew before it is given up: whom it loses each time does not stay up.
const MOST_LOSSES: usize = 8;

/// What a client is made of; a factory makes it anew for a restart.
pub struct ClientSeat {
    /// Who it is.
    pub id: ClientId,
    /// The run's plan.
    pub blueprint: Arc<Blueprint>,
    /// Frozen weights of front and back, shared storage.
    pub base: BaseWeights,
    /// Rotary tables, shared storage.
    pub rope: RopeTable,
    /// Ends of the model, shared storage.
    pub backbone: Box<dyn Backbone>,
    /// Replica that serves this client as long as it lives; then the next one of the pool does.
    pub replica: u32,
    /// Replicas of each stage.
    pub replicas: u32,
    /// Finds replicas where they run on other nodes; `replica` says nothing then.
    pub finder: Option<Arc<dyn FindShard>>,
    /// Right to compute a step on this client's thread.
    pub permits: Arc<Semaphore>,
    /// Where states rest.
    pub folder: RunFolder,
    /// Where the others are.
    pub registry: Arc<Registry>,
    /// Where reports go.
    pub supervisor: SupervisorPeers,
    /// Reports this actor's end.
    pub obituary: Obituary,
}

/// A client's data and states between jobs.
pub struct Desk {
    pub(super) seat: ClientSeat,
    pub(super) examples: Box<dyn Examples>,
    pub(super) data: Option<Arc<ClientData>>,
    pub(super) member: Member,
    /// How item tables are encoded, where there are any.
    pub(super) item_table: Option<Arc<ItemTable>>,
    pub(super) tables: Tables,
    /// The shards that hold what was trained last.
    pub(super) holders: Vec<Arc<Entry<ShardPeers>>>,
}

impl Desk {
    pub(super) fn new(seat: ClientSeat) -> Self {
        let config = &seat.blueprint.config;
        let store = seat.folder.client_store(seat.id, config);
        let (layout, start) = (Arc::clone(&seat.blueprint.layout), seat.blueprint.start.clone());
        let member = Member::new(store, seat.folder.shared_store(config), layout, start, config);
        let (examples, data) =
            (seat.blueprint.examples(seat.id), seat.blueprint.client_data(seat.id));
        let item_table = seat.blueprint.item_table().map(Arc::new);
        Self {
            seat,
            examples,
            data,
            member,
            item_table,
            tables: Tables::default(),
            holders: Vec::new(),
        }
    }

    pub(super) fn supervisor(&self) -> SupervisorPeers {
        self.seat.supervisor.clone()
    }

    pub(super) fn abandon(&mut self, attempt: Attempt) {
        self.member.abandon(attempt);
    }

    pub(super) fn stage(
        &self,
        attempt: Attempt,
        slices: BTreeMap<Place, Slice>,
    ) -> Result<Digest, MemberError> {
        self.member.stage(attempt, slices)
    }

    pub(super) fn commit(&mut self, retain: &BTreeSet<Round>) -> Result<(), MemberError> {
        self.member.commit(retain)
    }

    /// Asks the supervisor for a successor of the member an error blames; any other error is returned, and
    /// so is one too many.
    pub(super) async fn replace_lost(
        &self,
        error: ClientError,
        losses: &mut usize,
    ) -> Result<(), ClientError> {
        *losses += 1;
        let ClientError::Link(LinkError::Lost { member, generation, cause }) = error else {
            return Err(error);
        };
        if *losses == MOST_LOSSES {
            let reason = format!("it was lost {losses} times in one job, at last: {cause}");
            return Err(ClientError::NotReplaced { member, reason });
        }
        let message = ReportLost { member, generation, cause };
        let failed = |reason| ClientError::NotReplaced { member, reason };
        let answer: Result<Result<(), String>, AskError> =
            self.seat.supervisor.lost.ask(message).await;
        answer.map_err(|error| failed(error.to_string()))?.map_err(failed)
    }

    pub(super) fn model(&self, opening: Opening) -> Result<ClientModel, ClientError> {
        let blueprint = &self.seat.blueprint;
        let device = blueprint.client_device();
        let front = self.member.open(Place::Front, opening, device)?;
        let back = self.member.open(Place::Back, opening, device)?;
        Ok(ClientModel::new(
            self.seat.backbone.share(),
            &blueprint.layout,
            self.seat.base.share(),
            &self.seat.rope,
            ClientSettings::of(&blueprint.config),
            front,
            back,
        ))
    }

    /// A replica of every stage that serves this client from now on.
    pub(super) async fn shards(&self) -> Result<Vec<Arc<Entry<ShardPeers>>>, ClientError> {
        let mut shards = Vec::new();
        for stage in 0..self.seat.blueprint.layout.cut.stages().len() as u32 {
            shards.push(match &self.seat.finder {
                None => self.shard_here(stage)?,
                Some(finder) => self.shard_apart(stage, finder.find(stage).await)?,
            });
        }
        Ok(shards)
    }

    fn shard_here(&self, stage: u32) -> Result<Arc<Entry<ShardPeers>>, ClientError> {
        let (preferred, pool) = (self.seat.replica, self.seat.replicas);
        let alive = |offset| {
            let replica = (preferred + offset) % pool;
            self.seat.registry.shard(ShardId { stage, replica })
        };
        let member = MemberName::Shard(ShardId { stage, replica: preferred });
        let reason = "no replica of its stage is left".to_owned();
        (0..pool).find_map(alive).ok_or(ClientError::NotReplaced { member, reason })
    }

    fn shard_apart(
        &self,
        stage: u32,
        found: Result<ShardId, String>,
    ) -> Result<Arc<Entry<ShardPeers>>, ClientError> {
        let shard = found.map_err(|cause| {
            let member = MemberName::Shard(ShardId { stage, replica: 0 });
            LinkError::Lost { member, generation: 0, cause }
        })?;
        let (member, reason) = (MemberName::Shard(shard), "the run has no such shard".to_owned());
        self.seat.registry.shard(shard).ok_or(ClientError::NotReplaced { member, reason })
    }

    pub(super) async fn open_link(
        &self,
        line: Line,
        opening: Opening,
    ) -> Result<ShardLink, ClientError> {
        let Line { stages, cancel, heartbeat } = line;
        let client = self.seat.id;
        for entry in &stages {
            let answer = entry.peers.open.ask(OpenSession { client, opening }).await;
            answer.map_err(|error| lost(&error, entry.generation))??;
        }
        let permits = Arc::clone(&self.seat.permits);
        Ok(ShardLink { client, stages, permits, cancel, heartbeat })
    }
}
