//! Claims about the proximal term of FedProx (method.md 9): what it adds to the gradient, that it
//! adds nothing else, and that it holds a federation back.

mod common;

use common::federation::{small_config, undisturbed};
use common::optimizer;
use fellrec::model::slice::{NamedTensor, Slice};
use fellrec::split::StepPlan;
use fellrec::training::{AdamW, TrainablePart};
use tch::{Device, Tensor};

fn slice(values: &[f32]) -> Slice {
    Slice::new(vec![NamedTensor::new("w", Tensor::from_slice(values))])
}

fn part(values: &[f32]) -> TrainablePart {
    TrainablePart::new(&slice(values), AdamW::new(&optimizer()), Device::Cpu)
}

fn gradient(part: &TrainablePart) -> Vec<f32> {
    Vec::try_from(part.by_name()["w"].grad()).expect("a gradient of floats")
}

#[test]
fn the_gradient_gets_mu_times_the_distance() {
    let part = part(&[1.0, -2.0, 3.0]).anchored(&slice(&[0.0, -2.0, 5.0]), 0.5);
    (&part.by_name()["w"] * 4.0).sum(tch::Kind::Float).backward();
    part.close_gradients();
    // 4 from the loss, 0.5 * (1, 0, -2) from the term; the norm sees their sum.
    assert_eq!(gradient(&part), [4.5, 4.0, 3.0]);
    assert_eq!(part.squared_grad_norm(), 4.5 * 4.5 + 16.0 + 9.0);
}

/// A tensor that the loss does not reach is pulled as well.
#[test]
fn a_tensor_without_a_gradient_is_pulled_too() {
    let part = part(&[1.0, 2.0]).anchored(&slice(&[0.0, 0.0]), 2.0);
    part.close_gradients();
    assert_eq!(gradient(&part), [2.0, 4.0]);
}

#[test]
fn strength_zero_adds_nothing() {
    let part = part(&[1.0]).anchored(&slice(&[9.0]), 0.0);
    part.close_gradients();
    assert!(!part.by_name()["w"].grad().defined());
}

/// Minimises -w from 0 with plain numbers: the stronger the term, the nearer the end.
#[test]
fn a_larger_mu_ends_nearer_to_the_start() {
    let end = |mu: f64| {
        let mut part = part(&[0.0]).anchored(&slice(&[0.0]), mu);
        for _ in 0..400 {
            (-&part.by_name()["w"]).sum(tch::Kind::Float).backward();
            part.close_gradients();
            part.step(StepPlan { learning_rate: 0.02, grad_scale: 1.0 });
        }
        part.slice().tensors[0].tensor.double_value(&[0])
    };
    let ends = [0.0, 0.5, 2.0, 8.0].map(end);
    assert!(ends.is_sorted_by(|near, far| near > far), "{ends:?}");
    // The minimum of -w + mu/2 w^2 is at 1/mu; weight decay moves it a little.
    assert!((ends[2] - 0.5).abs() < 0.05, "{ends:?}");
}

/// A term that is there and too weak for f32 leaves every bit: it adds to gradients and does nothing
/// else.
#[test]
fn a_federation_with_mu_zero_is_plain_fedavg_to_the_bit() {
    let with = |mu: &str| undisturbed(small_config(&["mixing.rule=fedavg", mu])).trace();
    let plain = undisturbed(small_config(&["mixing.rule=fedavg"])).trace();
    assert_eq!(plain.slices.len(), 3);
    assert_eq!(with("training.proximal_mu=0"), plain);
    assert_eq!(with("training.proximal_mu=1e-300"), plain);
    assert_ne!(with("training.proximal_mu=0.1").slices, plain.slices);
}
