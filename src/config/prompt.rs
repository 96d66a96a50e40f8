//! Sections `prompt`, `generation` and `grounding`: a backbone that writes the next title as text.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

/// Tokens of a prompt and its response that the loss is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PromptLoss {
    /// The response and the token that ends it.
    Response,
    /// Every token but the first, which nothing precedes.
    Text,
}

/// Section `prompt`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented in configs/default.toml")]
pub struct PromptConfig {
    pub item: String,
    pub items: String,
    pub verb: String,
    pub max_items: NonZeroU32,
    pub cutoff: NonZeroU32,
    pub loss: PromptLoss,
}

/// Section `generation`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented in configs/default.toml")]
pub struct GenerationConfig {
    pub beams: NonZeroU32,
    pub max_new_tokens: NonZeroU32,
    pub length_penalty: f64,
}

/// Section `grounding`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented in configs/default.toml")]
pub struct GroundingConfig {
    pub gammas: Vec<f64>,
    pub skip_known: bool,
}
