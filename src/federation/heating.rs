//! Curriculum heating: how far a client opens to the others in a round (method.md section 4).
//!
//! Openness `w_c` in \[0, 1\] weighs the other clients in row c of the mixing matrix. It is not a
//! learning rate.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::config::{HeatingConfig, HeatingForm};
use crate::ids::{ClientId, Round};

/// Temperature of the form `reference`. Source: the authors' code.
const REFERENCE_TAU: f64 = 0.05;

/// Why no openness could be computed.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum HeatingError {
    /// A loss that screening should have kept out: one NaN would poison every client's share.
    #[error("the loss of {client} is {got}, expected a finite number")]
    NonFiniteLoss {
        /// Whose.
        client: ClientId,
        /// The loss.
        got: f64,
    },
    /// alpha, beta or tau, for everyone or one client.
    #[error("{key} is {got}, expected a finite number above 0")]
    OutOfRange {
        /// Key in the configuration, with the client where it is an override.
        key: String,
        /// Its value.
        got: f64,
    },
}

/// The schedule of one run, alpha and beta resolved for every client.
#[derive(Clone, Debug, PartialEq)]
pub struct Heating {
    form: HeatingForm,
    tau: f64,
    default: Pace,
    overrides: BTreeMap<ClientId, Pace>,
}

/// alpha (openness) and beta (warm-up length in rounds) of one client.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Pace {
    alpha: f64,
    beta: f64,
}

impl Heating {
    /// Resolves the section `heating`. An operator's change between rounds is a new schedule.
    ///
    /// # Errors
    /// [`HeatingError::OutOfRange`] for alpha, beta or tau.
    pub fn new(config: &HeatingConfig) -> Result<Self, HeatingError> {
        let own_tau = if config.form == HeatingForm::Reference { REFERENCE_TAU } else { 1.0 };
        let tau = config.tau.get().unwrap_or(own_tau);
        let default = Pace { alpha: config.alpha, beta: config.beta };
        check("heating.alpha".to_owned(), default.alpha)?;
        check("heating.beta".to_owned(), default.beta)?;
        check("heating.tau".to_owned(), tau)?;
        let mut overrides = BTreeMap::new();
        for of_client in &config.overrides {
            let client = of_client.client;
            let pace: &mut Pace = overrides.entry(client).or_insert(default);
            pace.alpha = of_client.alpha.unwrap_or(pace.alpha);
            pace.beta = of_client.beta.unwrap_or(pace.beta);
            check(format!("heating.overrides alpha of {client}"), pace.alpha)?;
            check(format!("heating.overrides beta of {client}"), pace.beta)?;
        }
        Ok(Self { form: config.form, tau, default, overrides })
    }

    /// Openness `w_c` of every participating client, from the losses of this round.
    ///
    /// | form | `w_c` |
    /// |---|---|
    /// | `intended` | `tanh(alpha / p_c^e)`, `e = (t+1) / beta`, `p = softmax(L / tau)` |
    /// | `reference` | the same with `e = t + 1/beta` |
    /// | `scaled` | `tanh(alpha x / (1 - x))`, `x = (t+1) / (beta q_c)`, `q_c = (L_c / median L)^(1/tau)`; 1 from `x = 1` on |
    /// | `off` | 1 |
    ///
    /// In `scaled`, ours, beta is literally the warm-up: a client of median loss is fully open
    /// after beta rounds, one with twice that loss (tau 1) after twice as many. It depends on
    /// ratios of losses only, so neither their scale nor the number of clients moves it, and the
    /// median keeps one odd client from changing everyone else's pace.
    ///
    /// # Errors
    /// [`HeatingError::NonFiniteLoss`]; the result is never NaN.
    pub fn openness(
        &self,
        losses: &BTreeMap<ClientId, f64>,
        round: Round,
    ) -> Result<BTreeMap<ClientId, f64>, HeatingError> {
        if let Some((&client, &got)) = losses.iter().find(|(_, loss)| !loss.is_finite()) {
            return Err(HeatingError::NonFiniteLoss { client, got });
        }
        let t = round.0 as f64;
        let shares = LogShares::of(losses, self.tau);
        let median = median(losses.values().copied());
        let openness = |(&client, &loss): (&ClientId, &f64)| {
            let Pace { alpha, beta } = self.pace(client);
            let w = match self.form {
                HeatingForm::Intended => published(alpha, (t + 1.0) / beta, shares.log_p(loss)),
                HeatingForm::Reference => published(alpha, t + 1.0 / beta, shares.log_p(loss)),
                HeatingForm::Scaled => {
                    scaled(alpha, (t + 1.0) / beta, difficulty(loss, median, self.tau))
                }
                HeatingForm::Off => 1.0,
            };
            (client, w)
        };
        Ok(losses.iter().map(openness).collect())
    }

    fn pace(&self, client: ClientId) -> Pace {
        self.overrides.get(&client).copied().unwrap_or(self.default)
    }
}

/// `tanh(alpha / p^exponent)` in logs: p may be far below the smallest number.
fn published(alpha: f64, exponent: f64, log_p: f64) -> f64 {
    // The clamp matters only for a beta near 0, where infinity times `ln 1` would be NaN.
    (alpha.ln() - exponent.min(f64::MAX) * log_p).exp().tanh()
}

/// `tanh(alpha x / (1 - x))` with `x = elapsed / difficulty`, 1 once the warm-up is over.
fn scaled(alpha: f64, elapsed: f64, difficulty: f64) -> f64 {
    if elapsed >= difficulty {
        return 1.0;
    }
    // x / (1 - x) = elapsed / (difficulty - elapsed): no 0 / 0 for a difficulty of 0.
    (alpha * elapsed / (difficulty - elapsed)).tanh()
}

/// `(loss / median)^(1/tau)`. A cross-entropy is not negative; below 0 counts as 0.
fn difficulty(loss: f64, median: f64, tau: f64) -> f64 {
    let (loss, median) = (loss.max(0.0), median.max(0.0));
    // Equal losses, zero included, are equally difficult.
    if loss == median { 1.0 } else { (loss / median).powf(1.0 / tau) }
}

/// Softmax of losses / tau, in logs: the largest loss is subtracted before anything overflows.
struct LogShares {
    largest: f64,
    tau: f64,
    log_sum: f64,
}

impl LogShares {
    fn of(losses: &BTreeMap<ClientId, f64>, tau: f64) -> Self {
        let largest = losses.values().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = losses.values().map(|loss| ((loss - largest) / tau).exp()).sum();
        Self { largest, tau, log_sum: sum.ln() }
    }

    fn log_p(&self, loss: f64) -> f64 {
        (loss - self.largest) / self.tau - self.log_sum
    }
}

/// Middle value, or the mean of the two middle ones; NaN for no values.
pub(super) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[middle],
        // Halved before the sum, which might overflow.
        _ => sorted[middle - 1] / 2.0 + sorted[middle] / 2.0,
    }
}

fn check(key: String, got: f64) -> Result<(), HeatingError> {
    if got.is_finite() && got > 0.0 {
        return Ok(());
    }
    Err(HeatingError::OutOfRange { key, got })
}
