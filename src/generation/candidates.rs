//! The best continuations of every live row.
//!
//! Shapes: R = live rows, V = vocabulary, K = continuations kept of a row.

use tch::{Kind, Tensor, no_grad};

/// A row with one more token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Continuation {
    /// Sum of the log-probabilities of its tokens.
    pub score: f32,
    /// The token added.
    pub token: u32,
}

/// The `kept` best continuations of every row, best first, smaller tokens first among equals.
///
/// `scores` are the rows' own. Impossible continuations (minus infinity, or not a number) are left out.
pub(super) fn best(log_probs_rv: &Tensor, scores: &[f32], kept: usize) -> Vec<Vec<Continuation>> {
    no_grad(|| {
        let scores_r1 = Tensor::from_slice(scores).to_device(log_probs_rv.device()).unsqueeze(1);
        let sums_rv = log_probs_rv.to_kind(Kind::Float) + scores_r1;
        let sums_rv = sums_rv.nan_to_num(f64::NEG_INFINITY, f64::INFINITY, f64::NEG_INFINITY);
        let kept = (kept as i64).min(sums_rv.size()[1]);
        let (values_rk, tokens_rk) = top(&sums_rv, kept);
        let (values, tokens) = (floats(&values_rk), integers(&tokens_rk));
        let rows = values.chunks(kept as usize).zip(tokens.chunks(kept as usize));
        rows.map(|(values, tokens)| {
            let pairs = values.iter().zip(tokens).filter(|(score, _)| **score > f32::NEG_INFINITY);
            let of_pair = |(&score, &token): (&f32, &i64)| Continuation {
                score,
                // A vocabulary's ids fit 32 bits: tokenizers have no wider ones.
                token: token as u32,
            };
            let mut row: Vec<Continuation> = pairs.map(of_pair).collect();
            row.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.token.cmp(&b.token)));
            row
        })
        .collect()
    })
}

/// Values and tokens of the `kept` largest sums of every row. Which of several equal sums `topk` takes is
/// not defined, so rows whose last place is contested are sorted stably: the smaller token wins.
fn top(sums_rv: &Tensor, kept: i64) -> (Tensor, Tensor) {
    let (values_rk, tokens_rk) = sums_rv.topk(kept, 1, true, false);
    let least_r1 = values_rk.amin([1i64], true);
    let reaching_r = sums_rv.ge_tensor(&least_r1).sum_dim_intlist(1i64, false, Kind::Int64);
    let contested_c = reaching_r.gt(kept).nonzero().reshape([-1]);
    if contested_c.numel() == 0 {
        return (values_rk, tokens_rk);
    }
    let (values_cv, tokens_cv) = sums_rv.index_select(0, &contested_c).sort_stable(true, 1, true);
    let first = |sorted: &Tensor| sorted.narrow(1, 0, kept);
    (
        values_rk.index_copy(0, &contested_c, &first(&values_cv)),
        tokens_rk.index_copy(0, &contested_c, &first(&tokens_cv)),
    )
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    let mut values = vec![0f32; tensor.numel()];
    tensor.contiguous().copy_data(&mut values, tensor.numel());
    values
}

fn integers(tensor: &Tensor) -> Vec<i64> {
    let mut values = vec![0i64; tensor.numel()];
    tensor.contiguous().copy_data(&mut values, tensor.numel());
    values
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens(row: &[Continuation]) -> Vec<u32> {
        row.iter().map(|continuation| continuation.token).collect()
    }

    #[test]
    fn the_rows_own_score_counts_and_impossible_tokens_are_left_out() {
        let (no, nan) = (f32::NEG_INFINITY, f32::NAN);
        let log_probs = Tensor::from_slice2(&[[-1.0, no, -0.5, nan], [nan, no, no, no]]);
        let rows = best(&log_probs, &[-2.0, 0.0], 3);
        assert_eq!(rows[0][0], Continuation { score: -2.5, token: 2 });
        assert_eq!(rows[0][1], Continuation { score: -3.0, token: 0 });
        assert_eq!((rows[0].len(), rows[1].len()), (2, 0));
    }

    proptest! {
        /// Many ties, also at the last place: against a full sort.
        #[test]
        fn equals_a_full_sort(rows in proptest::collection::vec(proptest::collection::vec(0..3_u8, 40), 1..6), kept in 1..50_usize) {
            let flat: Vec<f32> = rows.concat().into_iter().map(|value| -f32::from(value)).collect();
            let log_probs = Tensor::from_slice(&flat).view([rows.len() as i64, 40]);
            let found = best(&log_probs, &vec![0.0; rows.len()], kept);
            for (row, found) in rows.iter().zip(found) {
                let mut order: Vec<u32> = (0..40).collect();
                order.sort_by_key(|token| (row[*token as usize], *token));
                order.truncate(kept);
                prop_assert_eq!(tokens(&found), order);
            }
        }
    }
}
