//! method.md section 3, step 2, and its options.

use fellrec::config::{MixingGroups, SimilarityKind};
use fellrec::federation::cohort::{Cohort, CohortError, ParticipantTheta};
use fellrec::federation::matrix::{Grouped, Matrix};
use fellrec::federation::similarity::{SimilarityError, similarity};
use fellrec::ids::ClientId;
use fellrec::model::slice::{NamedTensor, Part, Slice, Theta};
use tch::{Kind, Tensor};

use crate::support::{cohort, flat, random_theta, random_thetas};

/// `(cos + 1) / 2` by the textbook.
fn textbook(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    (dot(a, b) / (dot(a, a).sqrt() * dot(b, b).sqrt()) + 1.0) / 2.0
}

fn assert_is_textbook(got: &Matrix, vectors: &[Vec<f64>]) {
    for (i, j) in (0..got.size()).flat_map(|i| (0..got.size()).map(move |j| (i, j))) {
        let expected = textbook(&vectors[i], &vectors[j]);
        assert!((got.get(i, j) - expected).abs() < 1e-12, "{i},{j}: {} {expected}", got.get(i, j));
    }
}

fn one(kind: SimilarityKind, cohort: &Cohort<'_>) -> Matrix {
    similarity(kind, cohort, MixingGroups::One).unwrap().of(Part::Front).clone()
}

fn products_of(slice: &Slice) -> Vec<f64> {
    let mut all = Vec::new();
    for named in &slice.tensors {
        let Some(stem) = named.name.strip_suffix(".lora_A.weight") else { continue };
        let b = slice.get(&format!("{stem}.lora_B.weight")).unwrap().to_kind(Kind::Double);
        let dense = b.mm(&named.tensor.to_kind(Kind::Double)).reshape([-1]);
        all.extend(Vec::<f64>::try_from(dense).unwrap());
    }
    all
}

#[test]
fn parameters_compare_the_flattened_tensors() {
    let thetas = random_thetas(4);
    let vectors: Vec<_> = thetas.iter().map(flat).collect();
    assert_is_textbook(&one(SimilarityKind::Parameters, &cohort(&thetas)), &vectors);
}

#[test]
fn update_compares_the_change_of_the_round() {
    let (thetas, starts) = (random_thetas(3), [random_theta(7), random_theta(8), random_theta(9)]);
    let participants = (0..3).map(|c| ParticipantTheta {
        client: ClientId(c),
        theta: &thetas[c as usize],
        start: Some(&starts[c as usize]),
    });
    let changes: Vec<Vec<f64>> = thetas
        .iter()
        .zip(&starts)
        .map(|(now, then)| flat(now).iter().zip(flat(then)).map(|(a, b)| a - b).collect())
        .collect();
    assert_is_textbook(&one(SimilarityKind::Update, &Cohort::new(participants).unwrap()), &changes);
}

#[test]
fn update_without_a_start_names_the_client() {
    let thetas = random_thetas(2);
    let error = similarity(SimilarityKind::Update, &cohort(&thetas), MixingGroups::One);
    assert_eq!(error, Err(CohortError::NoStart { client: ClientId(0) }.into()));
}

#[test]
fn product_equals_the_dense_computation() {
    let thetas = random_thetas(4);
    let dense = |theta: &Theta| {
        Part::ALL.iter().flat_map(|&part| products_of(theta.part(part))).collect::<Vec<f64>>()
    };
    let vectors: Vec<_> = thetas.iter().map(dense).collect();
    assert_is_textbook(&one(SimilarityKind::Product, &cohort(&thetas)), &vectors);
}

#[test]
fn product_does_not_see_a_change_of_basis() {
    // B R and R^-1 A are the same adapter; for R = 2 I without any rounding.
    let (theta, same) = (random_theta(1), random_theta(1));
    for (_, named) in same.iter() {
        let factor = if named.name.ends_with("lora_A.weight") { 0.5 } else { 2.0 };
        let _ = named.tensor.shallow_clone().g_mul_scalar_(factor);
    }
    let thetas = [theta, same];
    assert_eq!(one(SimilarityKind::Product, &cohort(&thetas)).get(0, 1), 1.0);
    assert!(one(SimilarityKind::Parameters, &cohort(&thetas)).get(0, 1) < 0.99);
}

#[test]
fn separate_groups_compare_their_own_part() {
    let thetas = random_thetas(3);
    for kind in [SimilarityKind::Parameters, SimilarityKind::Product] {
        let matrices = similarity(kind, &cohort(&thetas), MixingGroups::Separate).unwrap();
        assert!(matches!(matrices, Grouped::Separate { .. }));
        for part in Part::ALL {
            let vector = |theta: &Theta| match kind {
                SimilarityKind::Product => products_of(theta.part(part)),
                _ => {
                    let tensors = theta.iter().filter(|(of, _)| *of == part);
                    let values = |(_, t): (_, &NamedTensor)| t.tensor.reshape([-1]);
                    tensors.flat_map(|t| Vec::<f64>::try_from(values(t)).unwrap()).collect()
                }
            };
            let vectors: Vec<Vec<f64>> = thetas.iter().map(vector).collect();
            assert_is_textbook(matrices.of(part), &vectors);
        }
    }
}

#[test]
fn many_columns_are_cut_into_blocks() {
    // Two million numbers a client, three clients: more than one block.
    let big = |seed: i64| {
        let values = (Tensor::arange(2_000_000, (Kind::Float, tch::Device::Cpu)) * seed).sin();
        let front = Slice::new(vec![NamedTensor::new("w", values)]);
        Theta { front, ..Theta::default() }
    };
    let thetas = [big(1), big(2), big(3)];
    let vectors: Vec<_> = thetas.iter().map(flat).collect();
    assert_is_textbook(&one(SimilarityKind::Parameters, &cohort(&thetas)), &vectors);
}

#[test]
fn zero_vector_has_cosine_zero_and_is_like_itself() {
    let mut thetas = random_thetas(3);
    for (_, named) in thetas[1].iter() {
        let _ = named.tensor.shallow_clone().zero_();
    }
    let s = one(SimilarityKind::Parameters, &cohort(&thetas));
    assert_eq!((s.get(0, 1), s.get(1, 2), s.get(1, 1)), (0.5, 0.5, 1.0));
    // All adapters are zero before the first step, when B = 0.
    thetas.truncate(2);
    thetas[0] = thetas[1].deep_copy();
    let s = one(SimilarityKind::Product, &cohort(&thetas));
    assert_eq!((s.get(0, 1), s.get(0, 0)), (0.5, 1.0));
}

#[test]
fn identical_and_opposite_clients() {
    let thetas = [random_theta(3), random_theta(3), random_theta(3)];
    for (_, named) in thetas[2].iter() {
        let _ = named.tensor.shallow_clone().neg_();
    }
    let s = one(SimilarityKind::Parameters, &cohort(&thetas));
    assert!((s.get(0, 1) - 1.0).abs() < 1e-15 && s.get(0, 2).abs() < 1e-15);
}

#[test]
fn the_order_of_participants_does_not_matter() {
    let thetas = random_thetas(4);
    let participant =
        |c: usize| ParticipantTheta { client: ClientId(c as u32), theta: &thetas[c], start: None };
    let shuffled = Cohort::new([2, 0, 3, 1].map(participant)).unwrap();
    for kind in [SimilarityKind::Parameters, SimilarityKind::Product] {
        assert_eq!(one(kind, &cohort(&thetas)), one(kind, &shuffled));
    }
}

#[test]
fn product_without_adapters_is_refused() {
    let front = Slice::new(vec![NamedTensor::new("w", Tensor::ones([2], tch::kind::FLOAT_CPU))]);
    let thetas = [Theta { front, ..Theta::default() }];
    let error = similarity(SimilarityKind::Product, &cohort(&thetas), MixingGroups::One);
    assert_eq!(error, Err(SimilarityError::NoAdapters { part: Part::Front }));
}

#[test]
fn half_an_adapter_is_refused() {
    for (half, expected) in [("lora_A", "lora_B"), ("lora_B", "lora_A")] {
        let name = format!("q.{half}.weight");
        let tensor = Tensor::ones([2, 2], tch::kind::FLOAT_CPU);
        let front = Slice::new(vec![NamedTensor::new(&name, tensor)]);
        let thetas = [Theta { front, ..Theta::default() }];
        let error = similarity(SimilarityKind::Product, &cohort(&thetas), MixingGroups::One);
        let expected = format!("q.{expected}.weight");
        assert_eq!(error, Err(SimilarityError::Unpaired { name, expected }));
    }
}

#[test]
fn numbers_that_are_not_finite_name_the_client() {
    let thetas = random_thetas(2);
    let _ = thetas[1].body.tensors[0].tensor.shallow_clone().fill_(f64::NAN);
    let error = similarity(SimilarityKind::Parameters, &cohort(&thetas), MixingGroups::One);
    assert_eq!(error, Err(SimilarityError::NonFinite { client: ClientId(1) }));
}

#[test]
fn cohorts_are_checked() {
    let (theta, mut other) = (random_theta(0), random_theta(0));
    other.back.tensors.pop();
    let of = |client, theta| ParticipantTheta { client: ClientId(client), theta, start: None };
    assert_eq!(Cohort::new([]).unwrap_err(), CohortError::Empty);
    let twice = Cohort::new([of(1, &theta), of(0, &theta), of(1, &theta)]).unwrap_err();
    assert_eq!(twice, CohortError::Duplicate { client: ClientId(1) });
    let layout = Cohort::new([of(0, &theta), of(4, &other)]).unwrap_err();
    assert!(matches!(layout, CohortError::Layout { client: ClientId(4), .. }));
}
