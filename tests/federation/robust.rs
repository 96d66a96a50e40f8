//! What robust mixing lets through: golden numbers, bounds under any attack, and where it changes nothing.

use std::collections::BTreeMap;

use fellrec::federation::cohort::{Cohort, ParticipantTheta};
use fellrec::federation::mixing::{
    FedAvg, FellRec, Mixed, Mixer, MixingInput, MixingRule, MixingWeights, Robust,
};
use fellrec::ids::{ClientId, Round};
use fellrec::model::slice::{NamedTensor, Slice, Theta};
use proptest::prelude::*;
use tch::Tensor;

use crate::support::{distance, flat, for_all, published, random_thetas};

const KRUM: Robust = Robust::MultiKrum { byzantine: 1 };
const TRIMMED: Robust = Robust::TrimmedMean { byzantine: 1 };

/// Everything in the front.
fn theta(values: &[f32]) -> Theta {
    let tensor = NamedTensor::new("layers.0.w", Tensor::from_slice(values));
    Theta { front: Slice::new(vec![tensor]), ..Theta::default() }
}

/// Mixes thetas that started from 0, all fully open and of equal size.
fn mixed(thetas: &[Theta], rule: impl MixingRule + 'static, robust: Robust) -> Mixed {
    let zeros: Vec<Theta> = thetas.iter().map(Theta::deep_copy).collect();
    for theta in &zeros {
        theta.iter().for_each(|(_, named)| drop(named.tensor.shallow_clone().zero_()));
    }
    let participant =
        |((id, theta), start)| ParticipantTheta { client: ClientId(id), theta, start: Some(start) };
    let cohort = Cohort::new((0..).zip(thetas).zip(&zeros).map(participant)).unwrap();
    let (openness, data_sizes) = (for_all(thetas.len(), 1.0), for_all(thetas.len(), 10));
    let input = MixingInput {
        round: Round(3),
        cohort: &cohort,
        openness: &openness,
        data_sizes: &data_sizes,
    };
    Mixer::new(Box::new(rule), robust).mix(&input, true).unwrap()
}

fn fellrec() -> FellRec {
    FellRec::new(published())
}

fn numbers(mixed: &Mixed) -> Vec<Vec<f64>> {
    mixed.thetas.values().map(flat).collect()
}

fn row(weights: &MixingWeights, client: usize) -> Vec<f64> {
    let (_, matrix) = weights.matrices().iter().next().unwrap();
    matrix.row(client).to_vec()
}

#[test]
fn the_trimmed_mean_leaves_the_extremes_of_every_coordinate_out() {
    let clients = [[1.0, 9.0], [2.0, -50.0], [4.0, 3.0], [900.0, 5.0], [3.0, 4.0]];
    let thetas: Vec<Theta> = clients.iter().map(|values| theta(values)).collect();
    let mixed = mixed(&thetas, FedAvg, TRIMMED);
    for got in numbers(&mixed) {
        assert_eq!(got, [3.0, 4.0]);
    }
    assert_eq!(flat(&mixed.mean.unwrap()), [3.0, 4.0]);
}

#[test]
fn a_client_of_its_own_goes_from_its_own_towards_the_trimmed_mean() {
    let thetas = [[1.0, 1.0], [2.0, 2.0], [300.0, 3.0]].map(|values| theta(&values));
    let mixed = mixed(&thetas, fellrec(), TRIMMED);
    for (client, got) in numbers(&mixed).into_iter().enumerate() {
        let own = row(&mixed.weights, client)[client];
        let before = flat(&thetas[client]);
        for (got, before) in got.into_iter().zip(before) {
            assert!((got - (before + (1.0 - own) * (2.0 - before))).abs() < 1e-4, "{client}");
        }
    }
}

#[test]
fn updates_beyond_the_median_are_shortened() {
    // Norms 1, 2, 3, 40, 2: the median is 2.
    let clients = [[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [0.0, 40.0], [2.0, 0.0]];
    let thetas: Vec<Theta> = clients.iter().map(|values| theta(values)).collect();
    let clip = Robust::NormClip { ratio: 1.0 };
    let one = mixed(&thetas, FedAvg, clip);
    for got in numbers(&one) {
        assert!((got[0] - 1.0).abs() < 1e-6 && (got[1] - 0.8).abs() < 1e-6, "{got:?}");
    }
    // Of its own a client keeps no more than the others see.
    let personal = mixed(&thetas, fellrec(), clip);
    let (got, weights) = (&numbers(&personal)[3], row(&personal.weights, 3));
    let expected = weights[3] * 2.0 + weights[1] * 2.0;
    assert!((got[1] - expected).abs() < 1e-4, "{got:?}, expected {expected}");
}

#[test]
fn multi_krum_does_not_listen_to_the_odd_one_out() {
    let clients = [[1.0, 1.0], [1.1, 1.0], [9.0, -9.0], [1.0, 1.2], [0.9, 1.0]];
    let thetas: Vec<Theta> = clients.iter().map(|values| theta(values)).collect();
    let one = mixed(&thetas, FedAvg, KRUM);
    for (client, got) in numbers(&one).into_iter().enumerate() {
        assert_eq!(row(&one.weights, client), [0.25, 0.25, 0.0, 0.25, 0.25]);
        assert!((got[0] - 1.0).abs() < 1e-6 && (got[1] - 1.05).abs() < 1e-6, "{got:?}");
    }
    let personal = mixed(&thetas, fellrec(), KRUM);
    let plain = mixed(&thetas, fellrec(), Robust::Off);
    for client in 0..5 {
        let (got, before) = (row(&personal.weights, client), row(&plain.weights, client));
        assert!(client == 2 || got[2] == 0.0, "{got:?}");
        assert_eq!(got[client], before[client], "one's own weight stays");
        assert!((got.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }
    let mean = flat(&personal.mean.unwrap());
    assert!((mean[0] - 1.0).abs() < 1e-6, "the odd one is not in the mean: {mean:?}");
}

#[test]
fn multi_krum_of_too_few_listens_to_all() {
    let thetas = random_thetas(4);
    let (krum, off) = (mixed(&thetas, fellrec(), KRUM), mixed(&thetas, fellrec(), Robust::Off));
    for (client, theta) in &krum.thetas {
        assert_eq!(theta.digest(), off.thetas[client].digest());
    }
}

#[test]
fn nothing_long_and_nothing_clipped_keeps_every_bit_of_the_mix() {
    let thetas = random_thetas(5);
    let clip = Robust::NormClip { ratio: 1e6 };
    let (clipped, off) = (mixed(&thetas, fellrec(), clip), mixed(&thetas, fellrec(), Robust::Off));
    for (client, theta) in &clipped.thetas {
        assert_eq!(theta.digest(), off.thetas[client].digest());
    }
}

#[test]
fn nobody_moved_and_nothing_is_clipped() {
    let thetas: Vec<Theta> = (0..3).map(|_| theta(&[0.0, 0.0])).collect();
    let mixed = mixed(&thetas, FedAvg, Robust::NormClip { ratio: 1.0 });
    assert!(numbers(&mixed).iter().all(|got| got == &[0.0, 0.0]));
}

proptest! {
    /// Whatever one client sends, an averaged model stays among what the others sent.
    #[test]
    fn one_client_cannot_pull_the_trimmed_mean_beyond_the_others(
        poison in prop::collection::vec(-1e30f32..1e30, 2),
        honest in prop::collection::vec(prop::collection::vec(-1.0f32..1.0, 2), 4),
        position in 0usize..5,
    ) {
        let mut all = honest.clone();
        all.insert(position, poison);
        let thetas: Vec<Theta> = all.iter().map(|values| theta(values)).collect();
        let mixed = mixed(&thetas, FedAvg, TRIMMED);
        for (index, got) in flat(mixed.thetas.values().next().unwrap()).into_iter().enumerate() {
            let values = honest.iter().map(|values| f64::from(values[index]));
            let (low, high) = values.fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(v), h.max(v)));
            prop_assert!(low - 1e-6 <= got && got <= high + 1e-6, "{got} not in [{low}, {high}]");
        }
    }

    /// A client far away from all others is never listened to.
    #[test]
    fn multi_krum_never_chooses_a_far_outlier(
        far in 10.0f32..1e18,
        honest in prop::collection::vec(prop::collection::vec(-1.0f32..1.0, 2), 4),
        position in 0usize..5,
    ) {
        let mut all = honest;
        all.insert(position, vec![far, -far]);
        let thetas: Vec<Theta> = all.iter().map(|values| theta(values)).collect();
        let mixed = mixed(&thetas, FedAvg, KRUM);
        prop_assert_eq!(row(&mixed.weights, 0)[position], 0.0);
    }

    /// Who is called what does not matter.
    #[test]
    fn clients_may_change_places(shift in 1usize..5, kind in 0usize..3) {
        let robust = [Robust::NormClip { ratio: 1.0 }, KRUM, TRIMMED][kind];
        let thetas = random_thetas(5);
        let mut turned: Vec<Theta> = thetas.iter().map(Theta::share).collect();
        turned.rotate_left(shift);
        let (one, other) = (mixed(&thetas, fellrec(), robust), mixed(&turned, fellrec(), robust));
        let by_place: BTreeMap<usize, &Theta> = (0..).zip(other.thetas.values()).collect();
        for (client, theta) in one.thetas.values().enumerate() {
            let moved = by_place[&((client + 5 - shift) % 5)];
            prop_assert!(distance(theta, moved) < 1e-5);
        }
    }
}
