//! What clients see of each other where some may be malicious: clipped, trimmed, or chosen.
//!
//! A robust aggregation stands beside the mixing rule instead of in its place: the rule says how much a client
//! takes from whom, the aggregation what of the others it gets to see. A client's own tensors are its own.
//!
//! Shapes: N = clients, p = columns of a block.

use tch::{Kind, Tensor, no_grad};
use tracing::warn;

use super::MixingError;
use crate::config::{MixingConfig, RobustKind};
use crate::federation::cohort::{Cohort, across, column_blocks, stack_rows};
use crate::federation::heating::median;
use crate::federation::matrix::Matrix;
use crate::model::slice::{NamedTensor, Part, Slice, Theta};

/// How the others' tensors enter a mix (`mixing.robust`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Robust {
    /// As they are.
    Off,
    /// Updates longer than `ratio` times the median update are shortened to it, for the client itself as well.
    ///
    /// Trusts the clients in where they started from, as the screening does.
    NormClip {
        /// `mixing.clip_ratio`.
        ratio: f64,
    },
    /// Only those count who are close to most others: the `N - f` participants with the smallest sums of squared
    /// distances to their `N - f - 2` nearest. Source: Blanchard et al. 2017 (multi-Krum).
    MultiKrum {
        /// `f`, clients that may be malicious.
        byzantine: usize,
    },
    /// Instead of each other, clients see the mean of every coordinate without its `f` largest and `f` smallest
    /// values. With FedAvg it is the new model. Source: Yin et al. 2018.
    TrimmedMean {
        /// `f`, clients that may be malicious.
        byzantine: usize,
    },
}

impl Robust {
    /// What section `mixing` asks for.
    pub fn of(config: &MixingConfig) -> Self {
        let byzantine = config.byzantine as usize;
        match config.robust {
            RobustKind::None => Self::Off,
            RobustKind::NormClip => Self::NormClip { ratio: config.clip_ratio },
            RobustKind::MultiKrum => Self::MultiKrum { byzantine },
            RobustKind::TrimmedMean => Self::TrimmedMean { byzantine },
        }
    }

    /// Whether a client with a model of its own goes on from all that it trained.
    ///
    /// Not where updates are clipped: the next one is measured from the model of this round, and a model that was
    /// carried away would be the start of a short update.
    pub(super) fn spares_own(self) -> bool {
        !matches!(self, Self::NormClip { .. })
    }

    /// Everyone's tensors as the others see them, in client-id order.
    ///
    /// # Errors
    /// [`CohortError::NoStart`](crate::federation::cohort::CohortError) where updates are clipped.
    pub(super) fn shown<'a>(self, cohort: &Cohort<'a>) -> Result<Vec<Shown<'a>>, MixingError> {
        Ok(match self {
            Self::Off | Self::MultiKrum { .. } => {
                cohort.thetas().into_iter().map(Shown::AsItIs).collect()
            }
            Self::NormClip { ratio } => clipped(cohort, ratio)?,
            Self::TrimmedMean { byzantine } => {
                let mean = trimmed_mean(cohort, byzantine);
                (0..cohort.len()).map(|_| Shown::Instead(mean.share())).collect()
            }
        })
    }

    /// Which participants are listened to, in client-id order.
    pub(super) fn heard(self, cohort: &Cohort<'_>) -> Vec<bool> {
        match self {
            Self::MultiKrum { byzantine } => multi_krum(&squared_distances(cohort), byzantine),
            Self::Off | Self::NormClip { .. } | Self::TrimmedMean { .. } => {
                vec![true; cohort.len()]
            }
        }
    }
}

/// A client's tensors as the others see them.
pub(super) enum Shown<'a> {
    AsItIs(&'a Theta),
    Instead(Theta),
}

impl Shown<'_> {
    pub(super) fn theta(&self) -> &Theta {
        match self {
            Self::AsItIs(theta) => theta,
            Self::Instead(theta) => theta,
        }
    }
}

/// Shortens what is longer than `ratio` times the median length of those that moved; the others keep each bit.
fn clipped<'a>(cohort: &Cohort<'a>, ratio: f64) -> Result<Vec<Shown<'a>>, MixingError> {
    let (thetas, starts) = (cohort.thetas(), cohort.starts()?);
    let norms: Vec<f64> =
        thetas.iter().zip(&starts).map(|(now, start)| change(now, start)).collect();
    let moved = norms.iter().copied().filter(|&norm| norm > 0.0);
    let limit = ratio * median(moved);
    let show = |((theta, start), norm): ((&'a Theta, &'a Theta), f64)| {
        // Without anybody that moved there is no median, and nothing to clip.
        if norm > limit {
            Shown::Instead(towards(start, theta, limit / norm))
        } else {
            Shown::AsItIs(theta)
        }
    };
    Ok(thetas.into_iter().zip(starts).zip(norms).map(show).collect())
}

/// Norm of a client's update.
fn change(now: &Theta, start: &Theta) -> f64 {
    let squared = |(now, before): (&NamedTensor, &NamedTensor)| {
        let difference = now.tensor.to_kind(Kind::Double) - before.tensor.to_kind(Kind::Double);
        difference.square().sum(Kind::Double).double_value(&[])
    };
    let of = |part: Part| -> f64 {
        now.part(part).tensors.iter().zip(&start.part(part).tensors).map(squared).sum()
    };
    no_grad(|| Part::ALL.into_iter().map(of).sum::<f64>().sqrt())
}

/// `start + share (theta - start)`, computed in f64.
fn towards(start: &Theta, theta: &Theta, share: f64) -> Theta {
    by_tensor(theta, |part, index| {
        let (from, to) = (tensor(start, part, index), tensor(theta, part, index));
        let (wide, kind) = (from.to_kind(Kind::Double), to.kind());
        (&wide + (to.to_kind(Kind::Double) - &wide) * share).to_kind(kind)
    })
}

fn tensor(theta: &Theta, part: Part, index: usize) -> &Tensor {
    &theta.part(part).tensors[index].tensor
}

/// The mean of every coordinate without its `byzantine` largest and smallest; of fewer than `2 f + 1` participants
/// as many are left out as leave one.
fn trimmed_mean(cohort: &Cohort<'_>, byzantine: usize) -> Theta {
    let thetas = cohort.thetas();
    let count = thetas.len();
    let trimmed = byzantine.min((count - 1) / 2);
    let kept = (count - 2 * trimmed) as i64;
    by_tensor(thetas[0], |part, index| {
        let rows = across(&thetas, part, index);
        let blocks = column_blocks(rows[0].numel(), count).map(|(start, length)| {
            let (sorted_np, _) = stack_rows(&rows, start, length).sort(0, false);
            let kept_kp = sorted_np.narrow(0, trimmed as i64, kept);
            kept_kp.mean_dim([0i64].as_slice(), false, Kind::Double).to_kind(rows[0].kind())
        });
        let blocks: Vec<Tensor> = blocks.collect();
        Tensor::cat(&blocks, 0).view(rows[0].size().as_slice()).to_device(rows[0].device())
    })
}

/// A theta of the layout of `like`, each tensor made anew.
fn by_tensor(like: &Theta, make: impl Fn(Part, usize) -> Tensor) -> Theta {
    let part = |part: Part| {
        let named =
            like.part(part).tensors.iter().enumerate().map(|(index, NamedTensor { name, .. })| {
                NamedTensor { name: name.clone(), tensor: make(part, index) }
            });
        Slice::new(named.collect())
    };
    no_grad(|| Theta { front: part(Part::Front), body: part(Part::Body), back: part(Part::Back) })
}

/// `||Theta_i - Theta_j||^2` of all pairs, in f64.
fn squared_distances(cohort: &Cohort<'_>) -> Matrix {
    let thetas = cohort.thetas();
    let size = thetas.len();
    let mut gram_nn = Tensor::zeros([size as i64, size as i64], (Kind::Double, tch::Device::Cpu));
    no_grad(|| {
        for part in Part::ALL {
            for index in 0..thetas[0].part(part).tensors.len() {
                let rows = across(&thetas, part, index);
                for (start, length) in column_blocks(rows[0].numel(), size) {
                    // From the first client: what all share would drown the differences.
                    let rows_np = stack_rows(&rows, start, length);
                    let rows_np = &rows_np - rows_np.narrow(0, 0, 1);
                    gram_nn += rows_np.mm(&rows_np.tr());
                }
            }
        }
    });
    let gram = Matrix::from_tensor(&gram_nn);
    Matrix::from_fn(size, |i, j| (gram.get(i, i) + gram.get(j, j) - 2.0 * gram.get(i, j)).max(0.0))
}

/// The `N - f` with the smallest scores; equal scores go by client id. All, if they are fewer than `2 f + 3`.
fn multi_krum(distances: &Matrix, byzantine: usize) -> Vec<bool> {
    let size = distances.size();
    if size < 2 * byzantine + 3 {
        warn!(
            participants = size,
            needed = 2 * byzantine + 3,
            "too few participants for multi-Krum with mixing.byzantine = {byzantine}: all are mixed"
        );
        return vec![true; size];
    }
    let score = |client: usize| -> f64 {
        let others = (0..size).filter(|other| *other != client);
        let mut near: Vec<f64> = others.map(|other| distances.get(client, other)).collect();
        near.sort_by(f64::total_cmp);
        near[..size - byzantine - 2].iter().sum()
    };
    let scores: Vec<f64> = (0..size).map(score).collect();
    let mut order: Vec<usize> = (0..size).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let mut chosen = vec![false; size];
    for client in order.into_iter().take(size - byzantine) {
        chosen[client] = true;
    }
    chosen
}
