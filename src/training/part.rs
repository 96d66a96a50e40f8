//! The tensors a client trains at one place, with their optimiser state.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use super::optimizer::AdamW;
use crate::model::slice::{NamedTensor, Slice};
use crate::split::StepPlan;

/// Leaves that collect gradients, in checkpoint-name order, and their optimiser.
#[derive(Debug)]
pub struct TrainablePart {
    names: Vec<String>,
    leaves: Vec<Tensor>,
    optimizer: AdamW,
}

impl TrainablePart {
    /// Makes leaves of a slice; the slice's storage is copied.
    pub fn new(slice: &Slice, optimizer: AdamW, device: Device) -> Self {
        let leaf = |named: &NamedTensor| {
            named.tensor.detach().copy().to_device(device).set_requires_grad(true)
        };
        let names = slice.tensors.iter().map(|named| named.name.clone()).collect();
        Self { names, leaves: slice.tensors.iter().map(leaf).collect(), optimizer }
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

    /// Squared norm of all gradients: f64, summed in name order, the same sum on either side of a cut.
    pub fn squared_grad_norm(&self) -> f64 {
        let square = |leaf: &Tensor| {
            let grad = leaf.grad();
            if !grad.defined() {
                return 0.0;
            }
            grad.norm_scalaropt_dtype(2.0, Kind::Double).double_value(&[]).powi(2)
        };
        self.leaves.iter().map(square).sum()
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
