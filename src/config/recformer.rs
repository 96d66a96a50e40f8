//! Section `recformer`: item text and its table for `model.backbone = "recformer"`.

use serde::{Deserialize, Serialize};

use super::{BackboneKind, Config, OrNone};
use crate::ids::Round;

/// Section `recformer`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented in configs/default.toml")]
pub struct RecformerConfig {
    pub window: i64,
    pub max_items: i64,
    pub max_tokens: i64,
    pub max_attribute_tokens: i64,
    pub temperature: f64,
    pub table_batch: u32,
    pub table_traffic_mib: u64,
    pub freeze_table_from: OrNone<Round>,
}

impl Config {
    /// Round from which on item tables stay; `None` for backbones without one.
    pub fn tables_stay_from(&self) -> Option<Round> {
        let from = self.recformer.freeze_table_from.get();
        from.filter(|_| self.model.backbone == BackboneKind::Recformer)
    }
}
