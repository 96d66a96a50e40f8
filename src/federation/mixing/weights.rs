//! Row-normalised mixing matrices.

use serde::{Deserialize, Serialize};

use super::MixingError;
use crate::federation::matrix::{Grouped, Matrix};
use crate::ids::ClientId;
use crate::model::slice::Part;

/// How far a row's sum may be from 1: rounding of a few thousand clients' weights.
const ROW_SUM_TOLERANCE: f64 = 1e-9;

/// `n_ci` of method.md section 3, one matrix for each group; every row is a distribution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MixingWeights {
    /// Whose rows and columns, ascending.
    clients: Vec<ClientId>,
    /// Row c holds what client c takes from each.
    matrices: Grouped<Matrix>,
    /// What the rule compared, for reports; absent where it compares nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    similarity: Option<Grouped<Matrix>>,
}

impl MixingWeights {
    /// Divides every row of `attention` by its sum.
    ///
    /// # Errors
    /// [`MixingError::Row`] for a weight that is negative or not finite, or a row of zeros.
    pub fn normalised(
        clients: Vec<ClientId>,
        attention: &Grouped<Matrix>,
    ) -> Result<Self, MixingError> {
        let matrices = attention.map(|matrix| {
            let sums: Vec<f64> = matrix.rows().map(|row| row.iter().sum()).collect();
            Matrix::from_fn(matrix.size(), |row, column| matrix.get(row, column) / sums[row])
        });
        Self::new(clients, matrices)
    }

    /// Takes rows that are distributions already.
    ///
    /// # Errors
    /// [`MixingError::Row`] for a row that is none, [`MixingError::OtherClients`] for a matrix of
    /// another size.
    pub fn new(clients: Vec<ClientId>, matrices: Grouped<Matrix>) -> Result<Self, MixingError> {
        for (part, matrix) in matrices.iter() {
            if matrix.size() != clients.len() {
                let (got, expected) = (matrix.size(), clients.len());
                return Err(MixingError::OtherClients { got, expected });
            }
            for (&client, row) in clients.iter().zip(matrix.rows()) {
                check_row(client, part, row)?;
            }
        }
        Ok(Self { clients, matrices, similarity: None })
    }

    /// The same without those that are not `heard`, in client-id order.
    ///
    /// What a client would take from them it takes from the others, in their proportions. The weight of its own
    /// stays where it is `personal`; otherwise a client is one of the others to itself. Who would take nothing
    /// from anybody heard keeps its own.
    pub(super) fn heard(self, heard: &[bool], personal: bool) -> Self {
        let matrices = self.matrices.map(|matrix| {
            let counts = |c: usize, i: usize| !(personal && i == c);
            let sum = |c: usize, all: bool| -> f64 {
                let columns = (0..matrix.size()).filter(|&i| counts(c, i) && (all || heard[i]));
                columns.map(|i| matrix.get(c, i)).sum()
            };
            let sums: Vec<(f64, f64)> =
                (0..matrix.size()).map(|c| (sum(c, true), sum(c, false))).collect();
            Matrix::from_fn(matrix.size(), |c, i| match sums[c] {
                (_, 0.0) => f64::from(c == i),
                _ if !counts(c, i) => matrix.get(c, i),
                (all, kept) if heard[i] => matrix.get(c, i) * all / kept,
                _ => 0.0,
            })
        });
        Self { matrices, ..self }
    }

    /// Whether a client, by its place, takes nothing from anybody.
    pub(super) fn is_alone(&self, client: usize) -> bool {
        let others = (0..self.clients.len()).filter(|other| *other != client);
        let all =
            others.flat_map(|other| self.matrices.iter().map(move |(_, m)| m.get(client, other)));
        all.into_iter().all(|weight| weight == 0.0)
    }

    /// Adds what the rule compared, for reports.
    pub fn with_similarity(mut self, similarity: Grouped<Matrix>) -> Self {
        self.similarity = Some(similarity);
        self
    }

    /// The weights alone.
    pub fn without_similarity(mut self) -> Self {
        self.similarity = None;
        self
    }

    /// Whose rows and columns, ascending.
    pub fn clients(&self) -> &[ClientId] {
        &self.clients
    }

    /// The matrices, row c for what client c takes from each.
    pub fn matrices(&self) -> &Grouped<Matrix> {
        &self.matrices
    }

    /// What the rule compared, if it did.
    pub fn similarity(&self) -> Option<&Grouped<Matrix>> {
        self.similarity.as_ref()
    }
}

fn check_row(client: ClientId, part: Part, row: &[f64]) -> Result<(), MixingError> {
    let fail = |problem| Err(MixingError::Row { client, part, problem });
    if let Some(weight) = row.iter().find(|weight| !weight.is_finite() || **weight < 0.0) {
        return fail(format!("got the weight {weight}, expected a number in [0, 1]"));
    }
    let sum: f64 = row.iter().sum();
    if (sum - 1.0).abs() > ROW_SUM_TOLERANCE {
        return fail(format!("got the sum {sum}, expected 1"));
    }
    Ok(())
}
