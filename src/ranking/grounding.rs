//! From a generated title to a ranking of the catalogue: by distance of embeddings, optionally weighed
//! with popularity (method.md 6.1).
//!
//! Items of equal title have equal embeddings, so their distances are equal, and [`ranks`] puts the
//! smaller item id first.
//!
//! Shapes: N = generated titles, V = catalogue, D = width of the embeddings.

use tch::{Kind, Tensor, no_grad};

use super::metrics::MetricSums;
use super::popularity::Popularity;
use super::ranks::ranks;
use crate::ids::ItemId;

/// Items whose embeddings are converted at once.
const CHUNK: i64 = 4096;

/// Validation metric that chooses between exponents: NDCG at this cut-off.
const CUTOFF: u32 = 10;

/// Euclidean distances `[N, V]` in f32 of `generated_nd` to every row of `catalogue_vd`.
///
/// From differences, in f64, not from |a|^2 - 2ab + |b|^2: embeddings of titles lie close together, and
/// that form would lose what tells them apart. Equal rows get equal bits. Beside the result, no more is
/// held than the generated rows and a few thousand catalogue rows in f64.
pub fn distances(generated_nd: &Tensor, catalogue_vd: &Tensor) -> Tensor {
    no_grad(|| {
        let generated_nd = generated_nd.to_kind(Kind::Double);
        let items = catalogue_vd.size()[0];
        let of_chunk = |start: i64| {
            let chunk_cd = catalogue_vd.narrow(0, start, CHUNK.min(items - start));
            let chunk_cd = chunk_cd.to_kind(Kind::Double);
            // Mode 2: never by matrix multiplication.
            Tensor::cdist(&generated_nd, &chunk_cd, 2.0, 2).to_kind(Kind::Float)
        };
        let chunks: Vec<Tensor> = (0..items).step_by(CHUNK as usize).map(of_chunk).collect();
        Tensor::cat(&chunks, 1)
    })
}

/// Scores of one generated title from its distances, larger is better.
pub fn distance_scores(distances: &[f32]) -> Vec<f32> {
    distances.iter().map(|distance| -distance).collect()
}

/// Distances weighed with popularity: score_i = -D_i * (1 + pop_i)^(-gamma).
///
/// D is one query's distances and pop the training popularity, both min-max normalised to 0..1.
#[derive(Clone, Debug, PartialEq)]
pub struct PopularityWeights {
    /// 1 + pop_i.
    bases: Vec<f64>,
}

impl PopularityWeights {
    /// Weights by the training counts of `popularity`.
    pub fn new(popularity: &Popularity) -> Self {
        let normalised = normalised(popularity.scores());
        Self { bases: normalised.into_iter().map(|popularity| 1.0 + popularity).collect() }
    }

    /// Scores of one generated title, larger is better; `gamma` 0 ranks by distance alone.
    pub fn scores(&self, distances: &[f32], gamma: f64) -> Vec<f32> {
        let pairs = normalised(distances).into_iter().zip(&self.bases);
        pairs.map(|(distance, base)| (-distance * base.powf(-gamma)) as f32).collect()
    }
}

/// Values moved and scaled to 0..1; all 0 where they are all equal. What is not finite stays so and does
/// not count: one broken value must not spoil the others.
fn normalised(values: &[f32]) -> Vec<f64> {
    let finite = || values.iter().copied().filter(|value| value.is_finite()).map(f64::from);
    let least = finite().fold(f64::INFINITY, f64::min);
    let most = finite().fold(f64::NEG_INFINITY, f64::max);
    let range = if most > least { most - least } else { 1.0 };
    values.iter().map(|value| (f64::from(*value) - least) / range).collect()
}

/// Validation metrics under every exponent of a grid.
#[derive(Clone, Debug, PartialEq)]
pub struct GammaSearch {
    sums: Vec<(f64, MetricSums)>,
}

impl GammaSearch {
    /// Nothing yet, for the exponents of `grounding.gammas`.
    pub fn new(gammas: &[f64]) -> Self {
        Self { sums: gammas.iter().map(|gamma| (*gamma, MetricSums::new(&[CUTOFF]))).collect() }
    }

    /// Ranks one validation user's targets under every exponent.
    pub fn add(
        &mut self,
        weights: &PopularityWeights,
        distances: &[f32],
        known: &[ItemId],
        targets: &[ItemId],
    ) {
        for (gamma, sums) in &mut self.sums {
            sums.add(&ranks(&weights.scores(distances, *gamma), known, targets));
        }
    }

    /// Adds another client's sums, over the same exponents.
    pub fn merge(&mut self, other: &Self) {
        for ((_, sums), (_, others)) in self.sums.iter_mut().zip(&other.sums) {
            sums.merge(others);
        }
    }

    /// The exponent of the best NDCG@10, the smallest of equally good ones; `None` without a grid or
    /// without a user.
    pub fn best(&self) -> Option<f64> {
        let mut best: Option<(f64, f64)> = None;
        for (gamma, sums) in &self.sums {
            let ndcg = sums.means()?.ndcg[&CUTOFF];
            let wins =
                best.is_none_or(|(least, most)| ndcg > most || (ndcg == most && *gamma < least));
            if wins {
                best = Some((*gamma, ndcg));
            }
        }
        best.map(|(gamma, _)| gamma)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::Rng;

    use super::*;
    use crate::data::UserSplit;
    use crate::ids::UserId;
    use crate::seed;

    fn items(ids: &[u32]) -> Vec<ItemId> {
        ids.iter().copied().map(ItemId).collect()
    }

    fn values(tensor: &Tensor) -> Vec<f32> {
        Vec::try_from(tensor.reshape([-1])).expect("floats")
    }

    /// Popularity of a catalogue whose item i occurs `counts[i]` times.
    fn popularity(counts: &[u32]) -> Popularity {
        let times = |(id, count): (u32, &u32)| vec![ItemId(id); *count as usize];
        let train = (0..).zip(counts).flat_map(times).collect();
        let (validation, test) = (Vec::new(), Vec::new());
        let user = UserSplit { user: UserId(0), train, validation, test };
        Popularity::fit(counts.len(), [&user])
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

        /// Far from the origin, where the usual expansion of the square has no digits left.
        #[test]
        fn distances_equal_brute_force(
            rows in proptest::collection::vec(proptest::collection::vec(-1e-2..1e-2_f32, 5), 2..9),
            offset in -1e3..1e3_f32,
        ) {
            let rows: Vec<Vec<f32>> = rows.iter().map(|row| row.iter().map(|x| x + offset).collect()).collect();
            let table = Tensor::from_slice(&rows.concat()).view([-1, 5]);
            let found = values(&distances(&table.narrow(0, 0, 2), &table));
            for (place, distance) in found.iter().enumerate() {
                let (a, b) = (&rows[place / rows.len()], &rows[place % rows.len()]);
                let squares: f64 = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
                prop_assert!((f64::from(*distance) - squares.sqrt()).abs() <= 1e-6 * squares.sqrt());
            }
        }

        /// Weights never bring an item to the front of one that is both nearer and more popular.
        #[test]
        fn popularity_lifts_only_the_popular(
            pairs in proptest::collection::vec((0..50_u8, 0..9_u32), 2..20),
            gamma in 0.0..50.0_f64,
        ) {
            let distances: Vec<f32> = pairs.iter().map(|(distance, _)| f32::from(*distance)).collect();
            let counts: Vec<u32> = pairs.iter().map(|(_, count)| *count).collect();
            let weights = PopularityWeights::new(&popularity(&counts));
            let scores = weights.scores(&distances, gamma);
            let unweighed = weights.scores(&distances, 0.0);
            let all = (0..pairs.len() as u32).map(ItemId).collect::<Vec<_>>();
            prop_assert_eq!(ranks(&unweighed, &[], &all), ranks(&distance_scores(&distances), &[], &all));
            for (i, a) in pairs.iter().enumerate() {
                for (j, b) in pairs.iter().enumerate() {
                    if a.0 <= b.0 && a.1 >= b.1 {
                        prop_assert!(scores[i] >= scores[j], "{a:?} and {b:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_catalogue_of_several_chunks_is_whole() {
        let catalogue = Tensor::arange(2 * CHUNK + 3, (Kind::Float, tch::Device::Cpu)).unsqueeze(1);
        let found = distances(&Tensor::from_slice(&[1.0_f32]).view([1, 1]), &catalogue);
        assert_eq!(found.size(), [1, 2 * CHUNK + 3]);
        let expected: Vec<f32> = (0..2 * CHUNK + 3).map(|item| (item - 1).abs() as f32).collect();
        assert_eq!(values(&found), expected);
    }

    /// Two items of one title, in different chunks: the smaller id stands first, whatever the width.
    #[test]
    fn equal_titles_are_equally_far_and_go_by_item_id() {
        let (twin, width) = (CHUNK + 5, 37);
        let mut rng = seed::rng(7, "test", &[]);
        let mut random = |rows: i64| {
            let values: Vec<f32> =
                (0..rows * width).map(|_| rng.random_range(-1.0..1.0_f32)).collect();
            Tensor::from_slice(&values).view([rows, width])
        };
        let (catalogue, generated) = (random(CHUNK + 9), random(2));
        catalogue.get(twin).copy_(&catalogue.get(3));
        let found = values(&distances(&generated, &catalogue));
        for of_query in found.chunks(CHUNK as usize + 9) {
            assert_eq!(of_query[3].to_bits(), of_query[twin as usize].to_bits());
            let ranks = ranks(&distance_scores(of_query), &[], &items(&[3, twin as u32]));
            assert_eq!(ranks[1], ranks[0] + 1);
        }
    }

    #[test]
    fn popularity_by_hand() {
        let weights = PopularityWeights::new(&popularity(&[0, 4, 2]));
        // Distances 0.5, 1, 0 after normalisation; popularity 0, 1, 0.5.
        let scores = weights.scores(&[3.0, 4.0, 2.0], 2.0);
        assert_eq!(scores, [-0.5, -0.25, 0.0]);
        let broken = weights.scores(&[f32::NAN, 4.0, 2.0], 2.0);
        assert!(broken[0].is_nan());
        assert_eq!(broken[1..], [-0.25, 0.0]);
        assert_eq!(weights.scores(&[2.0; 3], 1.0), [0.0; 3]);
    }

    #[test]
    fn the_exponent_of_the_best_validation_ndcg_wins_and_the_smallest_of_equals() {
        let weights = PopularityWeights::new(&popularity(&[0, 0, 9, 0]));
        let distances = [0.1, 0.5, 0.9, 1.0];
        let best = |gammas: &[f64], target: u32| {
            let mut search = GammaSearch::new(gammas);
            search.add(&weights, &distances, &items(&[0]), &items(&[target]));
            search.best()
        };
        // The popular item 2 passes item 1 from 2^gamma > 2 on; item 1 is best left alone.
        assert_eq!(best(&[0.0, 0.5, 2.0, 5.0], 2), Some(2.0));
        assert_eq!(best(&[5.0, 2.0], 2), Some(2.0));
        assert_eq!(best(&[0.0, 0.5, 2.0], 1), Some(0.0));
        assert_eq!(best(&[], 1), None);
        assert_eq!(GammaSearch::new(&[1.0]).best(), None);
        // Clients choose together: two users are better off with 0.
        let mut search = GammaSearch::new(&[0.0, 2.0]);
        search.add(&weights, &distances, &items(&[0]), &items(&[2]));
        assert_eq!(search.best(), Some(2.0));
        let mut other = GammaSearch::new(&[0.0, 2.0]);
        (0..2).for_each(|_| other.add(&weights, &distances, &items(&[0]), &items(&[1])));
        search.merge(&other);
        assert_eq!(search.best(), Some(0.0));
    }
}
