//! How alike two clients are: `s_ij = (cos(v_i, v_j) + 1) / 2` (method.md section 3).
//!
//! The inner products of all pairs come from Gram matrices, tensor by tensor in f64, so the
//! flattened vectors never exist as a whole. Shapes: N = clients, p = columns of a block,
//! r = rank of an adapter, b = clients of a band, m = clients from the band on.

use tch::{Kind, Tensor, no_grad};
use thiserror::Error;

use super::cohort::{Cohort, CohortError, across, column_blocks, row_block, stack_rows};
use super::matrix::{Grouped, Matrix};
use crate::config::{MixingGroups, SimilarityKind};
use crate::ids::ClientId;
use crate::model::slice::{Part, Slice, Theta};

/// Ends of the names of an adapter's two matrices, A `[r, in]` and B `[out, r]`.
const LORA_A: &str = ".lora_A.weight";
const LORA_B: &str = ".lora_B.weight";

/// Why similarities could not be computed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SimilarityError {
    /// The participants do not fit together, or a start is missing.
    #[error(transparent)]
    Cohort(#[from] CohortError),
    /// Products are asked for where nothing is an adapter.
    #[error(
        "mixing.similarity is \"product\", but no tensor of the {part} (or after it in its group) \
         is an adapter, expected names that end in {LORA_A} and {LORA_B}"
    )]
    NoAdapters {
        /// First part of the group.
        part: Part,
    },
    /// One half of an adapter.
    #[error("adapter matrix {name} has no partner {expected}")]
    Unpaired {
        /// The half that is there.
        name: String,
        /// The name that is not.
        expected: String,
    },
    /// A client's numbers are not all finite; screening was left out.
    #[error("the tensors of {client} are not finite")]
    NonFinite {
        /// Which.
        client: ClientId,
    },
}

/// Similarity of every pair of clients, in \[0, 1\], one matrix for each group.
///
/// `Uniform` compares nothing: every pair has similarity 1. A zero vector (a client without a step) has cosine 0 to all others; the diagonal is always 1.
///
/// # Errors
/// See [`SimilarityError`].
pub fn similarity(
    kind: SimilarityKind,
    cohort: &Cohort<'_>,
    groups: MixingGroups,
) -> Result<Grouped<Matrix>, SimilarityError> {
    no_grad(|| {
        Grouped::try_build(groups, |parts| {
            let gram_nn = match kind {
                SimilarityKind::Uniform => return Ok(Matrix::from_fn(cohort.len(), |_, _| 1.0)),
                SimilarityKind::Parameters => vector_gram(&cohort.thetas(), None, parts),
                SimilarityKind::Update => {
                    vector_gram(&cohort.thetas(), Some(&cohort.starts()?), parts)
                }
                SimilarityKind::Product => product_gram(&cohort.thetas(), parts)?,
            };
            from_gram(&Matrix::from_tensor(&gram_nn), cohort)
        })
    })
}

/// Cosines from inner products, moved to \[0, 1\].
fn from_gram(gram: &Matrix, cohort: &Cohort<'_>) -> Result<Matrix, SimilarityError> {
    for (index, client) in cohort.clients().into_iter().enumerate() {
        if !gram.get(index, index).is_finite() {
            return Err(SimilarityError::NonFinite { client });
        }
    }
    Ok(Matrix::from_fn(gram.size(), |i, j| {
        if i == j {
            return 1.0;
        }
        // A matrix product need not be symmetric in its last bits: the upper triangle serves both.
        let inner = gram.get(i.min(j), i.max(j));
        let norms = (gram.get(i, i) * gram.get(j, j)).sqrt();
        let cosine = if norms > 0.0 { (inner / norms).clamp(-1.0, 1.0) } else { 0.0 };
        (cosine + 1.0) / 2.0
    }))
}

/// Inner products of the flattened tensors, less those of `starts` where given, `[N, N]`.
fn vector_gram(thetas: &[&Theta], starts: Option<&[&Theta]>, parts: &[Part]) -> Tensor {
    let mut gram_nn = zeros(thetas.len());
    for &part in parts {
        for (index, named) in thetas[0].part(part).tensors.iter().enumerate() {
            let tensors = across(thetas, part, index);
            let before = starts.map(|starts| across(starts, part, index));
            for (start, length) in column_blocks(named.tensor.numel(), thetas.len()) {
                let mut rows_np = stack_rows(&tensors, start, length);
                if let Some(before) = &before {
                    rows_np -= stack_rows(before, start, length);
                }
                gram_nn += rows_np.mm(&rows_np.tr());
            }
        }
    }
    gram_nn
}

/// Inner products of the adapters' products BA, upper triangle of `[N, N]`; other tensors are not
/// compared.
fn product_gram(thetas: &[&Theta], parts: &[Part]) -> Result<Tensor, SimilarityError> {
    let mut gram_nn = zeros(thetas.len());
    let (mut tensors, mut pairs) = (0, 0);
    for &part in parts {
        tensors += thetas[0].part(part).tensors.len();
        for (a, b) in adapter_pairs(thetas[0].part(part))? {
            add_adapter_gram(&mut gram_nn, &across(thetas, part, a), &across(thetas, part, b));
            pairs += 1;
        }
    }
    // A part without any tensor (nothing offloaded) has nothing to mix either.
    if pairs == 0 && tensors > 0 {
        return Err(SimilarityError::NoAdapters { part: parts[0] });
    }
    Ok(gram_nn)
}

/// Positions of A and B of every adapter in the slice.
fn adapter_pairs(slice: &Slice) -> Result<Vec<(usize, usize)>, SimilarityError> {
    let position = |name: &str| slice.tensors.iter().position(|t| t.name == name);
    let mut pairs = Vec::new();
    for (index, named) in slice.tensors.iter().enumerate() {
        if let Some(stem) = named.name.strip_suffix(LORA_A) {
            pairs.push((index, partner(&named.name, format!("{stem}{LORA_B}"), position)?));
        } else if let Some(stem) = named.name.strip_suffix(LORA_B) {
            partner(&named.name, format!("{stem}{LORA_A}"), position)?;
        }
    }
    Ok(pairs)
}

fn partner(
    name: &str,
    expected: String,
    position: impl Fn(&str) -> Option<usize>,
) -> Result<usize, SimilarityError> {
    position(&expected).ok_or_else(|| SimilarityError::Unpaired { name: name.to_owned(), expected })
}

/// `<B1 A1, B2 A2> = tr((B2' B1)(A1 A2')) = sum over k, l of (A1 A2')_kl (B1' B2)_kl` for all
/// pairs of clients, added to the upper triangle of `[N, N]`: r x r blocks, never the products.
fn add_adapter_gram(gram_nn: &mut Tensor, a_tensors: &[&Tensor], b_tensors: &[&Tensor]) {
    let clients = a_tensors.len() as i64;
    let rank = a_tensors[0].size()[0];
    let a_rows = stack_ranks(a_tensors, Tensor::shallow_clone);
    let b_rows = stack_ranks(b_tensors, Tensor::tr);
    let width = row_block(a_tensors.len(), rank);
    for start in (0..clients).step_by(width as usize) {
        // Clients of the band against themselves and those after them: the rest is symmetric.
        let (band, rest) = (width.min(clients - start), clients - start);
        let gram = |rows: &Tensor| {
            let later = rows.narrow(0, start * rank, rest * rank);
            later.narrow(0, 0, band * rank).mm(&later.tr())
        };
        let blocks_brmr = (gram(&a_rows) * gram(&b_rows)).view([band, rank, rest, rank]);
        let mut target = gram_nn.narrow(0, start, band).narrow(1, start, rest);
        target += blocks_brmr.sum_dim_intlist([1i64, 3].as_slice(), false, Kind::Double);
    }
}

/// The r rows of every client under each other, `[N r, width]`, f64.
fn stack_ranks(tensors: &[&Tensor], by_rank: impl Fn(&Tensor) -> Tensor) -> Tensor {
    let rows: Vec<Tensor> =
        tensors.iter().map(|t| by_rank(&t.detach()).to_device(tch::Device::Cpu)).collect();
    Tensor::cat(&rows, 0).to_kind(Kind::Double)
}

fn zeros(clients: usize) -> Tensor {
    let clients = clients as i64;
    Tensor::zeros([clients, clients], (Kind::Double, tch::Device::Cpu))
}
