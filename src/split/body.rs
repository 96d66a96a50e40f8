//! The server's side of a client's session: one stage's blocks with that client's slice.
//!
//! Every half step is named by its [`StepId`] and may be sent again, early or late: a repeated
//! forward is computed again, a repeated backward or step answers what it answered before. Steps
//! follow each other from 0: a session that misses one, as after a restart, says so, and the client
//! replays its local round on a new session. One graph is pending at most (protocol.md 3).

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use tch::{Tensor, no_grad};

use super::SplitError;
use super::decode::{BodyDecoding, DecodeTurn};
use super::hidden::HiddenStates;
use super::stack::{BlockStack, StackPass};
use crate::ids::{ClientId, StepId};
use crate::model::block::BlockInputs;
use crate::model::cut::Place;
use crate::model::layout::Layout;
use crate::model::mask::MaskSeed;
use crate::model::rope::RopeTable;
use crate::model::spec::{BaseWeights, Params};
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
    width: i64,
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
    /// A session over the blocks of `place` with the client's slice and moments in `part`.
    #[allow(clippy::too_many_arguments, reason = "all are needed once, by the one who builds it")]
    pub fn new(
        client: ClientId,
        run_seed: u64,
        layout: &Layout,
        place: Place,
        base: &BaseWeights,
        rope: RopeTable,
        recompute: bool,
        part: TrainablePart,
    ) -> Self {
        let trainable = part.by_name();
        let params = Params { base, trainable: &trainable };
        let stack = BlockStack::new(&params, layout, layout.cut.blocks(place), &rope, recompute);
        let width = layout.architecture.hidden;
        Self { client, run_seed, width, part, stack, phase: Phase::Idle { stepped: None } }
    }

    /// Runs the stage's blocks and keeps the graph.
    pub fn forward(
        &mut self,
        step: StepId,
        hidden: &HiddenStates,
    ) -> Result<HiddenStates, SplitError> {
        hidden.check(self.width)?;
        let masks = MaskSeed { run_seed: self.run_seed, client: self.client, step };
        let inputs = BlockInputs { masks: Some(&masks), lengths_b: hidden.lengths() };
        match self.phase {
            // Late: its gradients are here already and must stay.
            Phase::Backwarded { step: pending, .. } if pending == step => {
                let output = no_grad(|| self.stack.run(hidden.tensor(), inputs));
                return Ok(HiddenStates::new(&output).with_lengths(hidden.lengths()));
            }
            Phase::Forwarded { step: pending, .. } if pending == step => {}
            _ => self.check_turn(step)?,
        }
        let (output, pass) = self.stack.forward(hidden.tensor(), true, inputs);
        self.phase = Phase::Forwarded { step, pass, shape: output.size() };
        Ok(HiddenStates::new(&output).with_lengths(hidden.lengths()))
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
        hidden.check(self.width)?;
        let inputs = BlockInputs { masks: None, lengths_b: hidden.lengths() };
        let output = no_grad(|| self.stack.run(hidden.tensor(), inputs));
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
        hidden.check(self.width)?;
        BodyDecoding::turn(held, &self.stack, turn, hidden)
    }

    /// Back-propagates the gradient at the stage's output.
    pub fn backward(
        &mut self,
        step: StepId,
        grad: &HiddenStates,
    ) -> Result<BodyGradient, SplitError> {
        if let Phase::Forwarded { step: pending, shape, .. } = &self.phase
            && *pending == step
        {
            grad.check_shape(shape)?;
        }
        match std::mem::replace(&mut self.phase, Phase::Idle { stepped: None }) {
            Phase::Forwarded { step: pending, pass, .. } if pending == step => {
                let grad = self.stack.backward(pass, grad.tensor().shallow_clone());
                self.part.close_gradients();
                let squared_norm = self.part.squared_grad_norm();
                self.phase = Phase::Backwarded { step, grad, squared_norm };
            }
            other => self.phase = other,
        }
        match &self.phase {
            Phase::Backwarded { step: done, grad, squared_norm } if *done == step => {
                Ok(BodyGradient { hidden: HiddenStates::new(grad), squared_norm: *squared_norm })
            }
            _ => Err(SplitError::UnknownStep { step }),
        }
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
