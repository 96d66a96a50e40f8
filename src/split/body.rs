//! The server's side of a client's session: one stage's blocks with that client's slice.
//!
//! Every half step is named by its [`StepId`] and may be sent again, early or late: a repeated
//! forward is computed again, a repeated backward or step answers what it answered before. Steps
//! follow each other from 0: a session that misses one, as after a restart, says so, and the client
//! replays its local round on a new session. One graph is pending at most (protocol.md 3).

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tch::{Tensor, no_grad};

use super::SplitError;
use super::decode::{BodyDecoding, DecodeTurn};
use super::hidden::{FrameLimits, HiddenStates};
use super::stack::{BlockStack, StackPass};
use super::stage::Stage;
use crate::ids::{ClientId, StepId};
use crate::model::mask::MaskSeed;
use crate::training::TrainablePart;

/// How an optimiser step is to be made; the same for every part of a client's model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepPlan {
    /// Step size.
    pub learning_rate: f64,
    /// Factor on the gradients that keeps their global norm in bounds, at most 1.
    pub grad_scale: f64,
}

/// Answer to a backward pass.
#[derive(Debug, Serialize, Deserialize)]
pub struct BodyGradient {
    /// Gradient at the stage's input, `[B, T, D]`.
    pub hidden: HiddenStates,
    /// Squared norm of the gradient of this stage's slice, for clipping by global norm.
    pub squared_norm: f64,
}

/// One client's session on one stage.
#[derive(Debug)]
pub struct BodySession {
    client: ClientId,
    run_seed: u64,
    limits: FrameLimits,
    part: TrainablePart,
    stack: BlockStack,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// Before the first step, or after `step` was made.
    Idle { stepped: Option<StepId> },
    /// The forward pass of `step` waits for its backward pass.
    Forwarded { step: StepId, pass: StackPass, shape: Vec<i64> },
    /// Gradients of `step` wait for the optimiser step; `grad` answers a repeated backward.
    Backwarded { step: StepId, grad: Tensor, squared_norm: f64 },
}

impl BodySession {
    /// A session over the blocks of `stage` with the client's slice and moments in `part`.
    pub fn new(stage: &Stage, client: ClientId, part: TrainablePart) -> Self {
        let stack = stage.stack(&[&part.by_name()]);
        let (run_seed, limits) = (stage.run_seed, stage.limits);
        Self { client, run_seed, limits, part, stack, phase: Phase::Idle { stepped: None } }
    }

    /// Runs the stage's blocks and keeps what the backward pass needs.
    ///
    /// # Errors
    /// Hidden states that nobody may send, and a step that is not the next one.
    pub fn forward(
        &mut self,
        step: StepId,
        hidden: &HiddenStates,
    ) -> Result<HiddenStates, SplitError> {
        let masks = self.masks(step);
        let inputs = hidden.inputs(Some(&masks));
        if !self.is_forward_due(step, hidden)? {
            let output = no_grad(|| self.stack.run(hidden.tensor(), inputs));
            return Ok(HiddenStates::new(&output).with_lengths(hidden.lengths()));
        }
        let (output, pass) = self.stack.forward(hidden.tensor(), true, inputs);
        Ok(self.forwarded(step, hidden, &output, pass))
    }

    /// Whether the forward pass of `step` is to be kept; `false` for one that is late: its gradients are here
    /// already and must stay.
    pub(super) fn is_forward_due(
        &self,
        step: StepId,
        hidden: &HiddenStates,
    ) -> Result<bool, SplitError> {
        hidden.check_limits(&self.limits)?;
        match self.phase {
            Phase::Backwarded { step: pending, .. } if pending == step => return Ok(false),
            Phase::Forwarded { step: pending, .. } if pending == step => {}
            _ => self.check_turn(step)?,
        }
        Ok(true)
    }

    /// Keeps what a forward pass left, and returns its answer.
    pub(super) fn forwarded(
        &mut self,
        step: StepId,
        hidden: &HiddenStates,
        output: &Tensor,
        pass: StackPass,
    ) -> HiddenStates {
        self.phase = Phase::Forwarded { step, pass, shape: output.size() };
        HiddenStates::new(output).with_lengths(hidden.lengths())
    }

    /// Dropout masks of a step.
    pub(super) fn masks(&self, step: StepId) -> MaskSeed {
        MaskSeed { run_seed: self.run_seed, client: self.client, step }
    }

    /// Whether the client trains anything here.
    pub(super) fn trains(&self) -> bool {
        !self.part.is_empty()
    }

    /// Handles on what the client trains here, by name.
    pub(super) fn trainable(&self) -> BTreeMap<String, Tensor> {
        self.part.by_name()
    }

    /// Tells whether `step` is the one that follows those made here.
    fn check_turn(&self, step: StepId) -> Result<(), SplitError> {
        let next = match self.phase {
            Phase::Idle { stepped: None } => StepId { step: 0, ..step },
            Phase::Idle { stepped: Some(done) } => StepId { step: done.step + 1, ..done },
            Phase::Forwarded { step, .. } | Phase::Backwarded { step, .. } => step,
        };
        match step.cmp(&next) {
            Ordering::Equal => Ok(()),
            Ordering::Greater => Err(SplitError::UnknownStep { step }),
            Ordering::Less => {
                let newest = self.newest().unwrap_or(next);
                Err(SplitError::StaleStep { step, newest })
            }
        }
    }

    /// Runs the stage's blocks without keeping anything: evaluation.
    pub fn evaluate(&self, hidden: &HiddenStates) -> Result<HiddenStates, SplitError> {
        hidden.check_limits(&self.limits)?;
        let output = no_grad(|| self.stack.run(hidden.tensor(), hidden.inputs(None)));
        Ok(HiddenStates::new(&output).with_lengths(hidden.lengths()))
    }

    /// Runs the stage's blocks for one turn of a decoding; `held` is what the turns before left.
    /// `None` if that is not there any more.
    pub fn decode(
        &self,
        held: &mut Option<BodyDecoding>,
        turn: &DecodeTurn,
        hidden: &HiddenStates,
    ) -> Result<Option<HiddenStates>, SplitError> {
        hidden.check_limits(&self.limits)?;
        BodyDecoding::turn(held, &self.stack, turn, hidden, self.limits.positions)
    }

    /// Back-propagates the gradient at the stage's output.
    pub fn backward(
        &mut self,
        step: StepId,
        grad: &HiddenStates,
    ) -> Result<BodyGradient, SplitError> {
        if self.is_backward_due(step, grad)?
            && let Some(pass) = self.take_pass()
        {
            let grad = self.stack.backward(pass, grad.tensor().shallow_clone());
            self.backwarded(step, grad);
        }
        match &self.phase {
            Phase::Backwarded { step: done, grad, squared_norm } if *done == step => {
                Ok(BodyGradient { hidden: HiddenStates::new(grad), squared_norm: *squared_norm })
            }
            _ => Err(SplitError::UnknownStep { step }),
        }
    }

    /// Whether the forward pass of `step` waits for this gradient.
    pub(super) fn is_backward_due(
        &self,
        step: StepId,
        grad: &HiddenStates,
    ) -> Result<bool, SplitError> {
        match &self.phase {
            Phase::Forwarded { step: pending, shape, .. } if *pending == step => {
                grad.check_limits(&self.limits)?;
                grad.check_shape(shape)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// The forward pass that waits, to be back-propagated and given to [`BodySession::backwarded`].
    pub(super) fn take_pass(&mut self) -> Option<StackPass> {
        match std::mem::replace(&mut self.phase, Phase::Idle { stepped: None }) {
            Phase::Forwarded { pass, .. } => Some(pass),
            other => {
                self.phase = other;
                None
            }
        }
    }

    /// Keeps the gradients that a backward pass left, and `grad` at the stage's input.
    pub(super) fn backwarded(&mut self, step: StepId, grad: Tensor) {
        self.part.close_gradients();
        let squared_norm = self.part.squared_grad_norm();
        self.phase = Phase::Backwarded { step, grad, squared_norm };
    }

    /// Makes the optimiser step; made only once however often it is asked for.
    pub fn step(&mut self, step: StepId, plan: StepPlan) -> Result<(), SplitError> {
        match self.phase {
            Phase::Backwarded { step: pending, .. } if pending == step => {
                self.part.step(plan);
                self.phase = Phase::Idle { stepped: Some(step) };
                Ok(())
            }
            Phase::Idle { stepped: Some(done) } if done == step => Ok(()),
            _ => Err(SplitError::UnknownStep { step }),
        }
    }

    /// Ends the session and hands out the trained part. A pending step is dropped.
    pub fn close(mut self) -> TrainablePart {
        self.part.clear_grads();
        self.part
    }

    fn newest(&self) -> Option<StepId> {
        match self.phase {
            Phase::Idle { stepped } => stepped,
            Phase::Forwarded { step, .. } | Phase::Backwarded { step, .. } => Some(step),
        }
    }
}
