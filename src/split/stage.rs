//! One stage of the model as a shard holds it, and half steps of several clients there as one.

use std::collections::BTreeMap;
use std::sync::Arc;

use tch::Tensor;

use super::SplitError;
use super::body::{BodyGradient, BodySession};
use super::hidden::{FrameLimits, HiddenStates};
use super::stack::{BlockStack, StackPass};
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
        let joined = self.joined(asked, |half| half.session.is_forward_due(half.step, half.hidden));
        let mut computed = self.forward_joined(&chosen(asked.iter(), &joined)).into_iter();
        let answer = |(half, joined): (&mut HalfStep<'_>, bool)| {
            if !joined {
                return half.session.forward(half.step, half.hidden);
            }
            let (output, pass) = computed.next().expect("one of each that is joined");
            Ok(half.session.forwarded(half.step, half.hidden, &output, pass))
        };
        asked.iter_mut().zip(joined).map(answer).collect()
    }

    fn forward_joined(&self, joined: &[&HalfStep<'_>]) -> Vec<(Tensor, StackPass)> {
        if joined.is_empty() {
            return Vec::new();
        }
        let trainable: Vec<_> = joined.iter().map(|half| half.session.trainable()).collect();
        let masks: Vec<_> = joined.iter().map(|half| half.session.masks(half.step)).collect();
        let clients: Vec<_> = joined
            .iter()
            .zip(&masks)
            .map(|(half, masks)| (half.hidden.tensor(), half.hidden.inputs(Some(masks))))
            .collect();
        self.stack(&trainable.iter().collect::<Vec<_>>()).forward_each(&clients, true)
    }

    /// [`BodySession::backward`] of several clients, as [`Stage::forward_each`]; they need not have gone forward
    /// together.
    pub fn backward_each(
        &self,
        asked: &mut [HalfStep<'_>],
    ) -> Vec<Result<BodyGradient, SplitError>> {
        let joined =
            self.joined(asked, |half| half.session.is_backward_due(half.step, half.hidden));
        let mut joined = chosen(asked.iter_mut(), &joined);
        if !joined.is_empty() {
            let trainable: Vec<_> = joined.iter().map(|half| half.session.trainable()).collect();
            let take = |half: &mut &mut HalfStep<'_>| {
                let pass = half.session.take_pass().expect("a forward pass is pending");
                (pass, half.hidden.tensor().shallow_clone())
            };
            let passes = joined.iter_mut().map(take).collect();
            let grads = self.stack(&trainable.iter().collect::<Vec<_>>()).backward_each(passes);
            for (half, grad) in joined.into_iter().zip(grads) {
                half.session.backwarded(half.step, grad);
            }
        }
        // Those that are done answer what they have.
        asked.iter_mut().map(|half| half.session.backward(half.step, half.hidden)).collect()
    }

    /// Which of these are computed as one: those that are due and train, where it is more than one of them. A
    /// session without adapters has none to stand in its place among the others'.
    fn joined(
        &self,
        asked: &[HalfStep<'_>],
        is_due: impl Fn(&HalfStep<'_>) -> Result<bool, SplitError>,
    ) -> Vec<bool> {
        let alone = || vec![false; asked.len()];
        if !self.recompute || asked.len() < 2 {
            return alone();
        }
        let joins = |half: &HalfStep<'_>| half.session.trains() && matches!(is_due(half), Ok(true));
        let joined: Vec<bool> = asked.iter().map(joins).collect();
        if joined.iter().filter(|joined| **joined).count() > 1 { joined } else { alone() }
    }
}

/// The items whose flag is set.
fn chosen<T>(items: impl Iterator<Item = T>, flags: &[bool]) -> Vec<T> {
    items.zip(flags).filter_map(|(item, flag)| flag.then_some(item)).collect()
}
