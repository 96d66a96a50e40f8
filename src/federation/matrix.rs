//! Square matrices over the clients of a round, and one of them or one a part.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::config::MixingGroups;
use crate::model::slice::Part;

/// A dense N x N matrix, rows and columns in client-id order. Written as a list of rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "Vec<Vec<f64>>", try_from = "Vec<Vec<f64>>")]
pub struct Matrix {
    size: usize,
    values: Vec<f64>,
}

impl Matrix {
    /// Fills row by row from `value(row, column)`.
    pub fn from_fn(size: usize, mut value: impl FnMut(usize, usize) -> f64) -> Self {
        let values = (0..size * size).map(|cell| value(cell / size, cell % size)).collect();
        Self { size, values }
    }

    /// N.
    pub fn size(&self) -> usize {
        self.size
    }

    /// One row.
    pub fn row(&self, row: usize) -> &[f64] {
        &self.values[row * self.size..(row + 1) * self.size]
    }

    /// One cell.
    pub fn get(&self, row: usize, column: usize) -> f64 {
        self.row(row)[column]
    }

    /// Rows in client-id order.
    pub fn rows(&self) -> impl Iterator<Item = &[f64]> {
        (0..self.size).map(|row| self.row(row))
    }

    /// Copies a tensor `[N, N]` of any float type.
    pub(super) fn from_tensor(tensor: &Tensor) -> Self {
        let size = tensor.size()[0] as usize;
        let mut values = vec![0.0; size * size];
        tensor.to_kind(Kind::Double).contiguous().copy_data(&mut values, size * size);
        Self { size, values }
    }

    /// The matrix as a tensor `[N, N]`, f64.
    pub(super) fn to_tensor(&self) -> Tensor {
        let size = self.size as i64;
        Tensor::from_slice(&self.values).view([size, size])
    }
}

impl From<Matrix> for Vec<Vec<f64>> {
    fn from(matrix: Matrix) -> Self {
        matrix.rows().map(<[f64]>::to_vec).collect()
    }
}

impl TryFrom<Vec<Vec<f64>>> for Matrix {
    type Error = String;

    fn try_from(rows: Vec<Vec<f64>>) -> Result<Self, Self::Error> {
        let size = rows.len();
        match rows.iter().find(|row| row.len() != size) {
            Some(row) => Err(format!("matrix row has {} cells, expected {size}", row.len())),
            None => Ok(Self { size, values: rows.concat() }),
        }
    }
}

/// One value for all tensors, or one each for front, body and back (`mixing.groups`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Grouped<T> {
    /// For every tensor.
    One(T),
    /// By part.
    #[allow(missing_docs, reason = "the parts are documented at `Part`")]
    Separate { front: T, body: T, back: T },
}

impl<T> Grouped<T> {
    /// Makes one value for each group from the parts that it spans.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn try_build<E>(
        groups: MixingGroups,
        mut make: impl FnMut(&[Part]) -> Result<T, E>,
    ) -> Result<Self, E> {
        match groups {
            MixingGroups::One => Ok(Self::One(make(&Part::ALL)?)),
            MixingGroups::Separate => Ok(Self::Separate {
                front: make(&[Part::Front])?,
                body: make(&[Part::Body])?,
                back: make(&[Part::Back])?,
            }),
        }
    }

    /// The value that holds for a part.
    pub fn of(&self, part: Part) -> &T {
        match (self, part) {
            (Self::One(value), _)
            | (Self::Separate { front: value, .. }, Part::Front)
            | (Self::Separate { body: value, .. }, Part::Body)
            | (Self::Separate { back: value, .. }, Part::Back) => value,
        }
    }

    /// Makes another value of each.
    pub fn map<U>(&self, mut make: impl FnMut(&T) -> U) -> Grouped<U> {
        match self {
            Self::One(value) => Grouped::One(make(value)),
            Self::Separate { front, body, back } => {
                Grouped::Separate { front: make(front), body: make(body), back: make(back) }
            }
        }
    }

    /// Every value once, with the first part that it holds for.
    pub fn iter(&self) -> impl Iterator<Item = (Part, &T)> {
        let parts = match self {
            Self::One(_) => &Part::ALL[..1],
            Self::Separate { .. } => &Part::ALL[..],
        };
        parts.iter().map(|&part| (part, self.of(part)))
    }
}
