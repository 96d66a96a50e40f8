//! Section `pretrain`: a base of one's own for small machines.

use serde::{Deserialize, Serialize};

/// Section `pretrain`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented in configs/default.toml")]
pub struct PretrainConfig {
    pub steps: u64,
    pub batch: u32,
    pub learning_rate: f64,
    pub warmup_steps: u64,
    pub held_out: f64,
}
