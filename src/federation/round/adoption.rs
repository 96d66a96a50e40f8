//! Who goes on from the mean of the mixed models instead of a state of its own (protocol.md 2).

use std::collections::{BTreeMap, BTreeSet};

use super::FederationState;
use crate::config::{Config, MixingRuleKind};
use crate::ids::ClientId;

/// Which of the clients without a part in a mix go on from its mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adoption {
    who: Adopters,
    /// Rounds that mix at all; in the fine-tuning rounds after them nobody learns from anybody.
    mixing_rounds: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Adopters {
    Nobody,
    /// Those that were never asked. A client that was asked and failed keeps what it has
    /// (architecture.md 4).
    Newcomers,
    /// All: the rule makes one model for everyone.
    Everyone,
}

impl Adoption {
    /// What goes with a run's mixing rule.
    pub fn of(config: &Config) -> Self {
        let who = match config.mixing.rule {
            MixingRuleKind::Fellrec => Adopters::Newcomers,
            // Under Ditto a client has a personal model, which no mean can stand in for.
            MixingRuleKind::Fedavg if config.training.ditto_lambda.get().is_some() => {
                Adopters::Nobody
            }
            MixingRuleKind::Fedavg => Adopters::Everyone,
            MixingRuleKind::Local => Adopters::Nobody,
        };
        let mixing_rounds = config.federation.rounds.saturating_sub(config.mixing.fine_tune_rounds);
        Self { who, mixing_rounds }
    }

    /// Those who go on from the mean of the mix of `reports` that follows on `state`; `absent` are
    /// those who were asked and have no part in it.
    pub fn adopters<R, A>(
        &self,
        state: &FederationState,
        reports: &BTreeMap<ClientId, R>,
        absent: &BTreeMap<ClientId, A>,
    ) -> BTreeSet<ClientId> {
        if state.committed.0 >= self.mixing_rounds {
            return BTreeSet::new();
        }
        let adopts = |client: &&ClientId| match self.who {
            Adopters::Nobody => false,
            Adopters::Newcomers => !absent.contains_key(client) && state.is_newcomer(**client),
            Adopters::Everyone => true,
        };
        let without = state.slices.keys().filter(|client| !reports.contains_key(client));
        without.filter(adopts).copied().collect()
    }
}
