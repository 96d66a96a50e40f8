//! Sections `run`, `checkpoint`, `runtime` and `logging`: everything about the machine.

use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::OrNone;

/// Section `run`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented in configs/default.toml")]
pub struct RunConfig {
    pub seed: u64,
    pub out: PathBuf,
}

/// Section `checkpoint`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented in configs/default.toml")]
pub struct CheckpointConfig {
    pub keep: NonZeroU64,
    pub fsync: bool,
}

/// A compute device by name: `cpu` or `cuda:N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceName {
    /// The processor.
    Cpu,
    /// The N-th GPU.
    Cuda(usize),
}

/// Number type of frozen weights and activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names say it")]
pub enum DtypeName {
    F32,
    Bf16,
}

/// Section `runtime`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented in configs/default.toml")]
pub struct RuntimeConfig {
    pub client_device: DeviceName,
    pub shard_device: DeviceName,
    pub dtype: DtypeName,
    pub compute_threads: OrNone<NonZeroU32>,
    pub deterministic: bool,
    pub pipeline_depth: u32,
    pub recompute: bool,
    pub clients_at_once: NonZeroU32,
    pub decode_cache_mib: NonZeroU64,
}

impl RuntimeConfig {
    /// `decode_cache_mib` in bytes.
    pub fn decode_cache_bytes(&self) -> u64 {
        self.decode_cache_mib.get() << 20
    }
}

/// Section `logging`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented in configs/default.toml")]
pub struct LoggingConfig {
    pub terminal: String,
    pub file: String,
}
