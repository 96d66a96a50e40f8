//! Sections `federation`, `mixing`, `heating` and `screening`: what the supervisor decides.

use std::num::{NonZeroU32, NonZeroU64};

use serde::{Deserialize, Serialize};

use super::OrNone;
use crate::ids::ClientId;

/// Clients that must finish for a round to close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quorum {
    /// Every participant.
    All,
    /// More than half of the participants.
    Majority,
    /// At least this many clients.
    AtLeast(NonZeroU32),
}

/// How often a round may be opened again: attempts are numbered with 16 bits.
pub const MOST_REOPENINGS: u32 = (1 << 16) - 1;

/// Section `federation`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented in configs/default.toml")]
pub struct FederationConfig {
    pub rounds: u64,
    pub participation: f64,
    pub quorum: Quorum,
    pub progress_deadline_secs: NonZeroU64,
    pub reopen_budget: u32,
    pub restart_budget: u32,
    pub patience: OrNone<NonZeroU32>,
}

impl FederationConfig {
    /// How many of `clients` take part in a round: the sampled share, rounded, and at least one.
    pub fn participants(&self, clients: u32) -> u32 {
        let share = (f64::from(clients) * self.participation).round() as u32;
        share.clamp(1, clients.max(1))
    }
}

/// Who learns from whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MixingRuleKind {
    /// Similarity opened by heating (method.md 3 and 4).
    Fellrec,
    /// Mean weighted by data size, the same for every client.
    Fedavg,
    /// Every client keeps its own.
    Local,
}

/// What the cosine between two clients compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SimilarityKind {
    /// The trainable tensors themselves (published form).
    Parameters,
    /// Their change over the round.
    Update,
    /// The products BA of the adapters.
    Product,
    /// Nothing: all count as alike.
    Uniform,
}

/// How a row of similarities becomes weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Normalisation {
    /// Divide by the row's sum (published form).
    Sum,
    /// Row softmax of similarity / temperature, off-diagonal entries opened by w_c.
    Softmax,
    /// The others share what `self_weight` leaves, as far as w_c opens.
    Share,
}

/// Whether all tensors share one mixing matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MixingGroups {
    /// One matrix.
    One,
    /// One each for front, body and back.
    Separate,
}

/// How the others' tensors enter a mix where some clients may be malicious.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RobustKind {
    /// As they are.
    None,
    /// Long updates are shortened.
    NormClip,
    /// The odd ones out are not listened to.
    MultiKrum,
    /// In place of the others, their mean without the extremes of every coordinate.
    TrimmedMean,
}

/// Section `mixing`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented in configs/default.toml")]
pub struct MixingConfig {
    pub rule: MixingRuleKind,
    pub similarity: SimilarityKind,
    pub sharpness: f64,
    pub normalisation: Normalisation,
    pub temperature: f64,
    pub self_weight: f64,
    pub groups: MixingGroups,
    pub robust: RobustKind,
    pub byzantine: u32,
    pub clip_ratio: f64,
    pub fine_tune_rounds: u64,
}

/// Shape of the curve along which a client opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeatingForm {
    /// Exponent (t+1)/beta.
    Intended,
    /// Exponent t + 1/beta, tau 0.05: what the authors' code computes.
    Reference,
    /// Free of the number of clients and starting near 0; ours.
    Scaled,
    /// w_c = 1.
    Off,
}

/// Alpha or beta of one client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeatingOverride {
    /// Whom it concerns.
    pub client: ClientId,
    /// Openness instead of `heating.alpha`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// Warm-up length instead of `heating.beta`, in rounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beta: Option<f64>,
}

/// Section `heating`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented in configs/default.toml")]
pub struct HeatingConfig {
    pub form: HeatingForm,
    pub alpha: f64,
    pub beta: f64,
    pub tau: OrNone<f64>,
    pub overrides: Vec<HeatingOverride>,
}

/// Section `screening`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented in configs/default.toml")]
pub struct ScreeningConfig {
    pub max_norm_ratio: f64,
}
