//! Who is where: the only shared mutable state, written at spawn and read everywhere.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use fellrec::ids::{ClientId, ShardId};
use serde::{Deserialize, Serialize};

use crate::messages::{
    AbandonRound, BackwardBody, CloseLocalRound, CloseSession, CommitBodies, CommitRound, Crash,
    DecodeBody, EvaluateBody, EvaluateRound, FetchMean, ForwardBody, KeepPersonal, MixRound,
    OpenRound, OpenSession, ScreenRound, StageBody, StageSlices, StepBody, SubmitAgain,
    SubmitSlice, TestModel,
};
use crate::peer::{Peer, Takes};

/// An actor by its role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum MemberName {
    /// A client.
    Client(ClientId),
    /// A replica of a stage.
    Shard(ShardId),
    /// The aggregator.
    Aggregator,
    /// The supervisor.
    Supervisor,
    /// A person with a console; no actor.
    Operator,
}

impl fmt::Display for MemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MemberName::Client(client) => client.fmt(f),
            MemberName::Shard(shard) => shard.fmt(f),
            MemberName::Aggregator => f.write_str("aggregator"),
            MemberName::Supervisor => f.write_str("supervisor"),
            MemberName::Operator => f.write_str("operator"),
        }
    }
}

/// Finds the replica that serves this node's client, where shards run on other nodes.
pub trait FindShard: Send + Sync {
    /// A replica of `stage` that takes sessions, or why there is none.
    fn find(&self, stage: u32) -> Pin<Box<dyn Future<Output = Result<ShardId, String>>>>;
}

/// One life of an actor and how to reach it.
#[derive(Debug)]
pub struct Entry<P> {
    /// Counts the lives of this member, from 0.
    pub generation: u64,
    /// Since when.
    pub alive_since: Instant,
    /// Its addresses.
    pub peers: P,
}

/// Where a client is reached: the actor itself, or its stand-in for another node.
pub trait ClientAddress:
    Takes<OpenRound>
    + Takes<AbandonRound>
    + Takes<SubmitAgain>
    + Takes<StageSlices>
    + Takes<CommitRound>
    + Takes<EvaluateRound>
    + Takes<TestModel>
    + Takes<Crash>
{
}

/// Where a shard is reached.
pub trait ShardAddress:
    Takes<OpenSession>
    + Takes<ForwardBody>
    + Takes<BackwardBody>
    + Takes<StepBody>
    + Takes<EvaluateBody>
    + Takes<DecodeBody>
    + Takes<CloseSession>
    + Takes<KeepPersonal>
    + Takes<CloseLocalRound>
    + Takes<StageBody>
    + Takes<CommitBodies>
    + Takes<Crash>
{
}

/// Where the aggregator is reached.
pub trait AggregatorAddress:
    Takes<SubmitSlice> + Takes<FetchMean> + Takes<ScreenRound> + Takes<MixRound> + Takes<Crash>
{
}

/// Addresses of a client.
#[derive(Debug)]
#[allow(missing_docs, reason = "each field carries the message its type names")]
pub struct ClientPeers {
    pub open: Peer<OpenRound>,
    pub abandon: Peer<AbandonRound>,
    pub submit_again: Peer<SubmitAgain>,
    pub stage: Peer<StageSlices>,
    pub commit: Peer<CommitRound>,
    pub evaluate: Peer<EvaluateRound>,
    pub test: Peer<TestModel>,
    pub crash: Peer<Crash>,
}

/// Addresses of a shard.
#[derive(Debug)]
#[allow(missing_docs, reason = "each field carries the message its type names")]
pub struct ShardPeers {
    pub open: Peer<OpenSession>,
    pub forward: Peer<ForwardBody>,
    pub backward: Peer<BackwardBody>,
    pub step: Peer<StepBody>,
    pub evaluate: Peer<EvaluateBody>,
    pub decode: Peer<DecodeBody>,
    pub close: Peer<CloseSession>,
    pub keep_personal: Peer<KeepPersonal>,
    pub close_round: Peer<CloseLocalRound>,
    pub stage: Peer<StageBody>,
    pub commit: Peer<CommitBodies>,
    pub crash: Peer<Crash>,
}

/// Addresses of the aggregator.
#[derive(Debug)]
#[allow(missing_docs, reason = "each field carries the message its type names")]
pub struct AggregatorPeers {
    pub submit: Peer<SubmitSlice>,
    pub fetch: Peer<FetchMean>,
    pub screen: Peer<ScreenRound>,
    pub mix: Peer<MixRound>,
    pub crash: Peer<Crash>,
}

/// Enters a shard that was added to a running federation.
pub type Introduce = Box<dyn Fn(&Registry, ShardId) + Send + Sync>;

/// Members by name, of this process or by their stand-ins.
pub struct Registry {
    clients: DashMap<ClientId, Arc<Entry<ClientPeers>>>,
    shards: DashMap<ShardId, Arc<Entry<ShardPeers>>>,
    aggregators: DashMap<(), Arc<Entry<AggregatorPeers>>>,
    introduce: Option<Introduce>,
    deadline: Duration,
}

impl Registry {
    /// An empty registry whose peers wait at most `deadline` for an answer.
    pub fn new(deadline: Duration) -> Self {
        Self {
            clients: DashMap::new(),
            shards: DashMap::new(),
            aggregators: DashMap::new(),
            introduce: None,
            deadline,
        }
    }

    /// The same, with shards that are entered when somebody first asks for them.
    pub fn introducing(self, introduce: Introduce) -> Self {
        Self { introduce: Some(introduce), ..self }
    }

    /// Enters a client's new life.
    pub fn enter_client(&self, client: ClientId, generation: u64, address: &impl ClientAddress) {
        let name = MemberName::Client(client);
        let peers = ClientPeers {
            open: self.peer(name, address),
            abandon: self.peer(name, address),
            submit_again: self.peer(name, address),
            stage: self.peer(name, address),
            commit: self.peer(name, address),
            evaluate: self.peer(name, address),
            test: self.peer(name, address),
            crash: self.peer(name, address),
        };
        self.clients.insert(client, entry(generation, peers));
    }

    /// Enters a shard's new life.
    pub fn enter_shard(&self, shard: ShardId, generation: u64, address: &impl ShardAddress) {
        let name = MemberName::Shard(shard);
        let peers = ShardPeers {
            open: self.peer(name, address),
            forward: self.peer(name, address),
            backward: self.peer(name, address),
            step: self.peer(name, address),
            evaluate: self.peer(name, address),
            decode: self.peer(name, address),
            close: self.peer(name, address),
            keep_personal: self.peer(name, address),
            close_round: self.peer(name, address),
            stage: self.peer(name, address),
            commit: self.peer(name, address),
            crash: self.peer(name, address),
        };
        self.shards.insert(shard, entry(generation, peers));
    }

    /// Enters the aggregator's new life.
    pub fn enter_aggregator(&self, generation: u64, address: &impl AggregatorAddress) {
        let name = MemberName::Aggregator;
        let peers = AggregatorPeers {
            submit: self.peer(name, address),
            fetch: self.peer(name, address),
            screen: self.peer(name, address),
            mix: self.peer(name, address),
            crash: self.peer(name, address),
        };
        self.aggregators.insert((), entry(generation, peers));
    }

    /// A client's addresses.
    pub fn client(&self, client: ClientId) -> Option<Arc<Entry<ClientPeers>>> {
        self.clients.get(&client).map(|entry| Arc::clone(&entry))
    }

    /// A shard's addresses.
    pub fn shard(&self, shard: ShardId) -> Option<Arc<Entry<ShardPeers>>> {
        let entered = || self.shards.get(&shard).map(|entry| Arc::clone(&entry));
        entered().or_else(|| {
            let introduce = self.introduce.as_ref()?;
            introduce(self, shard);
            entered()
        })
    }

    /// The aggregator's addresses.
    pub fn aggregator(&self) -> Option<Arc<Entry<AggregatorPeers>>> {
        self.aggregators.get(&()).map(|entry| Arc::clone(&entry))
    }

    /// The life that is entered for a member.
    pub fn generation(&self, member: MemberName) -> Option<u64> {
        match member {
            MemberName::Client(client) => self.client(client).map(|entry| entry.generation),
            MemberName::Shard(shard) => self.shard(shard).map(|entry| entry.generation),
            MemberName::Aggregator => self.aggregator().map(|entry| entry.generation),
            MemberName::Supervisor | MemberName::Operator => None,
        }
    }

    /// Takes out a member that will not come back.
    pub fn remove(&self, member: MemberName) {
        match member {
            MemberName::Client(client) => drop(self.clients.remove(&client)),
            MemberName::Shard(shard) => drop(self.shards.remove(&shard)),
            MemberName::Aggregator => drop(self.aggregators.remove(&())),
            MemberName::Supervisor | MemberName::Operator => {}
        }
    }

    /// `Ok` if another member serves in the place of one that will not come back.
    pub fn has_substitute(&self, member: MemberName) -> Result<(), String> {
        let served = match member {
            MemberName::Shard(lost) => self.shards.iter().any(|e| e.key().stage == lost.stage),
            _ => false,
        };
        if served { Ok(()) } else { Err(format!("{member} has no restarts left")) }
    }

    fn peer<M>(&self, member: MemberName, address: &impl Takes<M>) -> Peer<M>
    where
        M: actix::Message + Send + 'static,
        M::Result: Send,
    {
        Peer::new(member, address.recipient(), self.deadline)
    }
}

fn entry<P>(generation: u64, peers: P) -> Arc<Entry<P>> {
    Arc::new(Entry { generation, alive_since: Instant::now(), peers })
}
