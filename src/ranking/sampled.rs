//! Ranking against a few drawn negatives instead of the whole catalogue.
//!
//! Kept apart and labelled, because its figures are about three times those of the full ranking and
//! must never stand beside them unnamed (method.md 7).

use std::fmt;

use rand::Rng;
use rand::seq::index;
use serde::{Deserialize, Serialize};

use super::ranks::precedes;
use crate::data::Query;
use crate::ids::ItemId;
use crate::seed;

/// How negatives are drawn; prints as the label that goes with every figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampledProtocol {
    /// Negatives for each user, uniform and without replacement, neither known nor a target.
    pub negatives: u32,
}

impl fmt::Display for SampledProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sampled: target against {} uniform negatives", self.negatives)
    }
}

/// Ranks of a query's targets from 1, each among the drawn negatives alone. The draw depends on the run
/// seed and the user, so every model and every round meets the same negatives.
///
/// `scores[i]` is the score of item i. Where fewer candidates are left than asked for, all are taken.
pub fn sampled_ranks(
    scores: &[f32],
    query: &Query<'_>,
    protocol: SampledProtocol,
    run_seed: u64,
) -> Vec<u32> {
    let mut rng = seed::rng(run_seed, "sampled negatives", &[query.user.0]);
    let negatives = draw(scores.len(), query, protocol.negatives as usize, &mut rng);
    let rank = |&target: &ItemId| {
        1 + negatives.iter().filter(|&&item| precedes(scores, item, target)).count() as u32
    };
    query.targets.iter().map(rank).collect()
}

fn draw(items: usize, query: &Query<'_>, wanted: usize, rng: &mut impl Rng) -> Vec<ItemId> {
    let mut excluded = vec![false; items];
    query.known.iter().chain(query.targets).for_each(|item| excluded[item.index()] = true);
    let candidates: Vec<ItemId> =
        (0..).map(ItemId).take(items).filter(|item| !excluded[item.index()]).collect();
    let drawn = index::sample(rng, candidates.len(), wanted.min(candidates.len()));
    drawn.into_iter().map(|position| candidates[position]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::UserId;

    #[test]
    fn negatives_are_distinct_and_neither_known_nor_targets() {
        let known = vec![ItemId(1), ItemId(2)];
        let targets = [ItemId(3)];
        let query = Query { user: UserId(9), known, targets: &targets };
        let mut rng = seed::rng(1, "test", &[]);
        let mut drawn = draw(20, &query, 12, &mut rng);
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), 12);
        assert!(drawn.iter().all(|item| ![1, 2, 3].contains(&item.0)));
        assert_eq!(draw(20, &query, 1_000, &mut rng).len(), 17);
    }

    #[test]
    fn the_draw_is_the_users_own_and_repeats() {
        let scores: Vec<f32> = (0..1_000_u16).map(f32::from).collect();
        let targets = [ItemId(500)];
        let rank = |user| {
            let query = Query { user: UserId(user), known: vec![ItemId(0)], targets: &targets };
            sampled_ranks(&scores, &query, SampledProtocol { negatives: 100 }, 42)
        };
        assert_eq!(rank(1), rank(1));
        assert!((1..50).any(|user| rank(user) != rank(0)));
    }
}
