//! What an update must satisfy before it may touch anyone else's (architecture.md section 4).
//!
//! Runs before heating: one NaN among the losses would poison every client's share of the softmax.
//! The front and back of a client and its body arrive from different actors, so a slice is
//! inspected when it comes ([`inspect_slice`]) and the round is judged when all are there
//! ([`judge_round`]); [`screen`] does both where everything is at hand.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tch::{Kind, no_grad};
use thiserror::Error;

use super::heating::median;
use crate::config::ScreeningConfig;
use crate::ids::ClientId;
use crate::model::slice::{LayoutError, NamedTensor, Part, Slice, Theta};

/// Norms without which there is no majority to compare an update with.
const MIN_NORMS: usize = 3;

/// Why a client's update was kept out of a round.
#[derive(Clone, Debug, PartialEq, Error, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "reason")]
pub enum Rejection {
    /// The training loss is NaN or infinite.
    #[error("the loss is {got}, expected a finite number")]
    NonFiniteLoss {
        /// The loss as text, since JSON has no NaN.
        got: String,
    },
    /// A tensor holds a NaN or an infinity.
    #[error("tensor {name} holds a number that is not finite")]
    NonFiniteTensor {
        /// Its checkpoint name.
        name: String,
    },
    /// The slice holds more than the model has.
    #[error("the slice has {got} bytes, expected {expected}")]
    Oversized {
        /// Bytes that came.
        got: usize,
        /// Bytes of the model's own slice.
        expected: usize,
    },
    /// The tensors are not the model's.
    #[error("the layout is not the model's: {problem}")]
    Layout {
        /// Where it differs.
        problem: LayoutError,
    },
    /// The update dwarfs those of the others.
    #[error(
        "the update's norm is {got:.3e}, expected at most {limit:.3e} ({ratio} times the median)"
    )]
    NormTooLarge {
        /// Norm of the update.
        got: f64,
        /// Largest norm let in this round.
        limit: f64,
        /// `screening.max_norm_ratio`.
        ratio: f64,
    },
}

/// What screening decided about one client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "verdict")]
pub enum ScreeningVerdict {
    /// May be mixed.
    Accepted {
        /// Norm of its update.
        norm: f64,
    },
    /// Stays out; the client keeps its own tensors.
    Rejected(Rejection),
}

impl ScreeningVerdict {
    /// Whether the client is mixed.
    pub fn is_accepted(&self) -> bool {
        matches!(self, ScreeningVerdict::Accepted { .. })
    }
}

/// One client's round, for [`screen`].
#[derive(Clone, Copy, Debug)]
pub struct Submission<'a> {
    /// Tensors after local training.
    pub theta: &'a Theta,
    /// Tensors at the start of the round; they define the expected layout.
    pub start: &'a Theta,
    /// Training loss L_c.
    pub loss: f64,
}

/// Screens a whole round.
pub fn screen(
    submissions: &BTreeMap<ClientId, Submission<'_>>,
    config: &ScreeningConfig,
) -> BTreeMap<ClientId, ScreeningVerdict> {
    let inspections = submissions.iter().map(|(&client, submission)| {
        let inspection = check_loss(submission.loss).and_then(|()| {
            Part::ALL.into_iter().try_fold(0.0, |sum, part| {
                Ok(sum + inspect_slice(submission.theta.part(part), submission.start.part(part))?)
            })
        });
        (client, inspection)
    });
    judge_round(inspections.collect(), config)
}

/// Refuses a loss that is not finite.
///
/// # Errors
/// [`Rejection::NonFiniteLoss`].
pub fn check_loss(loss: f64) -> Result<(), Rejection> {
    if loss.is_finite() {
        return Ok(());
    }
    Err(Rejection::NonFiniteLoss { got: loss.to_string() })
}

/// Squared norm of a slice's change since `start`, which also defines the expected layout.
///
/// The squared norms of a client's slices add up to that of its update.
///
/// # Errors
/// Every [`Rejection`] that one slice alone can earn.
pub fn inspect_slice(slice: &Slice, start: &Slice) -> Result<f64, Rejection> {
    let (got, expected) = (slice.bytes(), start.bytes());
    if got > expected {
        return Err(Rejection::Oversized { got, expected });
    }
    slice.same_layout(start).map_err(|problem| Rejection::Layout { problem })?;
    if let Some(name) = slice.has_non_finite() {
        return Err(Rejection::NonFiniteTensor { name: name.to_owned() });
    }
    let squared_change = |(now, before): (&NamedTensor, &NamedTensor)| {
        let wide = |named: &NamedTensor| named.tensor.to_kind(Kind::Double);
        (wide(now) - wide(before)).square().sum(Kind::Double).double_value(&[])
    };
    let squared: f64 =
        no_grad(|| slice.tensors.iter().zip(&start.tensors).map(squared_change).sum());
    // The client says where it started, too.
    if !squared.is_finite()
        && let Some(name) = start.has_non_finite()
    {
        return Err(Rejection::NonFiniteTensor { name: name.to_owned() });
    }
    Ok(squared)
}

/// Judges every client from its squared update norm, or from what was already wrong with it.
///
/// The limit is `max_norm_ratio` times the median norm of the clients that moved at all: those
/// without a step say nothing about the size of a step. With fewer than three such clients there
/// is no telling which of two is the odd one, and nobody is refused for the size of its update.
pub fn judge_round(
    inspections: BTreeMap<ClientId, Result<f64, Rejection>>,
    config: &ScreeningConfig,
) -> BTreeMap<ClientId, ScreeningVerdict> {
    let ratio = config.max_norm_ratio;
    let norms: Vec<f64> = inspections
        .values()
        .filter_map(|inspection| inspection.as_ref().ok())
        .map(|squared| squared.sqrt())
        .filter(|&norm| norm > 0.0)
        .collect();
    let limit =
        if norms.len() < MIN_NORMS { f64::INFINITY } else { ratio * median(norms.into_iter()) };
    let verdict = |(client, inspection): (ClientId, Result<f64, Rejection>)| {
        let verdict = match inspection.map(f64::sqrt) {
            Ok(norm) if norm <= limit => ScreeningVerdict::Accepted { norm },
            Ok(got) => ScreeningVerdict::Rejected(Rejection::NormTooLarge { got, limit, ratio }),
            Err(rejection) => ScreeningVerdict::Rejected(rejection),
        };
        (client, verdict)
    };
    inspections.into_iter().map(verdict).collect()
}
