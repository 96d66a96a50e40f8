//! Who goes on from the mean of the mixed models instead of a state of its own (protocol.md 2).

use crate::config::MixingRuleKind;

/// Which of the clients without a part in a mix go on from the mean of the mixed models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adoption {
    /// None: nobody learns from anybody.
    Nobody,
    /// Those that were never asked. A client that was asked and failed keeps what it has
    /// (architecture.md 4).
    Newcomers,
    /// All: the rule makes one model for everyone.
    Everyone,
}

impl Adoption {
    /// What goes with a mixing rule.
    pub fn of(rule: MixingRuleKind) -> Self {
        match rule {
            MixingRuleKind::Fellrec => Adoption::Newcomers,
            MixingRuleKind::Fedavg => Adoption::Everyone,
            MixingRuleKind::Local => Adoption::Nobody,
        }
    }

    /// Whether a client without a part goes on from the mean.
    pub fn adopts(self, was_asked: bool, is_newcomer: bool) -> bool {
        match self {
            Adoption::Nobody => false,
            Adoption::Newcomers => is_newcomer && !was_asked,
            Adoption::Everyone => true,
        }
    }
}
