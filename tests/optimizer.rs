//! Claim (protocol.md 1): our AdamW is PyTorch's, with decoupled weight decay, bias correction and
//! clipping by global norm. The fixtures are PyTorch's own steps: `tests/fixtures/adamw.py`.

mod common;

use fellrec::config::{OptimizerConfig, OrNone};
use fellrec::model::slice::{NamedTensor, Slice};
use fellrec::split::StepPlan;
use fellrec::training::{AdamW, TrainablePart, clip_scale, learning_rate};
use serde::Deserialize;
use tch::{Device, Tensor};

const TOLERANCE: f64 = 1e-6;

#[derive(Deserialize)]
struct Case {
    name: String,
    shapes: Vec<Vec<i64>>,
    start: Vec<Vec<f32>>,
    weight_decay: f64,
    clip_norm: Option<f64>,
    steps: Vec<Step>,
    /// First and second moment of every tensor after the last step.
    moments: Vec<[Vec<f32>; 2]>,
}

#[derive(Deserialize)]
struct Step {
    grads: Vec<Vec<f32>>,
    params: Vec<Vec<f32>>,
}

impl Case {
    fn config(&self) -> OptimizerConfig {
        OptimizerConfig {
            weight_decay: self.weight_decay,
            clip_norm: self.clip_norm.map_or(OrNone::None, OrNone::Some),
            warmup_steps: 0,
            ..common::optimizer()
        }
    }

    fn part(&self) -> TrainablePart {
        let tensor = |(index, (values, shape)): (usize, (&Vec<f32>, &Vec<i64>))| {
            let tensor = Tensor::from_slice(values).view(shape.as_slice());
            NamedTensor::new(format!("t{index}"), tensor)
        };
        let tensors = self.start.iter().zip(&self.shapes).enumerate().map(tensor);
        let slice = Slice::new(tensors.collect());
        TrainablePart::new(&slice, AdamW::new(&self.config()), Device::Cpu)
    }

    /// Back-propagates sums whose gradients are the fixture's, then steps.
    fn step(&self, part: &mut TrainablePart, step: &Step) {
        for ((leaf, grad), shape) in part.by_name().values().zip(&step.grads).zip(&self.shapes) {
            (leaf * Tensor::from_slice(grad).view(shape.as_slice())).sum(leaf.kind()).backward();
        }
        let config = self.config();
        let grad_scale = clip_scale(part.squared_grad_norm(), config.clip_norm.get());
        part.step(StepPlan { learning_rate: learning_rate(&config, part.steps()), grad_scale });
    }
}

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("fixtures/adamw.json")).expect("the fixture is JSON")
}

fn assert_close(got: &Tensor, expected: &[f32], what: &str) {
    let difference = (got.detach().view([-1]) - Tensor::from_slice(expected)).abs().max();
    let difference = difference.double_value(&[]);
    assert!(difference < TOLERANCE, "{what}: off by {difference:.2e}");
}

#[test]
fn every_step_is_pytorchs() {
    for case in cases() {
        let mut part = case.part();
        for (number, step) in case.steps.iter().enumerate() {
            case.step(&mut part, step);
            for (named, expected) in part.slice().tensors.iter().zip(&step.params) {
                assert_close(&named.tensor, expected, &format!("{}, step {number}", case.name));
            }
        }
        let (_, optimizer) = part.into_parts();
        assert_eq!(optimizer.steps(), case.steps.len() as u64);
        for (ours, [first, second]) in optimizer.moments().iter().zip(&case.moments) {
            assert_close(&ours.first, first, &format!("{}, first moment", case.name));
            assert_close(&ours.second, second, &format!("{}, second moment", case.name));
        }
    }
}

/// Clipping takes hold in some steps of the fixture and not in others: both are compared.
#[test]
fn the_fixture_clips_some_steps() {
    let case = cases().into_iter().find(|case| case.name == "clipping").expect("it is there");
    let clips = |step: &Step| {
        let squares = step.grads.iter().flatten().map(|g| f64::from(*g).powi(2));
        clip_scale(squares.sum(), case.clip_norm) < 1.0
    };
    let clipped = case.steps.iter().filter(|step| clips(step)).count();
    assert_eq!(clipped, case.steps.len() / 2);
}

/// Put down and taken up again between any two steps, the optimiser makes the same steps, bit for bit.
#[test]
fn moments_and_step_count_are_all_there_is_to_remember() {
    let case = cases().pop().expect("there are cases");
    let mut whole = case.part();
    case.steps.iter().for_each(|step| case.step(&mut whole, step));
    for pause in 0..case.steps.len() {
        let mut part = case.part();
        for (number, step) in case.steps.iter().enumerate() {
            if number == pause {
                let (slice, optimizer) = part.into_parts();
                part = TrainablePart::new(&slice, optimizer, Device::Cpu);
            }
            case.step(&mut part, step);
        }
        assert_eq!(part.slice().digest(), whole.slice().digest(), "paused before step {pause}");
    }
}

#[test]
fn the_step_size_rises_over_the_warm_up_and_stays() {
    let config = OptimizerConfig { learning_rate: 1.0, warmup_steps: 3, ..common::optimizer() };
    let rates: Vec<f64> = (0..6).map(|made| learning_rate(&config, made)).collect();
    assert_eq!(rates, [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]);
}
