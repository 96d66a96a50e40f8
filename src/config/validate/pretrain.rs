//! Rules of the section `pretrain`.

use crate::config::Config;
use crate::config::checks::Checks;

impl Config {
    pub(super) fn check_pretrain(&self, checks: &mut Checks) {
        let pretrain = &self.pretrain;
        checks.at_least_one("pretrain.steps", i64::try_from(pretrain.steps).unwrap_or(i64::MAX));
        // In-batch negatives need somebody to be told from.
        checks.require(pretrain.batch >= 2, "pretrain.batch", pretrain.batch, "must be at least 2");
        checks.batch("pretrain.batch", pretrain.batch);
        checks.positive("pretrain.learning_rate", pretrain.learning_rate);
        checks.probability("pretrain.held_out", pretrain.held_out);
    }
}
