//! Whether two slices hold the same tensors, values aside.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{NamedTensor, Part, Slice, Theta, natural_cmp};

/// Why two slices cannot be mixed or swapped for each other.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum LayoutError {
    /// A tensor that must be there is not.
    #[error("tensor {name} is missing")]
    Missing {
        /// Its checkpoint name.
        name: String,
    },
    /// A tensor that nobody asked for.
    #[error("tensor {name} is not part of the expected layout")]
    Unexpected {
        /// Its checkpoint name.
        name: String,
    },
    /// Same name, other shape.
    #[error("tensor {name} has shape {got:?}, expected {expected:?}")]
    Shape {
        /// Its checkpoint name.
        name: String,
        /// Shape it has.
        got: Vec<i64>,
        /// Shape it must have.
        expected: Vec<i64>,
    },
    /// Same name, other number type.
    #[error("tensor {name} has type {got}, expected {expected}")]
    Dtype {
        /// Its checkpoint name.
        name: String,
        /// Type it has, by libtorch's name.
        got: String,
        /// Type it must have, by libtorch's name.
        expected: String,
    },
}

impl Slice {
    /// Checks that names, shapes and number types are those of `expected`.
    ///
    /// # Errors
    /// The first tensor, in name order, that differs.
    pub fn same_layout(&self, expected: &Slice) -> Result<(), LayoutError> {
        let (mut ours, mut theirs) = (self.tensors.iter(), expected.tensors.iter());
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) => return Ok(()),
                (None, Some(want)) => return Err(LayoutError::Missing { name: want.name.clone() }),
                (Some(have), None) => {
                    return Err(LayoutError::Unexpected { name: have.name.clone() });
                }
                (Some(have), Some(want)) => same_tensor_layout(have, want)?,
            }
        }
    }
}

impl Theta {
    /// Checks that every part is laid out as in `expected`.
    ///
    /// # Errors
    /// The first tensor, in checkpoint order, that differs.
    pub fn same_layout(&self, expected: &Theta) -> Result<(), LayoutError> {
        Part::ALL.into_iter().try_for_each(|part| self.part(part).same_layout(expected.part(part)))
    }
}

fn same_tensor_layout(have: &NamedTensor, want: &NamedTensor) -> Result<(), LayoutError> {
    let name = || have.name.clone();
    // Both sides are sorted: the smaller of two different names has no partner.
    match natural_cmp(&have.name, &want.name) {
        Ordering::Less => return Err(LayoutError::Unexpected { name: name() }),
        Ordering::Greater => {
            return Err(LayoutError::Missing { name: want.name.clone() });
        }
        Ordering::Equal => {}
    }
    let (got, expected) = (have.tensor.size(), want.tensor.size());
    if got != expected {
        return Err(LayoutError::Shape { name: name(), got, expected });
    }
    let (got, expected) = (have.tensor.kind(), want.tensor.kind());
    if got != expected {
        let (got, expected) = (format!("{got:?}"), format!("{expected:?}"));
        return Err(LayoutError::Dtype { name: name(), got, expected });
    }
    Ok(())
}
