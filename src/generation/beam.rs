//! Beam search over a batch of prompts, as Hugging Face's `generate(num_beams = k, do_sample = False,
//! early_stopping = False)` does it (transformers 4.50 and later), without the model.
//!
//! The caller holds the model and its caches; the search says which rows live on. Rows are grouped by
//! user, in user order; a user who is done has no rows any more, so that nothing is computed for them.
//!
//! Shapes: R = live rows, V = vocabulary.

use tch::Tensor;

use super::candidates::{Continuation, best};
use crate::config::GenerationConfig;

/// A finished text.
#[derive(Clone, Debug, PartialEq)]
pub struct Hypothesis {
    /// Generated tokens, with the one that ended it, if one did.
    pub tokens: Vec<u32>,
    /// Sum of their log-probabilities over their number to the power of the length penalty.
    pub score: f32,
}

/// The rows of the next forward pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Next input of every row, `[R]`.
    pub tokens: Vec<i64>,
    /// Row of the pass before that each row continues, `[R]`: caches are selected by it.
    pub parents: Vec<i64>,
}

/// What a search is after, equal for all users.
#[derive(Debug)]
struct Rules {
    beams: usize,
    /// Candidates of a step: enough that `beams` go on even if every beam ends in every way it can.
    kept: usize,
    end: Vec<u32>,
    max_new_tokens: usize,
    length_penalty: f64,
}

/// A text that can go on.
#[derive(Debug)]
struct Beam {
    tokens: Vec<u32>,
    score: f32,
}

/// One user's beams, best first, and what is finished, best first.
#[derive(Debug)]
struct Search {
    live: Vec<Beam>,
    finished: Vec<Hypothesis>,
}

/// A beam search in progress.
///
/// # Example
/// ```text
/// prompts -> log-probabilities of the next token, one row a user
/// while let Some(step) = search.advance(&log_probs_rv):
///     select caches by step.parents, feed step.tokens -> log_probs_rv
/// search.finish()
/// ```
#[derive(Debug)]
pub struct BeamSearch {
    rules: Rules,
    searches: Vec<Search>,
    generated: usize,
}

impl BeamSearch {
    /// A search for each of `users` prompts. Any token of `end` ends a text; with none of them, all
    /// texts are `max_new_tokens` long.
    pub fn new(users: usize, end: &[u32], config: &GenerationConfig) -> Self {
        let beams = config.beams.get() as usize;
        let rules = Rules {
            beams,
            kept: beams * (1 + end.len()).max(2),
            end: end.to_vec(),
            max_new_tokens: config.max_new_tokens.get() as usize,
            length_penalty: config.length_penalty,
        };
        let search = |_| Search {
            live: vec![Beam { tokens: Vec::new(), score: 0.0 }],
            finished: Vec::new(),
        };
        Self { rules, searches: (0..users).map(search).collect(), generated: 0 }
    }

    /// Rows of the next forward pass: one a user at first, then up to `beams` for each who is not done.
    pub fn rows(&self) -> usize {
        self.searches.iter().map(|search| search.live.len()).sum()
    }

    /// Takes the log-probabilities `[R, V]` that the rows give their next token, and says what to
    /// compute next; `None` when all users are done.
    ///
    /// Equal scores go to the smaller parent row, then to the smaller token. A token of probability 0,
    /// or of one that is not a number, is no continuation.
    ///
    /// # Panics
    /// When `log_probs_rv` has another number of rows than [`BeamSearch::rows`].
    pub fn advance(&mut self, log_probs_rv: &Tensor) -> Option<Step> {
        let beams = self.searches.iter().flat_map(|search| &search.live);
        let scores: Vec<f32> = beams.map(|beam| beam.score).collect();
        assert_eq!(log_probs_rv.size()[0] as usize, scores.len(), "one row a live beam");
        if scores.is_empty() {
            return None;
        }
        self.generated += 1;
        let continuations = best(log_probs_rv, &scores, self.rules.kept);
        let mut step = Step { tokens: Vec::new(), parents: Vec::new() };
        let mut first = 0;
        for search in &mut self.searches {
            let next = first + search.live.len();
            let parents = search.advance(&continuations[first..next], self.generated, &self.rules);
            step.parents.extend(parents.into_iter().map(|parent| (first + parent) as i64));
            let last = |beam: &Beam| beam.tokens.last().copied().map(i64::from);
            step.tokens.extend(search.live.iter().filter_map(last));
            first = next;
        }
        (!step.tokens.is_empty()).then_some(step)
    }

    /// Up to `beams` hypotheses of every user, best first. Complete once [`BeamSearch::advance`] gave
    /// `None`; before that, what is finished so far. A user whose model gives no probabilities has none.
    pub fn finish(self) -> Vec<Vec<Hypothesis>> {
        self.searches.into_iter().map(|search| search.finished).collect()
    }
}

impl Search {
    /// One step; the parents, within the user's rows, of the beams that live now.
    fn advance(
        &mut self,
        continuations: &[Vec<Continuation>],
        generated: usize,
        rules: &Rules,
    ) -> Vec<usize> {
        let of_row = |(parent, row): (usize, &Vec<Continuation>)| {
            row.iter().map(move |next| (parent, *next)).collect::<Vec<_>>()
        };
        let mut candidates: Vec<(usize, Continuation)> =
            continuations.iter().enumerate().flat_map(of_row).collect();
        // Stable: within a score, candidates stand by parent, then by token.
        candidates.sort_by(|(_, a), (_, b)| b.score.total_cmp(&a.score));
        candidates.truncate(rules.kept);

        let length = (generated as f64).powf(rules.length_penalty) as f32;
        let ended = |next: &Continuation| {
            generated == rules.max_new_tokens || rules.end.contains(&next.token)
        };
        let grown = |(parent, next): &(usize, Continuation)| {
            [&self.live[*parent].tokens[..], &[next.token]].concat()
        };
        // Only the best `beams` may finish; the others stand by in case that some do.
        let finishing = candidates.iter().take(rules.beams).filter(|(_, next)| ended(next));
        self.finished.extend(finishing.map(|candidate| Hypothesis {
            tokens: grown(candidate),
            score: candidate.1.score / length,
        }));
        self.finished.sort_by(|a, b| b.score.total_cmp(&a.score));
        self.finished.truncate(rules.beams);

        let going_on = candidates.iter().filter(|(_, next)| !ended(next)).take(rules.beams);
        let (parents, live): (Vec<usize>, Vec<Beam>) = going_on
            .map(|candidate| {
                (candidate.0, Beam { tokens: grown(candidate), score: candidate.1.score })
            })
            .unzip();
        self.live = live;
        if self.is_done(length, rules.beams) {
            self.live.clear();
            return Vec::new();
        }
        parents
    }

    /// Whether the best beam, were it finished as it is, would not push out the worst hypothesis.
    fn is_done(&self, length: f32, beams: usize) -> bool {
        let Some(best) = self.live.first() else { return true };
        let worst = self.finished.last().filter(|_| self.finished.len() == beams);
        worst.is_some_and(|worst| best.score / length <= worst.score)
    }
}
