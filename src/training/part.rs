//! The tensors a client trains at one place, with their optimiser state and what holds them back.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use super::optimizer::AdamW;
use crate::model::backbone::backward;
use crate::model::slice::{NamedTensor, Slice};
use crate::split::StepPlan;

/// Leaves that collect gradients, in checkpoint-name order, and their optimiser.
#[derive(Debug)]
pub struct TrainablePart {
    names: Vec<String>,
    leaves: Vec<Tensor>,
    optimizer: AdamW,
    anchor: Option<Anchor>,
}

/// A proximal term `strength / 2 * ||Theta - point||^2` of the local objective (method.md 9).
#[derive(Debug)]
struct Anchor {
    /// One tensor a leaf, same shape; never written to.
    point: Vec<Tensor>,
    strength: f64,
}

impl TrainablePart {
    /// Makes leaves of a slice; the slice's storage is copied.
    pub fn new(slice: &Slice, optimizer: AdamW, device: Device) -> Self {
        let leaf = |named: &NamedTensor| {
            named.tensor.detach().copy().to_device(device).set_requires_grad(true)
        };
        let names = slice.tensors.iter().map(|named| named.name.clone()).collect();
        let leaves = slice.tensors.iter().map(leaf).collect();
        Self { names, leaves, optimizer, anchor: None }
    }

    /// Adds a proximal term: every gradient also pulls towards `point`, a slice of the same layout
    /// that nobody writes to. `strength` 0 adds nothing and holds nothing.
    pub fn anchored(mut self, point: &Slice, strength: f64) -> Self {
        if strength == 0.0 {
            return self;
        }
        debug_assert!(point.tensors.iter().map(|t| &t.name).eq(&self.names), "same layout");
        let on_device =
            |(named, leaf): (&NamedTensor, &Tensor)| named.tensor.detach().to_device(leaf.device());
        let point = point.tensors.iter().zip(&self.leaves).map(on_device).collect();
        self.anchor = Some(Anchor { point, strength });
        self
    }

    /// Whether nothing trains here.
    pub fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }

    /// Handles on the leaves, by name.
    pub fn by_name(&self) -> BTreeMap<String, Tensor> {
        let leaves = self.leaves.iter().map(Tensor::shallow_clone);
        self.names.iter().cloned().zip(leaves).collect()
    }

    /// Optimiser steps made.
    pub fn steps(&self) -> u64 {
        self.optimizer.steps()
    }

    /// Adds the gradient `strength * (leaf - point)` of the proximal term, where there is one.
    ///
    /// To be called once a step, when the backward pass is complete and before the norm is taken:
    /// clipping bounds the gradient of the whole local objective.
    pub fn close_gradients(&self) {
        let Some(Anchor { point, strength }) = &self.anchor else { return };
        for (leaf, point) in self.leaves.iter().zip(point) {
            // By autograd and not in place: a leaf that the loss did not reach has no gradient yet.
            backward(leaf, &((leaf.detach() - point) * *strength));
        }
    }

    /// Squared norm of all gradients: f64, summed in name order, the same sum on either side of a cut.
    pub fn squared_grad_norm(&self) -> f64 {
        let gradients = self.leaves.iter().map(Tensor::grad).filter(Tensor::defined);
        let norms: Vec<Tensor> =
            gradients.map(|grad| grad.norm_scalaropt_dtype(2.0, Kind::Double)).collect();
        if norms.is_empty() {
            return 0.0;
        }
        // All of them in one transfer: from a GPU every single one would wait for all work so far.
        let norms = Vec::<f64>::try_from(Tensor::stack(&norms, 0)).expect("one number a leaf");
        norms.into_iter().map(|norm| norm.powi(2)).sum()
    }

    /// Makes an optimiser step and clears the gradients.
    pub fn step(&mut self, plan: StepPlan) {
        self.optimizer.step(&mut self.leaves, plan);
        self.clear_grads();
    }

    /// Sets all gradients to zero.
    pub fn clear_grads(&mut self) {
        for leaf in &mut self.leaves {
            leaf.zero_grad();
        }
    }

    /// The tensors as they are now, sharing no storage with the leaves, on the CPU.
    pub fn slice(&self) -> Slice {
        let copy = |(name, leaf): (&String, &Tensor)| NamedTensor {
            name: name.clone(),
            tensor: leaf.detach().copy().to_device(Device::Cpu),
        };
        Slice::new(self.names.iter().zip(&self.leaves).map(copy).collect())
    }

    /// Ends training: the tensors and the optimiser, without gradients or graph.
    pub fn into_parts(self) -> (Slice, AdamW) {
        (self.slice(), self.optimizer)
    }
}
