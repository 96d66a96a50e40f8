//! A mixing rule together with what of each other it lets clients see.

use std::collections::BTreeMap;

use super::apply::mix_seen;
use super::robust::Shown;
use super::{MixingError, MixingInput, MixingRule, MixingWeights, Robust, mix};
use crate::federation::shared::mean_theta;
use crate::ids::ClientId;
use crate::model::slice::Theta;

/// Mixes rounds.
pub struct Mixer {
    rule: Box<dyn MixingRule>,
    robust: Robust,
}

/// A mixed round.
#[derive(Debug)]
pub struct Mixed {
    /// New tensors of every participant.
    pub thetas: BTreeMap<ClientId, Theta>,
    /// What they were made with: the rule's weights, without those that were not listened to.
    pub weights: MixingWeights,
    /// For those who have no tensors of their own yet: the mean of the new ones, or of what may be trusted; only
    /// if asked for.
    pub mean: Option<Theta>,
}

impl Mixer {
    /// Mixes by `rule`.
    pub fn new(rule: Box<dyn MixingRule>, robust: Robust) -> Self {
        Self { rule, robust }
    }

    /// Weights and new tensors of a round. All from one snapshot: what is given stays as it is.
    ///
    /// # Errors
    /// Those of the rule.
    pub fn mix(&self, input: &MixingInput<'_>, with_mean: bool) -> Result<Mixed, MixingError> {
        let (cohort, weights) = (input.cohort, self.rule.weights(input)?);
        if self.robust == Robust::Off {
            let thetas = mix(cohort, &weights)?;
            let mean = with_mean.then(|| mean_theta(&thetas.values().collect::<Vec<_>>()));
            return Ok(Mixed { thetas, weights, mean });
        }
        let (personal, heard) = (self.rule.is_personal(), self.robust.heard(cohort));
        let weights = weights.heard(&heard, personal);
        let shown = self.robust.shown(cohort)?;
        let seen: Vec<&Theta> = shown.iter().map(Shown::theta).collect();
        // Without a model of its own a client goes on from what all see of it, unless it takes nothing from anybody.
        let keeps_own =
            |client: usize| self.robust.spares_own() && (personal || weights.is_alone(client));
        let own = cohort.thetas().into_iter().zip(&seen).enumerate();
        let own = own.map(|(client, (own, seen))| if keeps_own(client) { own } else { *seen });
        let thetas = mix_seen(cohort, &own.collect::<Vec<_>>(), &seen, &weights)?;
        let trusted = seen.iter().zip(&heard).filter(|(_, heard)| **heard).map(|(theta, _)| *theta);
        let mean = with_mean.then(|| mean_theta(&trusted.collect::<Vec<_>>()));
        Ok(Mixed { thetas, weights, mean })
    }
}
