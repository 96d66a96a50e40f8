//! Recall@K, NDCG@K and MRR, as sums that add up over clients.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Sums over users. Clients send these, not their users' ranks; sums of the same cut-offs add up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricSums {
    /// Users summed.
    pub users: u64,
    /// Recall and discounted gain at each cut-off.
    at: BTreeMap<u32, SumsAt>,
    /// Of the best-ranked target.
    reciprocal_rank: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct SumsAt {
    recall: f64,
    ndcg: f64,
}

/// Means over users, each in 0..1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Users the means are over.
    pub users: u64,
    /// Recall@K by K; with one target the hit rate.
    pub recall: BTreeMap<u32, f64>,
    /// NDCG@K by K.
    pub ndcg: BTreeMap<u32, f64>,
    /// Mean reciprocal rank of the best-ranked target, over the full list.
    pub mrr: f64,
}

impl MetricSums {
    /// Nothing yet, for the cut-offs `ks`.
    pub fn new(ks: &[u32]) -> Self {
        let at = ks.iter().map(|&k| (k, SumsAt::default())).collect();
        Self { users: 0, at, reciprocal_rank: 0.0 }
    }

    /// Adds a user whose targets got `ranks`, from 1; a user without targets is not counted.
    ///
    /// With targets G: Recall@K = hits / |G|; NDCG@K = sum over hits of 1 / log2(rank + 1), divided by
    /// the same sum over the first min(K, |G|) positions (method.md 7).
    pub fn add(&mut self, ranks: &[u32]) {
        let Some(&best) = ranks.iter().min() else { return };
        self.users += 1;
        self.reciprocal_rank += 1.0 / f64::from(best);
        for (&k, sums) in &mut self.at {
            let hits = ranks.iter().filter(|&&rank| rank <= k);
            let gain: f64 = hits.clone().map(|&rank| discount(rank)).sum();
            let ideal: f64 = (1..=k).take(ranks.len()).map(discount).sum();
            sums.recall += hits.count() as f64 / ranks.len() as f64;
            sums.ndcg += if ideal > 0.0 { gain / ideal } else { 0.0 };
        }
    }

    /// Adds another client's sums. Bits depend on the order: callers merge in client-id order.
    /// A cut-off that only one side has is dropped: its sum would be over some users only.
    pub fn merge(&mut self, other: &Self) {
        // A side without users sums to zero at any cut-off and takes none away.
        if other.users == 0 {
            return;
        }
        if self.users == 0 {
            self.clone_from(other);
            return;
        }
        self.users += other.users;
        self.reciprocal_rank += other.reciprocal_rank;
        self.at.retain(|k, _| other.at.contains_key(k));
        for (k, sums) in &mut self.at {
            sums.recall += other.at[k].recall;
            sums.ndcg += other.at[k].ndcg;
        }
    }

    /// Means over users; `None` before the first user.
    pub fn means(&self) -> Option<Metrics> {
        if self.users == 0 {
            return None;
        }
        let users = self.users as f64;
        Some(Metrics {
            users: self.users,
            recall: self.at.iter().map(|(&k, sums)| (k, sums.recall / users)).collect(),
            ndcg: self.at.iter().map(|(&k, sums)| (k, sums.ndcg / users)).collect(),
            mrr: self.reciprocal_rank / users,
        })
    }
}

/// What a hit at `rank` is worth.
fn discount(rank: u32) -> f64 {
    1.0 / (f64::from(rank) + 1.0).log2()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn means(users: &[&[u32]], ks: &[u32]) -> Metrics {
        let mut sums = MetricSums::new(ks);
        users.iter().for_each(|ranks| sums.add(ranks));
        sums.means().expect("users were added")
    }

    #[test]
    fn one_target_by_hand() {
        let metrics = means(&[&[1], &[3], &[11]], &[1, 5, 10]);
        assert_eq!(
            metrics.recall,
            BTreeMap::from([(1, 1.0 / 3.0), (5, 2.0 / 3.0), (10, 2.0 / 3.0)])
        );
        assert_eq!(metrics.ndcg[&10], (1.0 + 0.5) / 3.0);
        assert_eq!(metrics.mrr, (1.0 + 1.0 / 3.0 + 1.0 / 11.0) / 3.0);
    }

    /// method.md 7: Recall@K = hits / |G|, and the ideal is over min(K, |G|) positions.
    #[test]
    fn several_targets_by_hand() {
        let metrics = means(&[&[1, 4, 30]], &[1, 5]);
        assert_eq!(metrics.recall[&1], 1.0 / 3.0);
        assert_eq!(metrics.ndcg[&1], 1.0);
        assert_eq!(metrics.recall[&5], 2.0 / 3.0);
        let ideal = 1.0 + 1.0 / 3_f64.log2() + 0.5;
        assert!((metrics.ndcg[&5] - (1.0 + 1.0 / 5_f64.log2()) / ideal).abs() < 1e-15);
    }

    #[test]
    fn a_user_without_targets_does_not_count() {
        let mut sums = MetricSums::new(&[5]);
        sums.add(&[]);
        assert_eq!(sums.means(), None);
    }

    fn ranks_of_users() -> impl Strategy<Value = Vec<Vec<u32>>> {
        // Distinct ranks, as any ranking gives them.
        let user = proptest::collection::hash_set(1_u32..60, 1..6);
        proptest::collection::vec(user.prop_map(|ranks| ranks.into_iter().collect()), 1..20)
    }

    proptest! {
        /// Against the definition, position by position of the recommended list.
        #[test]
        fn equals_brute_force(ranks in ranks_of_users(), k in 1_u32..30) {
            let (mut recall, mut ndcg) = (0.0, 0.0);
            for ranks in &ranks {
                let relevant: Vec<f64> =
                    (1..=k).map(|position| f64::from(u8::from(ranks.contains(&position)))).collect();
                let dcg = |relevant: &[f64]| -> f64 {
                    relevant.iter().zip(2..).map(|(r, i)| r / f64::from(i).log2()).sum()
                };
                let mut best = vec![1.0; ranks.len().min(k as usize)];
                best.resize(k as usize, 0.0);
                recall += relevant.iter().sum::<f64>() / ranks.len() as f64;
                ndcg += dcg(&relevant) / dcg(&best);
            }
            let users: Vec<&[u32]> = ranks.iter().map(Vec::as_slice).collect();
            let metrics = means(&users, &[k]);
            prop_assert!((metrics.recall[&k] - recall / users.len() as f64).abs() < 1e-12);
            prop_assert!((metrics.ndcg[&k] - ndcg / users.len() as f64).abs() < 1e-12);
        }

        /// Clients' sums add up to the sums over all users.
        #[test]
        fn merging_equals_summing(left in ranks_of_users(), right in ranks_of_users()) {
            let sums = |users: &[Vec<u32>]| {
                let mut sums = MetricSums::new(&[1, 10]);
                users.iter().for_each(|ranks| sums.add(ranks));
                sums
            };
            let mut merged = sums(&left);
            merged.merge(&sums(&right));
            let (merged, whole) = (merged.means(), sums(&[left, right].concat()).means());
            let (merged, whole) = (merged.expect("users"), whole.expect("users"));
            prop_assert_eq!(merged.users, whole.users);
            prop_assert!((merged.mrr - whole.mrr).abs() < 1e-12);
            prop_assert!((merged.ndcg[&10] - whole.ndcg[&10]).abs() < 1e-12);
        }
    }
}
