//! User vectors for clustering: implicit-feedback matrix factorisation by alternating least squares.
//!
//! Y. Hu, Y. Koren, C. Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008,
//! with every interaction seen once. Each half step solves, for all users (or items) u,
//! `(Y'Y + ALPHA * sum_i y_i y_i' + LAMBDA I) x_u = (1 + ALPHA) * sum_i y_i` over u's items i.

use rand::Rng;

use super::super::UserSplit;
use crate::seed;

/// Extra confidence of an interaction over an absence. Source: ours, on ML-1M.
const ALPHA: f64 = 10.0;

/// Ridge that keeps sparse users and unrated items bounded. Source: ours.
const LAMBDA: f64 = 1.0;

/// Unit vectors `[users, width]`, row-major, of the training interactions. Length would say how
/// active a user is; direction says what they like. A user without training items stays at zero.
pub(super) fn user_vectors(
    users: &[UserSplit],
    items: usize,
    width: usize,
    epochs: u32,
    run_seed: u64,
) -> Vec<f64> {
    let items_of: Vec<Vec<u32>> =
        users.iter().map(|user| user.train.iter().map(|item| item.0).collect()).collect();
    let mut users_of = vec![Vec::new(); items];
    for (user, items) in (0..).zip(&items_of) {
        for &item in items {
            users_of[item as usize].push(user);
        }
    }
    let mut rng = seed::rng(run_seed, "user factors", &[]);
    let mut item_vectors: Vec<f64> =
        (0..items * width).map(|_| rng.random_range(-0.1..0.1)).collect();
    let mut user_vectors = vec![0.0; users.len() * width];
    for _ in 0..epochs {
        solve_side(&items_of, &item_vectors, &mut user_vectors, width);
        solve_side(&users_of, &user_vectors, &mut item_vectors, width);
    }
    user_vectors.chunks_mut(width).for_each(normalise);
    user_vectors
}

/// Solves all rows of one side, `[rows, width]`, while the other stands still.
fn solve_side(seen: &[Vec<u32>], fixed: &[f64], solved: &mut [f64], width: usize) {
    let mut gram = vec![0.0; width * width];
    for row in fixed.chunks(width) {
        add_outer(&mut gram, row, 1.0);
    }
    for diagonal in 0..width {
        gram[diagonal * width + diagonal] += LAMBDA;
    }
    for (seen, solution) in seen.iter().zip(solved.chunks_mut(width)) {
        let mut matrix = gram.clone();
        solution.fill(0.0);
        for &other in seen {
            let row = &fixed[other as usize * width..][..width];
            add_outer(&mut matrix, row, ALPHA);
            for (sum, &value) in solution.iter_mut().zip(row) {
                *sum += (1.0 + ALPHA) * value;
            }
        }
        solve_in_place(&mut matrix, solution);
    }
}

/// `matrix += weight * row row'`, lower triangle only: all that the solver reads.
fn add_outer(matrix: &mut [f64], row: &[f64], weight: f64) {
    let width = row.len();
    for (i, &left) in row.iter().enumerate() {
        let left = weight * left;
        for (cell, &right) in matrix[i * width..][..=i].iter_mut().zip(row) {
            *cell += left * right;
        }
    }
}

/// Solves `matrix x = right` by Cholesky; `right` becomes x. The ridge makes the matrix positive definite.
fn solve_in_place(matrix: &mut [f64], right: &mut [f64]) {
    let width = right.len();
    let at = |i: usize, j: usize| i * width + j;
    for j in 0..width {
        for i in j..width {
            let dot: f64 = (0..j).map(|k| matrix[at(i, k)] * matrix[at(j, k)]).sum();
            let rest = matrix[at(i, j)] - dot;
            matrix[at(i, j)] = if i == j { rest.sqrt() } else { rest / matrix[at(j, j)] };
        }
    }
    for i in 0..width {
        let dot: f64 = (0..i).map(|k| matrix[at(i, k)] * right[k]).sum();
        right[i] = (right[i] - dot) / matrix[at(i, i)];
    }
    for i in (0..width).rev() {
        let dot: f64 = (i + 1..width).map(|k| matrix[at(k, i)] * right[k]).sum();
        right[i] = (right[i] - dot) / matrix[at(i, i)];
    }
}

fn normalise(vector: &mut [f64]) {
    let norm = vector.iter().map(|value| value * value).sum::<f64>().sqrt();
    if norm > 0.0 {
        vector.iter_mut().for_each(|value| *value /= norm);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cholesky_solves_a_symmetric_system() {
        // [[4, 2], [2, 3]] x = [2, 5] has x = [-0.5, 2]; the upper triangle is never read.
        let mut matrix = [4.0, f64::NAN, 2.0, 3.0];
        let mut right = [2.0, 5.0];
        solve_in_place(&mut matrix, &mut right);
        assert!((right[0] + 0.5).abs() < 1e-12 && (right[1] - 2.0).abs() < 1e-12, "{right:?}");
    }
}
