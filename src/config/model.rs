//! Sections `model`, `lora` and `split`: the network, what of it trains, and who runs which blocks.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::OrNone;

/// How a batch becomes hidden states at the front and a loss and a ranking at the back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackboneKind {
    /// One vector an item, scored against all items at every position.
    ItemTokens,
    /// A prompt with the newest titles; the next title is written as text and grounded in the catalogue.
    Bigrec,
    /// An encoder of item text, pooled at the first token and scored against every item's by cosine.
    Recformer,
}

impl fmt::Display for BackboneKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ItemTokens => "item-tokens",
            Self::Bigrec => "bigrec",
            Self::Recformer => "recformer",
        })
    }
}

/// What a client trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trainable {
    /// Adapters on a frozen base that all clients of a process share.
    Lora,
    /// Every parameter; each client then holds a whole model.
    Full,
}

/// Section `model`. Dimensions are `i64`, as libtorch has them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented in configs/default.toml")]
pub struct ModelConfig {
    pub backbone: BackboneKind,
    pub hidden: i64,
    pub layers: i64,
    pub heads: i64,
    pub kv_heads: i64,
    pub ffn: i64,
    pub rope_theta: f64,
    pub norm_eps: f64,
    pub init_std: f64,
    pub vocab: i64,
    pub checkpoint: OrNone<PathBuf>,
    pub adapter: OrNone<PathBuf>,
    pub tokenizer: OrNone<PathBuf>,
    pub max_title_tokens: i64,
    pub max_history: i64,
    pub trainable: Trainable,
    pub dropout: f64,
}

impl ModelConfig {
    /// Width of one attention head.
    pub fn head_dim(&self) -> i64 {
        self.hidden / self.heads
    }
}

/// A linear layer of a block that can carry an adapter, by its checkpoint name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names are those of the checkpoint")]
pub enum Projection {
    QProj,
    KProj,
    VProj,
    OProj,
    GateProj,
    UpProj,
    DownProj,
}

/// Section `lora`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented in configs/default.toml")]
pub struct LoraConfig {
    pub rank: i64,
    pub alpha: f64,
    pub dropout: f64,
    pub targets: Vec<Projection>,
}

impl LoraConfig {
    /// No adapters.
    pub fn none() -> Self {
        Self { rank: 1, alpha: 1.0, dropout: 0.0, targets: Vec::new() }
    }
}

/// Section `split`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented in configs/default.toml")]
pub struct SplitConfig {
    pub k_front: i64,
    pub k_back: i64,
    pub stages: OrNone<Vec<(i64, i64)>>,
    pub replicas: OrNone<u32>,
}

impl SplitConfig {
    /// A cut with one stage between front and back, replicated as often as there are compute threads.
    pub fn new(k_front: i64, k_back: i64) -> Self {
        Self { k_front, k_back, stages: OrNone::None, replicas: OrNone::None }
    }
}
