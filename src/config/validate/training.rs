//! Rules of the sections `training`, `optimizer` and `evaluation`.

use crate::config::checks::Checks;
use crate::config::{Config, MixingRuleKind, OrNone};

impl Config {
    pub(super) fn check_training(&self, checks: &mut Checks) {
        let optimizer = &self.optimizer;
        checks.batch("training.batch", self.training.batch.get());
        checks.at_least_one("training.loss_chunk", self.training.loss_chunk);
        checks.at_least("training.proximal_mu", self.training.proximal_mu, 0.0);
        if let OrNone::Some(lambda) = self.training.ditto_lambda {
            self.check_ditto(lambda, checks);
        }
        checks.positive("optimizer.learning_rate", optimizer.learning_rate);
        checks.probability("optimizer.beta1", optimizer.beta1);
        checks.probability("optimizer.beta2", optimizer.beta2);
        checks.positive("optimizer.eps", optimizer.eps);
        let decay = optimizer.weight_decay;
        checks.require(
            decay.is_finite() && decay >= 0.0,
            "optimizer.weight_decay",
            decay,
            "must be a finite number of at least 0",
        );
        if let OrNone::Some(norm) = optimizer.clip_norm {
            checks.positive("optimizer.clip_norm", norm);
        }
    }

    fn check_ditto(&self, lambda: f64, checks: &mut Checks) {
        let key = "training.ditto_lambda";
        checks.positive(key, lambda);
        checks.require(
            self.mixing.rule == MixingRuleKind::Fedavg,
            key,
            lambda,
            "needs mixing.rule = \"fedavg\": Ditto's personal models are held to one global model",
        );
        checks.require(
            self.mixing.fine_tune_rounds == 0,
            key,
            lambda,
            "needs mixing.fine_tune_rounds = 0: without mixing there is no global model",
        );
    }

    pub(super) fn check_evaluation(&self, checks: &mut Checks) {
        let ks = &self.evaluation.ks;
        let ascending = ks.windows(2).all(|pair| pair[0] < pair[1]);
        checks.require(
            !ks.is_empty() && ks[0] > 0 && ascending,
            "evaluation.ks",
            format!("{ks:?}"),
            "must hold at least one cut-off, all above 0, ascending",
        );
        checks.batch("evaluation.batch", self.evaluation.batch.get());
    }
}
