//! Section `nodes`: messages between processes, and how long they wait for each other.

use std::num::{NonZeroU16, NonZeroU32, NonZeroU64};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Section `nodes`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented in configs/default.toml")]
pub struct NodesConfig {
    pub lease_secs: NonZeroU64,
    pub absence_secs: NonZeroU64,
    pub max_message_mib: NonZeroU64,
    pub held_mib: NonZeroU64,
    pub chunk_kib: NonZeroU32,
    pub credits: NonZeroU16,
    pub calls: NonZeroU32,
}

impl NodesConfig {
    /// Longest silence of the other end of a call.
    pub fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_secs.get())
    }

    /// How long a member that is missed is waited for.
    pub fn absence(&self) -> Duration {
        Duration::from_secs(self.absence_secs.get())
    }
}
