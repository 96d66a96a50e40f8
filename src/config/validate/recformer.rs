//! Rules of the section `recformer`, and what its backbone asks of the others.

use crate::config::checks::Checks;
use crate::config::{BackboneKind, Config, OrNone, Projection, Trainable};

impl Config {
    pub(super) fn check_recformer(&self, checks: &mut Checks) {
        let recformer = &self.recformer;
        let window = recformer.window;
        checks.require(
            window >= 2 && window % 2 == 0,
            "recformer.window",
            window,
            "must be even and at least 2: as many tokens on either side",
        );
        checks.at_least_one("recformer.max_items", recformer.max_items);
        checks.at_least_one("recformer.max_attribute_tokens", recformer.max_attribute_tokens);
        checks.require(
            recformer.max_tokens >= 2,
            "recformer.max_tokens",
            recformer.max_tokens,
            "must be at least 2: the first token is no item's",
        );
        checks.positive("recformer.temperature", recformer.temperature);
        checks.at_least_one("recformer.table_batch", i64::from(recformer.table_batch));
        checks.batch("recformer.table_batch", recformer.table_batch);
        if let OrNone::Some(round) = recformer.freeze_table_from {
            let rounds = self.federation.rounds;
            let rule = format!("must be below federation.rounds ({rounds})");
            checks.require(round.0 < rounds, "recformer.freeze_table_from", round, rule);
        }
        if self.model.backbone != BackboneKind::Recformer {
            return;
        }
        checks.require(
            self.model.trainable == Trainable::Full
                || !self.lora.targets.contains(&Projection::GateProj),
            "lora.targets",
            format!("{:?}", self.lora.targets),
            "must not name gate_proj with model.backbone = \"recformer\": its blocks have no gate",
        );
    }
}
