//! `Theta_c <- Theta_c + sum over i != c of n_ci (Theta_i - Theta_c)`, all from one snapshot.
//!
//! Shapes: N = clients, M = clients that move, p = columns of a block.

use std::collections::BTreeMap;

use tch::{Kind, Tensor, no_grad};

use super::{MixingError, MixingWeights};
use crate::federation::cohort::{Cohort, across, column_blocks, stack_rows};
use crate::federation::matrix::Matrix;
use crate::ids::ClientId;
use crate::model::slice::{Part, Theta};

/// New tensors of every participant. The inputs are only read (Jacobi), the outputs share no
/// storage with anything.
///
/// Exact where it matters: a client whose off-diagonal weights are all 0, and every number that is
/// the same on all clients, keep each bit. Sums run in f64 in client-id order and are rounded once.
///
/// # Errors
/// [`MixingError::OtherClients`] when the weights were made for another cohort.
pub fn mix(
    cohort: &Cohort<'_>,
    weights: &MixingWeights,
) -> Result<BTreeMap<ClientId, Theta>, MixingError> {
    let thetas = cohort.thetas();
    mix_seen(cohort, &thetas, &thetas, weights)
}

/// The same where clients see of each other something else than what they have: `seen`. `own` is what each goes on
/// from.
pub(super) fn mix_seen(
    cohort: &Cohort<'_>,
    own: &[&Theta],
    seen: &[&Theta],
    weights: &MixingWeights,
) -> Result<BTreeMap<ClientId, Theta>, MixingError> {
    let clients = cohort.clients();
    if weights.clients() != clients {
        let (got, expected) = (weights.clients().len(), clients.len());
        return Err(MixingError::OtherClients { got, expected });
    }
    // All outputs first: small lasting tensors between large passing ones would leave the heap
    // in pieces, ten times their size for 1,000 clients.
    let mixed: Vec<Theta> = own.iter().map(|theta| theta.deep_copy()).collect();
    let targets: Vec<&Theta> = mixed.iter().collect();
    no_grad(|| {
        for part in Part::ALL {
            let pull = Pull::of(weights.matrices().of(part));
            for index in 0..seen[0].part(part).tensors.len() {
                let [targets, own, seen] =
                    [&targets[..], own, seen].map(|thetas| across(thetas, part, index));
                pull.mix_into(&targets, &own, &seen);
            }
        }
    });
    Ok(clients.into_iter().zip(mixed).collect())
}

/// Off-diagonal weights of the clients that move at all.
struct Pull {
    /// Rows of those clients, ascending.
    moving: Vec<i64>,
    /// Their rows with a zero diagonal, `[M, N]`.
    weights_mn: Tensor,
    /// Sums of those rows, `[M, 1]`.
    sums_m1: Tensor,
}

impl Pull {
    fn of(weights: &Matrix) -> Self {
        let size = weights.size();
        let moves = |c: &usize| (0..size).any(|i| i != *c && weights.get(*c, i) != 0.0);
        let moving: Vec<i64> = (0..size).filter(moves).map(|c| c as i64).collect();
        let off_diagonal =
            Matrix::from_fn(size, |c, i| if c == i { 0.0 } else { weights.get(c, i) });
        let weights_mn = off_diagonal.to_tensor().index_select(0, &Tensor::from_slice(&moving));
        let sums_m1 = weights_mn.sum_dim_intlist([1i64].as_slice(), true, Kind::Double);
        Self { moving, weights_mn, sums_m1 }
    }

    /// Mixes one tensor of all clients into the dense copies `targets`.
    fn mix_into(&self, targets: &[&Tensor], own: &[&Tensor], seen: &[&Tensor]) {
        if self.moving.is_empty() {
            return;
        }
        for (start, length) in column_blocks(seen[0].numel(), seen.len()) {
            let moving: Vec<&Tensor> = self.moving.iter().map(|&c| own[c as usize]).collect();
            let rows_mp = self
                .apply(&stack_rows(&moving, start, length), &stack_rows(seen, start, length))
                .to_kind(seen[0].kind());
            for (row, &client) in (0i64..).zip(&self.moving) {
                let mut target = targets[client as usize].view([-1]).narrow(0, start, length);
                target.copy_(&rows_mp.get(row));
            }
        }
    }

    /// Rows of the clients that move, `own_mp`, mixed with what is seen of all, `[N, p]`.
    fn apply(&self, own_mp: &Tensor, seen_np: &Tensor) -> Tensor {
        // Differences to the first client instead of the tensors: where all clients agree they
        // are exactly 0, and so is the step.
        let first_1p = seen_np.narrow(0, 0, 1);
        let step_mp =
            self.weights_mn.mm(&(seen_np - &first_1p)) - &self.sums_m1 * (own_mp - &first_1p);
        // Without the choice, -0.0 plus a step of 0.0 would lose its sign.
        own_mp.where_self(&step_mp.eq(0.0), &(own_mp + &step_mp))
    }
}
