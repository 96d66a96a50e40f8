//! Sections `training`, `optimizer` and `evaluation`: the client's work in a round.

use std::num::{NonZeroU32, NonZeroU64};

use serde::{Deserialize, Serialize};

use super::OrNone;

/// Section `training`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented in configs/default.toml")]
pub struct TrainingConfig {
    pub local_epochs: NonZeroU64,
    pub max_steps: OrNone<NonZeroU64>,
    pub batch: NonZeroU32,
    pub loss_chunk: i64,
    pub proximal_mu: f64,
    pub rows: OrNone<NonZeroU64>,
    pub ditto_lambda: OrNone<f64>,
}

/// Section `optimizer`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented in configs/default.toml")]
pub struct OptimizerConfig {
    pub learning_rate: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub weight_decay: f64,
    pub clip_norm: OrNone<f64>,
    pub warmup_steps: u64,
    pub reset_each_round: bool,
}

/// Section `evaluation`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented in configs/default.toml")]
pub struct EvaluationConfig {
    pub ks: Vec<u32>,
    pub every: NonZeroU64,
    pub validation_users: OrNone<NonZeroU32>,
    pub batch: NonZeroU32,
    pub sampled_negatives: OrNone<NonZeroU32>,
    pub keep_ranks: bool,
}
