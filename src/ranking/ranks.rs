//! From scores to ranks.

use std::cmp::Ordering;

use crate::ids::ItemId;

/// Ranks of `targets` from 1 among all items but `known`: `1 + #(higher score) + #(equal score and
/// smaller item id)`. A target is never masked, other targets compete.
///
/// `scores[i]` is the score of item i, larger is better. A score that is not a number ranks last, so
/// that a broken model does not look perfect. Items must lie within `scores`.
pub fn ranks(scores: &[f32], known: &[ItemId], targets: &[ItemId]) -> Vec<u32> {
    let mut masked: Vec<ItemId> =
        known.iter().copied().filter(|item| !targets.contains(item)).collect();
    masked.sort_unstable();
    masked.dedup();
    let rank = |&target: &ItemId| {
        let ahead = (0..).map(ItemId).take(scores.len());
        let ahead = ahead.filter(|&item| precedes(scores, item, target)).count();
        let masked_ahead = masked.iter().filter(|&&item| precedes(scores, item, target)).count();
        // An item id is 32 bits wide, so a rank fits.
        (1 + ahead - masked_ahead) as u32
    };
    targets.iter().map(rank).collect()
}

/// Whether `item` stands before `other` in the ranking.
pub(super) fn precedes(scores: &[f32], item: ItemId, other: ItemId) -> bool {
    let order = comparable(scores[item.index()]).total_cmp(&comparable(scores[other.index()]));
    match order {
        Ordering::Greater => true,
        Ordering::Equal => item < other,
        Ordering::Less => false,
    }
}

/// Orders every score: not a number last, and the two zeros equal.
fn comparable(score: f32) -> f32 {
    if score.is_nan() { f32::NEG_INFINITY } else { score + 0.0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn items(ids: &[u32]) -> Vec<ItemId> {
        ids.iter().copied().map(ItemId).collect()
    }

    #[test]
    fn ties_go_to_the_smaller_id_and_known_items_are_out() {
        let scores = [0.5, 0.9, 0.5, 0.5, 0.1];
        assert_eq!(ranks(&scores, &[], &items(&[2])), [3]);
        assert_eq!(ranks(&scores, &items(&[1, 0, 0]), &items(&[2])), [1]);
        assert_eq!(ranks(&scores, &items(&[2, 4]), &items(&[2, 3])), [3, 4]);
    }

    #[test]
    fn a_score_that_is_not_a_number_never_wins() {
        assert_eq!(ranks(&[f32::NAN, 0.0, -1.0], &[], &items(&[0, 1])), [3, 1]);
        assert_eq!(ranks(&[0.0, -0.0], &[], &items(&[1])), [2]);
    }

    proptest! {
        /// Against the definition: sort everything that is not masked and look up the target.
        #[test]
        fn equals_the_position_in_a_sorted_list(
            scores in proptest::collection::vec(-3_i8..3, 1..40),
            known in proptest::collection::vec(0_u32..40, 0..20),
            target in 0_u32..40,
        ) {
            let scores: Vec<f32> = scores.into_iter().map(f32::from).collect();
            let target = ItemId(target % scores.len() as u32);
            let known: Vec<ItemId> =
                known.into_iter().map(|id| ItemId(id % scores.len() as u32)).collect();
            let mut list: Vec<ItemId> = (0..scores.len() as u32)
                .map(ItemId)
                .filter(|item| *item == target || !known.contains(item))
                .collect();
            list.sort_by(|a, b| scores[b.index()].total_cmp(&scores[a.index()]).then(a.cmp(b)));
            let position = list.iter().position(|&item| item == target).expect("never masked");
            prop_assert_eq!(ranks(&scores, &known, &[target]), vec![position as u32 + 1]);
        }
    }
}
