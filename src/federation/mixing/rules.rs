//! The rules that ship: FELLRec's and the baselines it is compared with (method.md sections 3, 9).

use super::{MixingError, MixingInput, MixingRule, MixingWeights};
use crate::config::{MixingConfig, Normalisation};
use crate::federation::matrix::{Grouped, Matrix};
use crate::federation::similarity::similarity;

/// Similarity opened by heating: every client gets its own model.
///
/// | normalisation | for i != c | own |
/// |---|---|---|
/// | `sum` | `a_ci = w_c s_ci^gamma`, divided by the row's sum | `a_cc = 1` |
/// | `softmax` | `a_ci = w_c exp((s_ci - 1) / temperature)`, divided by the row's sum | `a_cc = 1` |
/// | `share` | `n_ci = w_c (1 - sigma) s_ci^gamma / sum_j s_cj^gamma`, j != c | `n_cc = 1 - w_c (1 - sigma)` |
///
/// `softmax` is the row softmax of `s / temperature` with `ln w_c` added to the off-diagonal
/// logits, since `s_cc = 1`; the temperature takes the place of gamma there. In `share`, ours,
/// heating alone says how much a client takes over and similarity alone from whom: neither the
/// number of clients nor the level of the cosines moves the weight `sigma` of one's own.
#[derive(Clone, Debug)]
pub struct FellRec {
    config: MixingConfig,
}

impl FellRec {
    /// A rule with the keys of section `mixing`.
    pub fn new(config: MixingConfig) -> Self {
        Self { config }
    }

    /// Attention to another client of this similarity, before openness.
    fn attention(&self, similarity: f64) -> f64 {
        match self.config.normalisation {
            Normalisation::Sum | Normalisation::Share => similarity.powf(self.config.sharpness),
            Normalisation::Softmax => ((similarity - 1.0) / self.config.temperature).exp(),
        }
    }

    /// Rows of one matrix, not yet divided by their sums.
    fn rows(&self, similarity: &Matrix, openness: &[f64]) -> Matrix {
        let attention =
            Matrix::from_fn(similarity.size(), |c, i| self.attention(similarity.get(c, i)));
        // What the others get for each unit of attention.
        let price = |c: usize| match self.config.normalisation {
            Normalisation::Sum | Normalisation::Softmax => openness[c],
            Normalisation::Share => {
                let others = (0..similarity.size()).filter(|i| *i != c);
                let others: f64 = others.map(|i| attention.get(c, i)).sum();
                let given = openness[c] * (1.0 - self.config.self_weight);
                // Odds: normalised by its sum, a row with 1 on the diagonal gives the others `given`.
                if others > 0.0 { given / (1.0 - given) / others } else { 0.0 }
            }
        };
        let prices: Vec<f64> = (0..similarity.size()).map(price).collect();
        Matrix::from_fn(similarity.size(), |c, i| {
            if c == i { 1.0 } else { prices[c] * attention.get(c, i) }
        })
    }
}

impl MixingRule for FellRec {
    fn name(&self) -> &'static str {
        "fellrec"
    }

    fn weights(&self, input: &MixingInput<'_>) -> Result<MixingWeights, MixingError> {
        let clients = input.cohort.clients();
        let openness: Vec<f64> =
            clients.iter().map(|&client| input.openness_of(client)).collect::<Result<_, _>>()?;
        let similarity = similarity(self.config.similarity, input.cohort, self.config.groups)?;
        let attention = similarity.map(|s| self.rows(s, &openness));
        Ok(MixingWeights::normalised(clients, &attention)?.with_similarity(similarity))
    }
}

/// Federated averaging: one mean for all, weighted by data size. Source: McMahan et al. 2017.
#[derive(Clone, Copy, Debug)]
pub struct FedAvg;

impl MixingRule for FedAvg {
    fn name(&self) -> &'static str {
        "fedavg"
    }

    fn is_personal(&self) -> bool {
        false
    }

    fn weights(&self, input: &MixingInput<'_>) -> Result<MixingWeights, MixingError> {
        let clients = input.cohort.clients();
        let mut sizes = Vec::with_capacity(clients.len());
        for &client in &clients {
            let size = input.data_sizes.get(&client).ok_or(MixingError::NoDataSize { client })?;
            sizes.push(*size as f64);
        }
        if sizes.iter().all(|&size| size == 0.0) {
            // Nobody trained, as when few rows meet a small sample of the clients: nothing to average.
            return Local.weights(input);
        }
        let rows = Matrix::from_fn(clients.len(), |_, i| sizes[i]);
        MixingWeights::normalised(clients, &Grouped::One(rows))
    }
}

/// No mixing: every client keeps its own tensors, bit for bit.
#[derive(Clone, Copy, Debug)]
pub struct Local;

impl MixingRule for Local {
    fn name(&self) -> &'static str {
        "local"
    }

    fn weights(&self, input: &MixingInput<'_>) -> Result<MixingWeights, MixingError> {
        let clients = input.cohort.clients();
        let identity = Matrix::from_fn(clients.len(), |c, i| f64::from(c == i));
        MixingWeights::new(clients, Grouped::One(identity))
    }
}
