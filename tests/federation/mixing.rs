//! method.md section 3: what mixing does to the tensors.

use std::collections::BTreeMap;

use fellrec::federation::cohort::{Cohort, ParticipantTheta};
use fellrec::federation::matrix::{Grouped, Matrix};
use fellrec::federation::mixing::{
    FellRec, MixingError, MixingInput, MixingRule, MixingWeights, mix,
};
use fellrec::ids::{ClientId, Round};
use fellrec::model::slice::{NamedTensor, Part, Slice, Theta};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

use crate::support::{
    cohort, distance, flat, for_all, matrix, published, random_theta, random_thetas, weights,
};

/// FELLRec's published form from weights to mix, at one openness for all.
fn fellrec_round(cohort: &Cohort<'_>, openness: &BTreeMap<ClientId, f64>) -> Vec<Theta> {
    let input = MixingInput { round: Round(0), cohort, openness, data_sizes: &BTreeMap::new() };
    let weights = FellRec::new(published()).weights(&input).unwrap();
    mix(cohort, &weights).unwrap().into_values().collect()
}

#[test]
fn closed_clients_keep_every_bit() {
    let thetas = random_thetas(4);
    let mixed = fellrec_round(&cohort(&thetas), &for_all(4, 0.0));
    for (before, after) in thetas.iter().zip(&mixed) {
        assert_eq!(before.digest(), after.digest());
    }
}

#[test]
fn one_closed_client_among_open_ones_keeps_every_bit() {
    let thetas = random_thetas(3);
    let mut openness = for_all(3, 1.0);
    openness.insert(ClientId(1), 0.0);
    let mixed = fellrec_round(&cohort(&thetas), &openness);
    assert_eq!(thetas[1].digest(), mixed[1].digest());
    assert_ne!(thetas[0].digest(), mixed[0].digest());
}

#[test]
fn identical_clients_keep_every_bit() {
    let thetas: Vec<Theta> = (0..5).map(|_| random_theta(9)).collect();
    for theta in &thetas {
        // Negative zeros and denormals are bits too.
        let _ = theta.front.tensors[0].tensor.shallow_clone().fill_(-0.0);
        let _ = theta.back.tensors[0].tensor.shallow_clone().fill_(-1e-42);
    }
    let skewed = Matrix::from_fn(5, |c, i| 0.1 + ((3 * c + 7 * i) % 5) as f64);
    let cohort = cohort(&thetas);
    for theta in mix(&cohort, &weights(&cohort, skewed)).unwrap().values() {
        assert_eq!(theta.digest(), thetas[0].digest());
    }
}

#[test]
fn full_similarity_and_openness_is_the_uniform_mean() {
    let thetas = random_thetas(4);
    let cohort = cohort(&thetas);
    let mixed = mix(&cohort, &weights(&cohort, Matrix::from_fn(4, |_, _| 1.0))).unwrap();
    let all: Vec<Vec<f64>> = thetas.iter().map(flat).collect();
    for theta in mixed.values() {
        for (position, got) in flat(theta).into_iter().enumerate() {
            let mean = all.iter().map(|values| values[position]).sum::<f64>() / 4.0;
            assert!((got - mean).abs() < 1e-7);
        }
    }
}

#[test]
fn mixing_is_the_weighted_mean_of_the_snapshot() {
    let thetas = random_thetas(3);
    let cohort = cohort(&thetas);
    let n = matrix(&[&[0.5, 0.3, 0.2], &[0.0, 0.9, 0.1], &[0.25, 0.5, 0.25]]);
    let mixed = mix(&cohort, &weights(&cohort, n.clone())).unwrap();
    let all: Vec<Vec<f64>> = thetas.iter().map(flat).collect();
    for (c, theta) in mixed.values().enumerate() {
        for (position, got) in flat(theta).into_iter().enumerate() {
            let mean: f64 = (0..3).map(|i| n.get(c, i) * all[i][position]).sum();
            assert!((got - mean).abs() < 1e-7);
        }
    }
}

#[test]
fn separate_groups_mix_each_part_by_its_own_matrix() {
    let thetas = random_thetas(2);
    let cohort = cohort(&thetas);
    let (keep, swap) = (matrix(&[&[1.0, 0.0], &[0.0, 1.0]]), matrix(&[&[0.0, 1.0], &[1.0, 0.0]]));
    let matrices = Grouped::Separate { front: keep.clone(), body: swap, back: keep };
    let weights = MixingWeights::new(cohort.clients(), matrices).unwrap();
    let mixed = mix(&cohort, &weights).unwrap();
    let first = &mixed[&ClientId(0)];
    assert_eq!(first.front.digest(), thetas[0].front.digest());
    assert_eq!(first.back.digest(), thetas[0].back.digest());
    for (got, expected) in first.body.tensors.iter().zip(&thetas[1].body.tensors) {
        assert!(got.tensor.allclose(&expected.tensor, 0.0, 1e-7, false));
    }
}

#[test]
fn the_order_of_participants_does_not_matter() {
    let thetas = random_thetas(5);
    let participant =
        |c: usize| ParticipantTheta { client: ClientId(c as u32), theta: &thetas[c], start: None };
    let shuffled = Cohort::new([3, 1, 4, 0, 2].map(participant)).unwrap();
    let openness = for_all(5, 0.6);
    let (a, b) = (fellrec_round(&cohort(&thetas), &openness), fellrec_round(&shuffled, &openness));
    for (a, b) in a.iter().zip(&b) {
        assert_eq!(a.digest(), b.digest());
    }
}

#[test]
fn inputs_are_untouched_and_outputs_share_nothing() {
    let thetas = random_thetas(3);
    let before: Vec<_> = thetas.iter().map(Theta::digest).collect();
    // Client 2 does not move: its output must be a copy all the same.
    let rows = matrix(&[&[1.0, 1.0, 1.0], &[1.0, 1.0, 1.0], &[0.0, 0.0, 1.0]]);
    let cohort = cohort(&thetas);
    let mixed = mix(&cohort, &weights(&cohort, rows)).unwrap();
    assert_eq!(thetas.iter().map(Theta::digest).collect::<Vec<_>>(), before);
    let outputs: Vec<&Theta> = mixed.values().collect();
    for part in Part::ALL {
        for (c, output) in outputs.iter().enumerate() {
            let slice = output.part(part);
            assert!(thetas.iter().all(|theta| !slice.shares_storage(theta.part(part))));
            assert!(outputs[..c].iter().all(|other| !slice.shares_storage(other.part(part))));
        }
    }
}

#[test]
fn tensors_larger_than_a_block_are_mixed_whole() {
    let big = |value: f64| {
        let ramp = Tensor::arange(3_000_000, (Kind::Float, Device::Cpu)) * value;
        let front = Slice::new(vec![NamedTensor::new("w", ramp.view([1_000, 3_000]))]);
        Theta { front, ..Theta::default() }
    };
    let thetas = [big(1.0), big(3.0)];
    let cohort = cohort(&thetas);
    let mixed = mix(&cohort, &weights(&cohort, Matrix::from_fn(2, |_, _| 1.0))).unwrap();
    assert_eq!(mixed[&ClientId(0)].digest(), big(2.0).digest());
}

#[test]
fn trained_tensors_are_mixed_without_a_graph() {
    let thetas = random_thetas(2);
    for (_, named) in thetas.iter().flat_map(Theta::iter) {
        let _ = named.tensor.shallow_clone().requires_grad_(true);
    }
    let cohort = cohort(&thetas);
    let mixed = mix(&cohort, &weights(&cohort, Matrix::from_fn(2, |_, _| 1.0))).unwrap();
    assert!(mixed.values().flat_map(Theta::iter).all(|(_, t)| !t.tensor.requires_grad()));
}

#[test]
fn weights_of_another_cohort_are_refused() {
    let (two, three) = (random_thetas(2), random_thetas(3));
    let weights = weights(&cohort(&three), Matrix::from_fn(3, |_, _| 1.0));
    let error = mix(&cohort(&two), &weights).unwrap_err();
    assert_eq!(error, MixingError::OtherClients { got: 3, expected: 2 });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn relabelling_clients_relabels_the_result(
        order in Just((0..5usize).collect::<Vec<_>>()).prop_shuffle(),
        openness in prop::collection::vec(0.0..=1.0_f64, 5),
    ) {
        let thetas = random_thetas(5);
        let relabelled: Vec<Theta> = order.iter().map(|&old| thetas[old].deep_copy()).collect();
        let by_client = |value: &dyn Fn(usize) -> f64| {
            (0..5).map(|c| (ClientId(c as u32), value(c))).collect::<BTreeMap<_, _>>()
        };
        let mixed = fellrec_round(&cohort(&thetas), &by_client(&|c| openness[c]));
        let moved = fellrec_round(&cohort(&relabelled), &by_client(&|c| openness[order[c]]));
        for (new, &old) in order.iter().enumerate() {
            prop_assert!(distance(&moved[new], &mixed[old]) < 1e-6);
        }
    }
}
