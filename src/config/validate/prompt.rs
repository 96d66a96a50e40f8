//! Rules of the sections `prompt`, `generation` and `grounding`.

use crate::config::Config;
use crate::config::checks::Checks;

impl Config {
    pub(super) fn check_prompt(&self, checks: &mut Checks) {
        let prompt = &self.prompt;
        let words = [
            ("prompt.item", &prompt.item),
            ("prompt.items", &prompt.items),
            ("prompt.verb", &prompt.verb),
        ];
        for (key, word) in words {
            let quoted = format!("{word:?}");
            checks.require(!word.trim().is_empty(), key, quoted, "must name a word");
        }
        checks.batch("generation.beams", self.generation.beams.get());
        let penalty = self.generation.length_penalty;
        checks.require(
            penalty.is_finite(),
            "generation.length_penalty",
            penalty,
            "must be a finite number",
        );
        let gammas = &self.grounding.gammas;
        let legal = gammas.iter().all(|gamma| gamma.is_finite() && *gamma >= 0.0);
        let ascending = gammas.windows(2).all(|pair| pair[0] < pair[1]);
        checks.require(
            legal && ascending,
            "grounding.gammas",
            format!("{gammas:?}"),
            "must hold finite numbers of at least 0, ascending",
        );
    }
}
