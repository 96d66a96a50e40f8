//! Split training: half passes over the cut, and the session that makes them safe to repeat.

mod body;
mod client;
mod decode;
mod decode_pool;
mod hidden;
mod stack;
mod stage;
mod whole;
pub mod wire;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tch::{Kind, TchError};
use thiserror::Error;

pub use body::{BodyGradient, BodySession, StepPlan};
pub use client::{BackPass, ClientModel, ClientSettings, FrontPass, unit_rows};
pub use decode::{BodyDecoding, DecodeCache, DecodeTurn, Turn};
pub use decode_pool::DecodePool;
pub use hidden::{FrameLimits, HiddenStates};
pub use stack::{BlockStack, StackPass};
pub use stage::{HalfStep, Stage};
pub use whole::WholePlan;

use crate::ids::{ClientId, StepId};
use crate::told::chain;

/// Why one side of the cut refused a half step.
#[derive(Debug, Error)]
pub enum SplitError {
    /// Sender and receiver disagree about a shape: a bug or a wrong config.
    #[error("hidden states have shape {got:?}, expected [batch, tokens, {width}] of floats")]
    ShapeMismatch {
        /// Shape received.
        got: Vec<i64>,
        /// Hidden width of the model.
        width: i64,
    },

    /// Larger than anything the config makes a client send, empty, or of another number type.
    #[error(
        "hidden states have shape {got:?} and type {kind:?}, expected at most [{}, {}, {}] of {:?}",
        limits.rows, limits.positions, limits.width, limits.kind
    )]
    Beyond {
        /// Shape received.
        got: Vec<i64>,
        /// Number type received.
        kind: Kind,
        /// What is taken.
        limits: FrameLimits,
    },

    /// Texts grow beyond the longest that the config allows.
    #[error("token {position} of a text is decoded, texts have at most {positions}")]
    TooLong {
        /// Position of the token, from 0.
        position: i64,
        /// Positions of the longest text.
        positions: i64,
    },

    /// An answer does not belong to the pass that waits for it.
    #[error("hidden states have shape {got:?}, the pass that waits for them has {expected:?}")]
    OtherShape {
        /// Shape received.
        got: Vec<i64>,
        /// Shape of the pending pass, `[B, T, D]`.
        expected: Vec<i64>,
    },

    /// The lengths beside hidden states are none of these rows.
    #[error(
        "lengths have shape {got:?} or leave their rows, expected [{rows}] whole numbers in 1..={positions}"
    )]
    Lengths {
        /// Shape received.
        got: Vec<i64>,
        /// Rows of the hidden states.
        rows: i64,
        /// Positions of a row.
        positions: i64,
    },

    /// Prompts came without their lengths.
    #[error("prompts to decode come without the number of tokens of each")]
    NoLengths,

    /// Decoding was asked of blocks that attend in both directions.
    #[error("only causal blocks decode token by token")]
    NotCausal,

    /// The rows of a decoding do not continue those of the position before.
    #[error("rows {rows:?} continue {got:?}, expected one of the {held} rows held for each")]
    Parents {
        /// Row that each row continues.
        got: Vec<i64>,
        /// Shape of the new tokens' hidden states.
        rows: Vec<i64>,
        /// Rows of the cache.
        held: i64,
    },

    /// One decoding's keys and values are more than all together may take.
    #[error(
        "decoding a batch needs {needed} bytes of keys and values on a shard, \
         runtime.decode_cache_mib allows {limit}: raise it or lower evaluation.batch"
    )]
    CacheTooLarge {
        /// Bytes of this decoding.
        needed: u64,
        /// Bytes allowed.
        limit: u64,
    },

    /// A shard dropped the keys and values of one decoding again and again.
    #[error(
        "a shard had no room for the keys and values of a batch {times} times over: \
         raise runtime.decode_cache_mib or lower evaluation.batch"
    )]
    CacheLost {
        /// Times it was tried.
        times: u64,
    },

    /// A message arrived for a step this side does not hold or has not come to, as after a restart.
    #[error("step {step} is not pending here and does not follow the last one made")]
    UnknownStep {
        /// Step the message belongs to.
        step: StepId,
    },

    /// The client has no session here, as after a restart.
    #[error("no session of {client} is open")]
    NoSession {
        /// Whose session.
        client: ClientId,
    },

    /// A message of a step that was finished before: late or replayed.
    #[error("step {step} is over, the session is at {newest}")]
    StaleStep {
        /// Step the message belongs to.
        step: StepId,
        /// Newest step of the session.
        newest: StepId,
    },

    /// libtorch refused an operation, for instance for lack of memory.
    #[error("failed to run the model")]
    Torch(#[from] TchError),

    /// Any of these at another node, with its causes.
    #[error("{text}")]
    Told {
        /// What it said.
        text: String,
        /// Whether the client may run its local round again.
        retryable: bool,
    },
}

/// What of a [`SplitError`] crosses between nodes.
#[derive(Serialize, Deserialize)]
struct ToldSplit {
    text: String,
    retryable: bool,
}

impl Serialize for SplitError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let told = ToldSplit { text: chain(self), retryable: self.is_retryable() };
        told.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SplitError {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ToldSplit { text, retryable } = ToldSplit::deserialize(deserializer)?;
        Ok(Self::Told { text, retryable })
    }
}

impl SplitError {
    /// Tells whether the client may run its local round again.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::UnknownStep { .. } | Self::NoSession { .. } => true,
            Self::Told { retryable, .. } => *retryable,
            _ => false,
        }
    }
}
