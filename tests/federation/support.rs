//! Small random clients and comparisons.

use std::collections::BTreeMap;

use fellrec::config::{
    MixingConfig, MixingGroups, MixingRuleKind, Normalisation, RobustKind, SimilarityKind,
};
use fellrec::federation::cohort::{Cohort, ParticipantTheta};
use fellrec::federation::matrix::{Grouped, Matrix};
use fellrec::federation::mixing::MixingWeights;
use fellrec::ids::ClientId;
use fellrec::model::slice::{NamedTensor, Slice, Theta};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tch::Tensor;

/// Values in [-1, 1) of the given shape; the same for the same seed.
pub fn random_tensor(rng: &mut StdRng, shape: &[i64]) -> Tensor {
    let values: Vec<f32> =
        (0..shape.iter().product::<i64>()).map(|_| rng.random_range(-1.0..1.0)).collect();
    Tensor::from_slice(&values).view(shape)
}

/// A client with an adapter (r 2) in every part, a bias in the front and a scalar in the back.
pub fn random_theta(seed: u64) -> Theta {
    let rng = &mut StdRng::seed_from_u64(seed);
    let mut adapter = |layer: i64| {
        let stem = format!("layers.{layer}.self_attn.q_proj");
        vec![
            NamedTensor::new(format!("{stem}.lora_A.weight"), random_tensor(rng, &[2, 5])),
            NamedTensor::new(format!("{stem}.lora_B.weight"), random_tensor(rng, &[7, 2])),
        ]
    };
    let (mut front, body, mut back) = (adapter(0), adapter(1), adapter(2));
    front.push(NamedTensor::new("embed.bias", random_tensor(rng, &[3])));
    back.push(NamedTensor::new("norm.scale", random_tensor(rng, &[])));
    Theta { front: Slice::new(front), body: Slice::new(body), back: Slice::new(back) }
}

/// Clients 0, 1, ... in order.
pub fn random_thetas(clients: u64) -> Vec<Theta> {
    (0..clients).map(random_theta).collect()
}

/// Client i holds the i-th of `thetas`; no starts.
pub fn cohort(thetas: &[Theta]) -> Cohort<'_> {
    let participant = |(index, theta)| ParticipantTheta {
        client: ClientId(u32::try_from(index).unwrap()),
        theta,
        start: None,
    };
    Cohort::new(thetas.iter().enumerate().map(participant)).unwrap()
}

/// Rows given as nested slices.
pub fn matrix(rows: &[&[f64]]) -> Matrix {
    Matrix::from_fn(rows.len(), |i, j| rows[i][j])
}

/// One matrix for all parts, rows normalised.
pub fn weights(cohort: &Cohort<'_>, rows: Matrix) -> MixingWeights {
    MixingWeights::normalised(cohort.clients(), &Grouped::One(rows)).unwrap()
}

/// The same value for each of the first clients.
pub fn for_all<T: Copy>(clients: usize, value: T) -> BTreeMap<ClientId, T> {
    (0..clients).map(|c| (ClientId(u32::try_from(c).unwrap()), value)).collect()
}

/// The published form.
pub fn published() -> MixingConfig {
    MixingConfig {
        rule: MixingRuleKind::Fellrec,
        similarity: SimilarityKind::Parameters,
        sharpness: 1.0,
        normalisation: Normalisation::Sum,
        temperature: 0.1,
        self_weight: 0.5,
        groups: MixingGroups::One,
        robust: RobustKind::None,
        byzantine: 1,
        clip_ratio: 1.0,
        fine_tune_rounds: 0,
    }
}

/// All numbers in checkpoint order.
pub fn flat(theta: &Theta) -> Vec<f64> {
    let values = |tensor: &Tensor| Vec::<f64>::try_from(tensor.reshape([-1])).unwrap();
    theta.iter().flat_map(|(_, named)| values(&named.tensor)).collect()
}

/// Largest difference of two clients' numbers.
pub fn distance(a: &Theta, b: &Theta) -> f64 {
    flat(a).iter().zip(flat(b)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}
