//! What a configuration must satisfy beyond the types of its fields: every rule, checked at once.

mod data;
mod nodes;
mod pretrain;
mod prompt;
mod recformer;
mod training;

use std::collections::BTreeSet;

use super::checks::Checks;
use super::federation::MOST_REOPENINGS;
use super::{
    AssignmentKind, BackboneKind, Config, ConfigError, DtypeName, MixingRuleKind, OrNone, Quorum,
    RobustKind, RuntimeConfig, SimilarityKind, Trainable,
};

impl Config {
    /// Checks every rule that one value or several together can break.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with all violations.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut checks = Checks::default();
        self.check_machine(&mut checks);
        self.check_data(&mut checks);
        self.check_clients(&mut checks);
        self.check_model(&mut checks);
        self.check_recformer(&mut checks);
        self.check_lora(&mut checks);
        if self.model.checkpoint == OrNone::None {
            self.check_split(self.model.layers, &mut checks);
        }
        self.check_training(&mut checks);
        self.check_prompt(&mut checks);
        self.check_pretrain(&mut checks);
        self.check_nodes(&mut checks);
        self.check_federation(&mut checks);
        self.check_evaluation(&mut checks);
        // With the other assignments only the data tell the number: see `validate_clients`.
        let known = matches!(
            self.clients.assignment,
            AssignmentKind::KMeans | AssignmentKind::Uniform | AssignmentKind::Silos
        );
        if self.clients.pooled {
            self.check_membership(1, &mut checks);
        } else if known {
            self.check_membership(self.clients.count.get(), &mut checks);
        }
        checks.finish()
    }

    /// Checks the rules that depend on how many clients the data were cut into.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with all violations.
    pub fn validate_clients(&self, clients: u32) -> Result<(), ConfigError> {
        let mut checks = Checks::default();
        self.check_membership(clients, &mut checks);
        checks.finish()
    }

    /// Checks the cut against the number of blocks, which a checkpoint has and the config does not say.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with all violations.
    pub fn validate_layers(&self, layers: i64) -> Result<(), ConfigError> {
        let mut checks = Checks::default();
        self.check_split(layers, &mut checks);
        checks.finish()
    }

    fn check_machine(&self, checks: &mut Checks) {
        checks.require(
            !self.run.out.as_os_str().is_empty(),
            "run.out",
            "\"\"",
            "must name a folder",
        );
        let half = self.runtime.dtype == DtypeName::Bf16;
        checks.require(
            !(half && self.model.trainable == Trainable::Full),
            "runtime.dtype",
            "bf16",
            "must be f32 when model.trainable = \"full\": trained parameters and moments stay f32",
        );
        let RuntimeConfig { clients_at_once, deterministic, recompute, .. } = self.runtime;
        let mut needs = |met: bool, needed: &'static str| {
            checks.require(
                met || clients_at_once.get() == 1,
                "runtime.clients_at_once",
                clients_at_once,
                needed,
            );
        };
        needs(
            !deterministic,
            "must be 1 when runtime.deterministic = true: who is computed with whom depends on time",
        );
        needs(
            recompute,
            "must be 1 when runtime.recompute = false: a graph of several clients would wait for the slowest",
        );
        needs(
            self.model.trainable == Trainable::Lora,
            "must be 1 when model.trainable = \"full\": clients share no weights",
        );
    }

    fn check_model(&self, checks: &mut Checks) {
        let model = &self.model;
        let sizes = [
            ("model.hidden", model.hidden),
            ("model.layers", model.layers),
            ("model.heads", model.heads),
            ("model.kv_heads", model.kv_heads),
            ("model.ffn", model.ffn),
            ("model.vocab", model.vocab),
            ("model.max_title_tokens", model.max_title_tokens),
            ("model.max_history", model.max_history),
        ];
        for (key, size) in sizes {
            checks.at_least_one(key, size);
        }
        checks.positive("model.rope_theta", model.rope_theta);
        checks.positive("model.norm_eps", model.norm_eps);
        checks.positive("model.init_std", model.init_std);
        checks.probability("model.dropout", model.dropout);
        if let OrNone::Some(folder) = &model.adapter {
            checks.require(
                model.trainable == Trainable::Lora,
                "model.adapter",
                folder.display(),
                "needs model.trainable = \"lora\": it is where adapters start from",
            );
        }

        let (hidden, heads, kv_heads) = (model.hidden, model.heads, model.kv_heads);
        if hidden < 1 || heads < 1 || kv_heads < 1 {
            return;
        }
        let rule = format!("must divide model.hidden ({hidden})");
        checks.require(hidden % heads == 0, "model.heads", heads, rule);
        let width = model.head_dim();
        checks.require(
            hidden % heads != 0 || width % 2 == 0 || model.backbone == BackboneKind::Recformer,
            "model.heads",
            heads,
            format!("must leave an even head width, got {width}: RoPE turns pairs of features"),
        );
        let rule = format!("must divide model.heads ({heads})");
        checks.require(heads % kv_heads == 0, "model.kv_heads", kv_heads, rule);
    }

    fn check_lora(&self, checks: &mut Checks) {
        let lora = &self.lora;
        checks.at_least_one("lora.rank", lora.rank);
        checks.positive("lora.alpha", lora.alpha);
        checks.probability("lora.dropout", lora.dropout);
        checks.require(
            !lora.targets.is_empty(),
            "lora.targets",
            "[]",
            "must name at least one projection",
        );
        let unique: BTreeSet<_> = lora.targets.iter().collect();
        checks.require(
            unique.len() == lora.targets.len(),
            "lora.targets",
            format!("{:?}", lora.targets),
            "must not name a projection twice",
        );
    }

    fn check_split(&self, layers: i64, checks: &mut Checks) {
        let (front, back) = (self.split.k_front, self.split.k_back);
        checks.require(
            front >= 1,
            "split.k_front",
            front,
            "must be at least 1: with 0 the embedding would leave the client",
        );
        checks.require(back >= 0, "split.k_back", back, "must be at least 0");
        if let OrNone::Some(replicas) = self.split.replicas {
            checks.at_least_one("split.replicas", i64::from(replicas));
        }
        if front < 1 || back < 0 || layers < 1 {
            return;
        }
        if front.saturating_add(back) > layers {
            let rule =
                format!("with split.k_back ({back}) must not exceed model.layers ({layers})");
            checks.require(false, "split.k_front", front, rule);
            return;
        }
        if let OrNone::Some(stages) = &self.split.stages {
            let body = (front, layers - back);
            let rule = format!(
                "must cut the server's blocks [{}, {}) into consecutive, non-empty ranges",
                body.0, body.1
            );
            checks.require(tiles(stages, body), "split.stages", format!("{stages:?}"), rule);
        }
    }

    fn check_federation(&self, checks: &mut Checks) {
        let share = self.federation.participation;
        checks.require(
            share > 0.0 && share <= 1.0,
            "federation.participation",
            share,
            "must be above 0 and at most 1",
        );

        let budget = self.federation.reopen_budget;
        let rule = format!("must be at most {MOST_REOPENINGS}");
        checks.require(budget <= MOST_REOPENINGS, "federation.reopen_budget", budget, rule);

        let mixing = &self.mixing;
        checks.require(
            mixing.rule != MixingRuleKind::Fellrec
                || mixing.similarity != SimilarityKind::Product
                || self.model.trainable == Trainable::Lora,
            "mixing.similarity",
            "product",
            "needs model.trainable = \"lora\": it compares the products BA of adapters",
        );
        checks.at_least("mixing.sharpness", mixing.sharpness, 1.0);
        checks.positive("mixing.temperature", mixing.temperature);
        checks.require(
            mixing.self_weight > 0.0 && mixing.self_weight < 1.0,
            "mixing.self_weight",
            mixing.self_weight,
            "must be above 0 and below 1",
        );
        checks.positive("mixing.clip_ratio", mixing.clip_ratio);
        checks.at_least_one("mixing.byzantine", i64::from(mixing.byzantine));
        checks.require(
            share == 1.0 || self.training.ditto_lambda.get().is_none(),
            "federation.participation",
            share,
            "must be 1 with training.ditto_lambda: who is not asked would fall behind with both models",
        );
        let (rounds, tuned) = (self.federation.rounds, mixing.fine_tune_rounds);
        let rule = format!("must be below federation.rounds ({rounds}): they are the last of them");
        checks.require(tuned == 0 || tuned < rounds, "mixing.fine_tune_rounds", tuned, rule);

        let heating = &self.heating;
        checks.positive("heating.alpha", heating.alpha);
        checks.positive("heating.beta", heating.beta);
        if let OrNone::Some(tau) = heating.tau {
            checks.positive("heating.tau", tau);
        }
        let mut seen = BTreeSet::new();
        for (position, own) in heating.overrides.iter().enumerate() {
            let key = format!("heating.overrides[{position}]");
            checks.require(
                seen.insert(own.client),
                &key,
                own.client,
                "must not name a client that an earlier entry names",
            );
            checks.require(
                own.alpha.is_some() || own.beta.is_some(),
                &key,
                own.client,
                "must give alpha, beta or both",
            );
            for (name, value) in [("alpha", own.alpha), ("beta", own.beta)] {
                if let Some(value) = value {
                    checks.positive(&format!("{key}.{name}"), value);
                }
            }
        }
        checks.at_least("screening.max_norm_ratio", self.screening.max_norm_ratio, 1.0);
    }

    fn check_membership(&self, clients: u32, checks: &mut Checks) {
        let participants = self.federation.participants(clients);
        if let Quorum::AtLeast(quorum) = self.federation.quorum {
            let rule =
                format!("must not exceed the {participants} of {clients} clients in a round");
            checks.require(quorum.get() <= participants, "federation.quorum", quorum, rule);
        }
        let byzantine = u64::from(self.mixing.byzantine);
        let needed = match self.mixing.robust {
            RobustKind::MultiKrum => 2 * byzantine + 3,
            RobustKind::TrimmedMean => 2 * byzantine + 1,
            RobustKind::None | RobustKind::NormClip => 0,
        };
        let rule = format!(
            "needs {needed} clients in a round with this mixing.robust, and there are {participants}"
        );
        let enough = u64::from(participants) >= needed;
        checks.require(enough, "mixing.byzantine", byzantine, rule);
        for (position, own) in self.heating.overrides.iter().enumerate() {
            let key = format!("heating.overrides[{position}].client");
            let rule = format!("must be below the number of clients ({clients})");
            checks.require(own.client.0 < clients, &key, own.client.0, rule);
        }
    }
}

/// Whether the ranges follow each other without gap or overlap from one end of the body to the other.
fn tiles(stages: &[(i64, i64)], (start, end): (i64, i64)) -> bool {
    let mut next = start;
    for &(from, to) in stages {
        if from != next || to <= from {
            return false;
        }
        next = to;
    }
    // No stage at all tiles an empty body only: with k_front + k_back = layers nothing is offloaded.
    next == end
}
