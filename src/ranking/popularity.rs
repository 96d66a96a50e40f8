//! The baseline every model must beat: what everybody takes, whoever asks.

use super::metrics::MetricSums;
use super::ranks::ranks;
use crate::data::{Part, UserSplit};
use crate::ids::ItemId;

/// How often each item occurs in training.
#[derive(Clone, Debug, PartialEq)]
pub struct Popularity {
    scores: Vec<f32>,
}

impl Popularity {
    /// Counts the training interactions of `users` over a catalogue of `items`.
    pub fn fit<'a>(items: usize, users: impl IntoIterator<Item = &'a UserSplit>) -> Self {
        // Counted as integers: f32 stops counting at 2^24.
        let mut counts = vec![0_u32; items];
        for item in users.into_iter().flat_map(|user| &user.train) {
            counts[item.index()] += 1;
        }
        Self { scores: counts.into_iter().map(|count| count as f32).collect() }
    }

    /// Count of every item, usable as its score.
    pub fn scores(&self) -> &[f32] {
        &self.scores
    }

    /// Ranks by popularity of one user's targets, known history masked.
    pub fn ranks(&self, known: &[ItemId], targets: &[ItemId]) -> Vec<u32> {
        ranks(&self.scores, known, targets)
    }

    /// The baseline's metrics over `users` at the cut-offs `ks`.
    pub fn evaluate<'a>(
        &self,
        users: impl IntoIterator<Item = &'a UserSplit>,
        part: Part,
        ks: &[u32],
    ) -> MetricSums {
        let mut sums = MetricSums::new(ks);
        for query in users.into_iter().filter_map(|user| user.query(part)) {
            sums.add(&self.ranks(&query.known, query.targets));
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::UserId;

    fn user(id: u32, train: &[u32], test: u32) -> UserSplit {
        let train = train.iter().copied().map(ItemId).collect();
        UserSplit {
            user: UserId(u64::from(id)),
            train,
            validation: Vec::new(),
            test: vec![ItemId(test)],
        }
    }

    #[test]
    fn counts_training_only_and_masks_what_the_user_knows() {
        let users = [user(0, &[0, 1], 2), user(1, &[0, 2], 1), user(2, &[0], 3)];
        let popularity = Popularity::fit(4, &users);
        assert_eq!(popularity.scores(), [3.0, 1.0, 1.0, 0.0]);
        // User 0 knows 0 and 1, so 2 leads; user 1 finds 1 first; user 2 sees 1, 2, then 3.
        let sums = popularity.evaluate(&users, Part::Test, &[1]);
        assert_eq!(sums.means().expect("three users").mrr, (1.0 + 1.0 + 1.0 / 3.0) / 3.0);
    }
}
