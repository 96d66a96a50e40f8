//! Newtypes for the numbers that identify something, so that none is taken for another.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A client: a group of users (a platform, a shop, a region), or one user. Dense, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClientId(pub u32);

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client-{}", self.0)
    }
}

/// One replica of one stage of the server's blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardId {
    /// Stage of the chain, from 0.
    pub stage: u32,
    /// Replica within the stage's pool, from 0.
    pub replica: u32,
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard-{}-{}", self.stage, self.replica)
    }
}

/// A federation round, from 0. State "of round t" is what round t starts from; its commit makes t + 1.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Round(pub u64);

impl Round {
    /// The round after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One optimiser step of one client; with the client id the idempotency key of a half step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StepId {
    /// Round the step belongs to.
    pub round: Round,
    /// Step within the client's local round, from 0.
    pub step: u64,
}

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.round, self.step)
    }
}

/// An item: its position in the catalogue, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ItemId(pub u32);

impl ItemId {
    /// The catalogue position as an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A user: its position in the data set, from 0. Where every client has a data set of its own, the client is in the
/// upper half of the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UserId(pub u64);

impl UserId {
    /// A user by its position in a client's own data set.
    pub fn on(client: ClientId, position: u32) -> Self {
        Self((u64::from(client.0) << 32) | u64::from(position))
    }
}
