//! Who learns how much from whom (method.md section 3), and the mixing itself.
//!
//! A [`MixingRule`] turns the cohort of a round into row-normalised weights; [`mix`] applies any
//! weights, and a [`Mixer`] does both, robustly if asked to. A rule of one's own needs nothing else: see `examples/own_mixing_rule.rs`.

mod apply;
mod fine_tune;
mod mixer;
mod robust;
mod rules;
mod weights;

use std::collections::BTreeMap;

use thiserror::Error;

use super::cohort::{Cohort, CohortError};
use super::similarity::SimilarityError;
use crate::config::{MixingConfig, MixingRuleKind};
use crate::ids::{ClientId, Round};
use crate::model::slice::Part;

pub use apply::mix;
pub use fine_tune::FineTuned;
pub use mixer::{Mixed, Mixer};
pub use robust::Robust;
pub use rules::{FedAvg, FellRec, Local};
pub use weights::MixingWeights;

/// Why a round could not be mixed.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum MixingError {
    /// The participants do not fit together.
    #[error(transparent)]
    Cohort(#[from] CohortError),
    /// The participants cannot be compared.
    #[error(transparent)]
    Similarity(#[from] SimilarityError),
    /// Heating said nothing about a participant.
    #[error("no openness is known for {client}")]
    NoOpenness {
        /// Which.
        client: ClientId,
    },
    /// Heating said something impossible about a participant.
    #[error("the openness of {client} is {got}, expected a number in [0, 1]")]
    Openness {
        /// Which.
        client: ClientId,
        /// Its openness.
        got: f64,
    },
    /// Data sizes are needed and one is missing.
    #[error("no data size is known for {client}")]
    NoDataSize {
        /// Which.
        client: ClientId,
    },
    /// A rule made weights that are no weights.
    #[error("mixing row of {client} ({part}) is no distribution: {problem}")]
    Row {
        /// Whose row.
        client: ClientId,
        /// First part of the matrix's group.
        part: Part,
        /// What is wrong, with the number got.
        problem: String,
    },
    /// Weights were made for other clients than those that are mixed.
    #[error(
        "mixing weights are for {got} clients, expected those of the cohort: the same {expected} ids"
    )]
    OtherClients {
        /// Clients of the weights.
        got: usize,
        /// Clients of the cohort.
        expected: usize,
    },
}

/// What a rule may look at.
#[derive(Clone, Copy, Debug)]
pub struct MixingInput<'a> {
    /// The round that is mixed.
    pub round: Round,
    /// Tensors of the round's participants.
    pub cohort: &'a Cohort<'a>,
    /// `w_c` of every participant, from [`Heating`](super::heating::Heating).
    pub openness: &'a BTreeMap<ClientId, f64>,
    /// Training data of every participant. Unit: whatever the run weighs by, the same for all.
    pub data_sizes: &'a BTreeMap<ClientId, u64>,
}

impl MixingInput<'_> {
    /// `w_c`, checked.
    ///
    /// # Errors
    /// [`MixingError::NoOpenness`] and [`MixingError::Openness`].
    pub fn openness_of(&self, client: ClientId) -> Result<f64, MixingError> {
        match self.openness.get(&client) {
            None => Err(MixingError::NoOpenness { client }),
            Some(w) if (0.0..=1.0).contains(w) => Ok(*w),
            Some(&got) => Err(MixingError::Openness { client, got }),
        }
    }
}

/// Decides, for every client, what weight each participant's tensors get in its own.
///
/// Contract: a pure function of the input, so that a replayed round is the same round.
pub trait MixingRule: Send {
    /// Name for tables and reports.
    fn name(&self) -> &'static str;

    /// Whether every client gets a model of its own; not so where all get the same.
    fn is_personal(&self) -> bool {
        true
    }

    /// Row c: the weights by which client c takes over the tensors of each participant.
    ///
    /// # Errors
    /// Whatever keeps the rule from deciding; the round is then not mixed at all.
    fn weights(&self, input: &MixingInput<'_>) -> Result<MixingWeights, MixingError>;
}

/// The rule that section `mixing` asks for.
pub fn rule_from(config: &MixingConfig) -> Box<dyn MixingRule> {
    match config.rule {
        MixingRuleKind::Fellrec => Box::new(FellRec::new(config.clone())),
        MixingRuleKind::Fedavg => Box::new(FedAvg),
        MixingRuleKind::Local => Box::new(Local),
    }
}

/// The rule of a run of `rounds` rounds: the configured one, or nobody's in the rounds of fine-tuning.
pub fn rule_of_run(config: &MixingConfig, rounds: u64) -> Box<dyn MixingRule> {
    let rule = rule_from(config);
    match config.fine_tune_rounds {
        0 => rule,
        last => Box::new(FineTuned::new(rule, Round(rounds.saturating_sub(last)))),
    }
}
