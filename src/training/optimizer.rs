//! AdamW (arXiv 1711.05101) over plain tensors: tch's optimiser shows no moments, and without them
//! neither a checkpoint nor a replay is exact (protocol.md 1).

use tch::{Tensor, no_grad};

use crate::config::OptimizerConfig;
use crate::split::StepPlan;

/// First and second moment of one tensor, same shape.
#[derive(Debug)]
pub struct Moments {
    /// Decaying mean of the gradients.
    pub first: Tensor,
    /// Decaying mean of their squares.
    pub second: Tensor,
}

/// Optimiser state of a list of tensors.
#[derive(Debug)]
pub struct AdamW {
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
    steps: u64,
    /// Empty until the first step.
    moments: Vec<Moments>,
}

impl AdamW {
    /// A fresh optimiser: no step made, no moments held.
    pub fn new(config: &OptimizerConfig) -> Self {
        Self::restored(config, 0, Vec::new())
    }

    /// An optimiser as it was after `steps` steps.
    pub fn restored(config: &OptimizerConfig, steps: u64, moments: Vec<Moments>) -> Self {
        let OptimizerConfig { beta1, beta2, eps, weight_decay, .. } = *config;
        Self { beta1, beta2, eps, weight_decay, steps, moments }
    }

    /// The same state on shared moments, for a checkpoint; only one of the two may step on.
    pub fn share(&self) -> Self {
        let share = |m: &Moments| Moments {
            first: m.first.shallow_clone(),
            second: m.second.shallow_clone(),
        };
        Self { moments: self.moments.iter().map(share).collect(), ..*self }
    }

    /// Steps made.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// One entry a tensor, in the tensors' order; empty before the first step.
    pub fn moments(&self) -> &[Moments] {
        &self.moments
    }

    /// One step on `params` from their gradients; a tensor without one counts as having zeros.
    ///
    /// With g the scaled gradient: m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2;
    /// p = p (1 - lr wd) - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps).
    pub fn step(&mut self, params: &mut [Tensor], plan: StepPlan) {
        no_grad(|| {
            if self.moments.is_empty() {
                let zeros = |p: &Tensor| Moments { first: p.zeros_like(), second: p.zeros_like() };
                self.moments = params.iter().map(zeros).collect();
            }
            self.steps += 1;
            let exponent = self.steps as f64;
            let correction1 = 1.0 - self.beta1.powf(exponent);
            let correction2 = (1.0 - self.beta2.powf(exponent)).sqrt();
            let decay = 1.0 - plan.learning_rate * self.weight_decay;
            for (param, Moments { first, second }) in params.iter_mut().zip(&mut self.moments) {
                let grad = param.grad();
                let _ = first.g_mul_scalar_(self.beta1);
                let _ = second.g_mul_scalar_(self.beta2);
                if grad.defined() {
                    let grad = if plan.grad_scale == 1.0 { grad } else { grad * plan.grad_scale };
                    let _ = first.g_add_(&(&grad * (1.0 - self.beta1)));
                    let _ = second.g_add_(&(grad.square() * (1.0 - self.beta2)));
                }
                let mut denominator = second.sqrt();
                let _ = denominator.g_div_scalar_(correction2).g_add_scalar_(self.eps);
                let change = &*first / denominator * (plan.learning_rate / correction1);
                let _ = param.g_mul_scalar_(decay).g_sub_(&change);
            }
        });
    }
}

/// Factor that brings a global norm down to `clip_norm`; 1 where nothing is clipped.
///
/// The same formula as PyTorch's `clip_grad_norm_`.
pub fn clip_scale(squared_norm: f64, clip_norm: Option<f64>) -> f64 {
    match clip_norm {
        Some(limit) => (limit / (squared_norm.sqrt() + 1e-6)).min(1.0),
        None => 1.0,
    }
}

/// Step size of the step after `steps_made`: rises linearly over the warm-up, then constant.
pub fn learning_rate(config: &OptimizerConfig, steps_made: u64) -> f64 {
    if steps_made >= config.warmup_steps {
        return config.learning_rate;
    }
    config.learning_rate * (steps_made + 1) as f64 / (config.warmup_steps + 1) as f64
}
