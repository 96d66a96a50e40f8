//! A whole federation in one thread under a virtual clock (protocol.md 8).
//!
//! The nodes drive the product's own state machines: `RoundMachine`, `Collection`, `Member`,
//! `BodySession`, `local_round` and the stores. Between them stands a network that delays,
//! duplicates, reorders and loses, all by seed, and that crashes a node before or after any
//! message. The oracle is a digest over every client's tensors, moments and best rounds.

#![allow(dead_code, unused_imports, reason = "every test file uses its own part of the harness")]

mod aggregator;
mod client;
mod cluster;
mod link;
mod network;
mod shard;
mod supervisor;
mod world;

use std::collections::BTreeMap;

use fellrec::config::HeatingConfig;
use fellrec::federation::round::{Absence, Attempt, FederationState, Outcome, Participant};
use fellrec::ids::{ClientId, Round};
use fellrec::model::slice::Digest;

pub use cluster::run;
pub use network::{Chaos, Fault, Moment, NodeId};
pub use supervisor::text;
pub use world::{World, full, lora};

/// What happens in a run besides what the config says.
#[derive(Clone, Debug, Default)]
pub struct Scenario {
    /// What the network does to messages.
    pub chaos: Chaos,
    /// Who crashes, when.
    pub faults: Vec<Fault>,
    /// How clients misbehave, by round.
    pub conduct: BTreeMap<(ClientId, Round), Conduct>,
    /// An operator's word, given as soon as a round is committed.
    pub tuning: BTreeMap<Round, HeatingConfig>,
    /// An operator's stop, given as soon as a round is committed.
    pub stop_after: Option<Round>,
}

/// How a client may misbehave in a round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Conduct {
    /// Declines.
    Refuses,
    /// Takes part in the first attempts and declines from this one on.
    RefusesFrom { attempt: u32 },
    /// Trains, but its disk is full when it is to stage.
    CannotStage {
        /// First attempt in which there is room again.
        until_attempt: u32,
    },
    /// Accepts and is never heard of again in this round; the attempts of a round count.
    FallsSilent {
        /// First attempt in which it works again.
        until_attempt: u32,
    },
    /// Submits something else than what it trained, or reports another loss.
    Sends(Spoil),
}

/// What is wrong with an update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Spoil {
    NanTensor,
    InfiniteTensor,
    WrongShape,
    ExtraTensor,
    MissingTensor,
    HugeNorm,
    NanLoss,
}

/// What a run leaves behind.
#[derive(Debug)]
pub struct RunEnd {
    /// How it ended; an error is a commit that could not be written or a start without any commit.
    pub outcome: Result<Outcome, String>,
    /// The supervisor's last state.
    pub state: FederationState,
    /// The oracle: tensors, moments and step counts of every client's current state, best rounds
    /// and patience.
    pub digest: Digest,
    /// Committed rounds in the order of their commits; a resumed supervisor may commit one again.
    pub commits: Vec<Commit>,
    /// Attempts in the order they were opened.
    pub opened: Vec<(Attempt, Vec<ClientId>)>,
    /// States that were evaluated, in order.
    pub evaluated: Vec<Round>,
    /// Commits that a starting supervisor could not use, with the reason.
    pub skipped: Vec<(Round, String)>,
    /// Local rounds that had to start over.
    pub replays: u32,
    /// Messages that reached each node.
    pub deliveries: BTreeMap<NodeId, u64>,
    /// Crashes that the faults brought about.
    pub crashes: u32,
}

/// A committed round.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The attempt that was closed.
    pub attempt: Attempt,
    /// Openness and report of everyone mixed.
    pub participants: BTreeMap<ClientId, Participant>,
    /// Who had no part.
    pub absent: BTreeMap<ClientId, Absence>,
    /// Heating in force after it.
    pub heating: HeatingConfig,
}

impl RunEnd {
    /// Panics with the whole story unless the run did all its rounds.
    pub fn expect_done(&self) -> &Self {
        assert_eq!(self.outcome, Ok(Outcome::RoundsDone), "{self:#?}");
        self
    }
}
