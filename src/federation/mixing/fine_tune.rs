//! Local fine-tuning at the end of a run (method.md section 9).

use super::{Local, MixingError, MixingInput, MixingRule, MixingWeights};
use crate::ids::Round;

/// Mixes by another rule, and in the last rounds not at all.
///
/// The number of rounds stays, and with it the tokens: fine-tuning takes rounds away from the mixing.
pub struct FineTuned {
    rule: Box<dyn MixingRule>,
    from: Round,
}

impl FineTuned {
    /// `rule` up to and without round `from`, [`Local`] from there on.
    pub fn new(rule: Box<dyn MixingRule>, from: Round) -> Self {
        Self { rule, from }
    }
}

impl MixingRule for FineTuned {
    fn name(&self) -> &'static str {
        self.rule.name()
    }

    fn is_personal(&self) -> bool {
        self.rule.is_personal()
    }

    fn weights(&self, input: &MixingInput<'_>) -> Result<MixingWeights, MixingError> {
        if input.round >= self.from { Local.weights(input) } else { self.rule.weights(input) }
    }
}
