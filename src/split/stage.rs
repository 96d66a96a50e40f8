//! One stage of the model as a shard holds it, and half steps of several clients there as one.

use std::collections::BTreeMap;
use std::sync::Arc;

use tch::Tensor;

use super::SplitError;
use super::body::{BodyGradient, BodySession};
use super::hidden::{FrameLimits, HiddenStates};
use super::stack::BlockStack;
use crate::ids::StepId;
use crate::model::cut::Place;
use crate::model::layout::Layout;
use crate::model::rope::RopeTable;
use crate::model::spec::{BaseWeights, Params};

/// What all sessions at a stage compute with.
#[derive(Debug)]
pub struct Stage {
    /// Which tensors stand where.
    pub layout: Arc<Layout>,
    /// Which stage it is.
    pub place: Place,
    /// Its frozen weights, shared storage.
    pub base: BaseWeights,
    /// Rotary tables, shared storage.
    pub rope: RopeTable,
    /// What a client may send.
    pub limits: FrameLimits,
    /// Seed of the run, which dropout masks depend on.
    pub run_seed: u64,
    /// Keep block inputs only and compute blocks again in the backward pass.
    pub recompute: bool,
}

/// A forward or backward pass that a client asked for.
#[derive(Debug)]
pub struct HalfStep<'a> {
    /// Its session.
    pub session: &'a mut BodySession,
    /// Of which step.
    pub step: StepId,
    /// Hidden states or their gradients, `[B, T, D]`.
    pub hidden: &'a HiddenStates,
}

impl Stage {
    /// The stage's blocks for these clients, in this order, with what each of them trains.
    pub(super) fn stack(&self, trainable: &[&BTreeMap<String, Tensor>]) -> BlockStack {
        let params = Params { base: &self.base, trainable };
        let blocks = self.layout.cut.blocks(self.place);
        BlockStack::new(&params, &self.layout, blocks, &self.rope, self.recompute)
    }

    /// [`BodySession::forward`] of several clients. Products with frozen weights are made once for the rows of
    /// all, so answers are those of passes made one by one up to rounding. One by one they are made without
    /// `recompute`, whose graphs belong to one client each.
    ///
    /// To be called where clients train adapters only.
    pub fn forward_each(
        &self,
        asked: &mut [HalfStep<'_>],
    ) -> Vec<Result<HiddenStates, SplitError>> {
        let is_due = |half: &HalfStep<'_>| half.session.is_forward_due(half.step, half.hidden);
        let due: Vec<bool> = asked.iter().map(|half| matches!(is_due(half), Ok(true))).collect();
        let mut computed = self.together(&due).then(|| {
            let due: Vec<&HalfStep<'_>> = chosen(asked.iter(), &due).collect();
            let trainable: Vec<_> = due.iter().map(|half| half.session.trainable()).collect();
            let masks: Vec<_> = due.iter().map(|half| half.session.masks(half.step)).collect();
            let clients: Vec<_> = due
                .iter()
                .zip(&masks)
                .map(|(half, masks)| (half.hidden.tensor(), half.hidden.inputs(Some(masks))))
                .collect();
            self.stack(&trainable.iter().collect::<Vec<_>>())
                .forward_each(&clients, true)
                .into_iter()
        });
        let answer = |(half, due): (&mut HalfStep<'_>, bool)| match computed
            .as_mut()
            .filter(|_| due)
            .and_then(Iterator::next)
        {
            Some((output, pass)) => {
                Ok(half.session.forwarded(half.step, half.hidden, &output, pass))
            }
            None => half.session.forward(half.step, half.hidden),
        };
        asked.iter_mut().zip(due).map(answer).collect()
    }

    /// [`BodySession::backward`] of several clients, as [`Stage::forward_each`]; they need not have gone forward
    /// together.
    pub fn backward_each(
        &self,
        asked: &mut [HalfStep<'_>],
    ) -> Vec<Result<BodyGradient, SplitError>> {
        let is_due = |half: &HalfStep<'_>| half.session.is_backward_due(half.step, half.hidden);
        let due: Vec<bool> = asked.iter().map(|half| matches!(is_due(half), Ok(true))).collect();
        if self.together(&due) {
            let mut due: Vec<_> = chosen(asked.iter_mut(), &due).collect();
            let trainable: Vec<_> = due.iter().map(|half| half.session.trainable()).collect();
            let take = |half: &mut &mut HalfStep<'_>| {
                let pass = half.session.take_pass().expect("a forward pass is pending");
                (pass, half.hidden.tensor().shallow_clone())
            };
            let passes = due.iter_mut().map(take).collect();
            let grads = self.stack(&trainable.iter().collect::<Vec<_>>()).backward_each(passes);
            for (half, grad) in due.into_iter().zip(grads) {
                half.session.backwarded(half.step, grad);
            }
        }
        // Those that are done answer what they have.
        asked.iter_mut().map(|half| half.session.backward(half.step, half.hidden)).collect()
    }

    fn together(&self, due: &[bool]) -> bool {
        self.recompute && due.iter().filter(|due| **due).count() > 1
    }
}

/// The items whose flag is set.
fn chosen<T>(items: impl Iterator<Item = T>, flags: &[bool]) -> impl Iterator<Item = T> {
    items.zip(flags).filter_map(|(item, flag)| flag.then_some(item))
}
