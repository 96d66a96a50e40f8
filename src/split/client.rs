//! The client's side: front and back of its model, with data, prompts and labels beside them.
//!
//! Shapes: B = batch, T = positions, D = hidden width, M = labelled positions, V = candidates.

use std::collections::BTreeMap;

use tch::{Tensor, no_grad};

use super::SplitError;
use super::body::StepPlan;
use super::decode::{DecodeCache, Turn};
use super::hidden::HiddenStates;
use super::stack::{BlockStack, StackPass};
use crate::config::{BackboneKind, Config};
use crate::model::backbone::{Backbone, Batch, Ends, Inputs, backward, cross_entropy};
use crate::model::cut::Place;
use crate::model::layout::Layout;
use crate::model::mask::{MaskSeed, dropout};
use crate::model::norm::RmsNorm;
use crate::model::pass::BlockInputs;
use crate::model::rope::RopeTable;
use crate::model::spec::{BaseWeights, Params};
use crate::training::TrainablePart;

/// Below it a row counts as this long: a cosine's usual guard (PyTorch's default).
const SHORTEST: f64 = 1e-8;

/// Front and back of one client, with their optimiser state.
pub struct ClientModel {
    backbone: Box<dyn Backbone>,
    base: BaseWeights,
    front: TrainablePart,
    back: TrainablePart,
    trainable: BTreeMap<String, Tensor>,
    front_stack: BlockStack,
    back_stack: BlockStack,
    final_norm: Option<RmsNorm>,
    /// Scored instead of what the backbone's ends bring.
    candidates_vd: Option<Tensor>,
    settings: ClientSettings,
    width: i64,
}

/// How a client computes its steps.
#[derive(Clone, Copy, Debug)]
pub struct ClientSettings {
    /// Keep only block inputs and compute blocks again in the backward pass.
    pub recompute: bool,
    /// Dropout on the input of the first block.
    pub dropout: f64,
    /// Rows of the logits that exist at once in the loss.
    pub loss_chunk: i64,
    /// Temperature of scores by cosine with candidates of length 1; `None` are inner products.
    pub cosine: Option<f64>,
}

impl ClientSettings {
    /// Those of a config.
    pub fn of(config: &Config) -> Self {
        let cosine = config.model.backbone == BackboneKind::Recformer;
        Self {
            recompute: config.runtime.recompute,
            dropout: config.model.dropout,
            loss_chunk: config.training.loss_chunk,
            cosine: cosine.then_some(config.recformer.temperature),
        }
    }
}

/// A step whose front has run: waits for the gradient at the cut.
pub struct FrontPass {
    ends: Ends,
    embedded_btd: Tensor,
    input_grad: bool,
    pass: StackPass,
    masks: MaskSeed,
}

/// A step whose back has run.
#[derive(Debug)]
pub struct BackPass {
    /// Sum of the loss over the batch's labels, in nats.
    pub loss_sum: f64,
    /// Gradient at the back's input, `[B, T, D]`.
    pub hidden: HiddenStates,
}

impl ClientModel {
    /// A model from a client's two parts over the shared base.
    #[allow(clippy::too_many_arguments, reason = "all are needed once, by the one who builds it")]
    pub fn new(
        backbone: Box<dyn Backbone>,
        layout: &Layout,
        base: BaseWeights,
        rope: &RopeTable,
        settings: ClientSettings,
        front: TrainablePart,
        back: TrainablePart,
    ) -> Self {
        let mut trainable = front.by_name();
        trainable.extend(back.by_name());
        let params = Params { base: &base, trainable: &[&trainable] };
        let stack = |place| {
            let blocks = layout.cut.blocks(place);
            BlockStack::new(&params, layout, blocks, rope, settings.recompute)
        };
        let (front_stack, back_stack) = (stack(Place::Front), stack(Place::Back));
        let final_norm = layout.final_norm(&params);
        Self {
            backbone,
            front_stack,
            back_stack,
            final_norm,
            candidates_vd: None,
            settings,
            width: layout.architecture.hidden,
            base,
            front,
            back,
            trainable,
        }
    }

    /// Embeds the batch and runs the front's blocks.
    pub fn forward_front(&self, batch: &Batch, masks: MaskSeed) -> (HiddenStates, FrontPass) {
        let ends = self.ends();
        let embedded_btd = ends.enter(&batch.inputs);
        let embedded_btd = dropout(&embedded_btd, self.settings.dropout, "embedding", Some(&masks));
        let input_grad = embedded_btd.requires_grad();
        let inputs = block_inputs(batch, &masks);
        let (hidden, pass) = self.front_stack.forward(&embedded_btd, input_grad, inputs);
        let pending = FrontPass { ends, embedded_btd, input_grad, pass, masks };
        (HiddenStates::new(&hidden).with_lengths(inputs.lengths_b), pending)
    }

    /// Runs the back, the loss, and back-propagates to the back's input.
    pub fn run_back(
        &self,
        pending: &FrontPass,
        hidden: &HiddenStates,
        batch: &Batch,
    ) -> Result<BackPass, SplitError> {
        hidden.check_shape(&pending.embedded_btd.size())?;
        let inputs = block_inputs(batch, &pending.masks);
        let (output_btd, pass) = self.back_stack.forward(hidden.tensor(), true, inputs);
        let output_leaf = output_btd.set_requires_grad(true);
        let loss_sum = self.head_backward(&pending.ends, &output_leaf, batch);
        let grad = self.back_stack.backward(pass, output_leaf.grad());
        Ok(BackPass { loss_sum, hidden: HiddenStates::new(&grad) })
    }

    /// Final norm, scores and loss of `[B, T, D]`; back-propagates into `output_btd`. Returns the
    /// summed loss in nats.
    pub fn head_backward(&self, ends: &Ends, output_btd: &Tensor, batch: &Batch) -> f64 {
        let rows_md = output_btd.view([-1, self.width]).index_select(0, &batch.rows_m);
        let queries_md = self.queries(&self.normed(rows_md));
        let loss = cross_entropy(
            &queries_md.detach(),
            &batch.labels_m,
            &ends.outputs_vd,
            self.settings.loss_chunk,
        );
        backward(&queries_md, &loss.rows_md);
        loss.loss_sum
    }

    /// Back-propagates the gradient at the cut through the front and what both ends share; the
    /// gradients of front and back are complete afterwards.
    pub fn backward_front(
        &self,
        pending: FrontPass,
        grad: &HiddenStates,
    ) -> Result<(), SplitError> {
        grad.check_shape(&pending.embedded_btd.size())?;
        let FrontPass { ends, embedded_btd, input_grad, pass, .. } = pending;
        let grad = self.front_stack.backward(pass, grad.tensor().shallow_clone());
        if input_grad {
            backward(&embedded_btd, &grad);
        }
        ends.backward();
        self.close_gradients();
        Ok(())
    }

    fn normed(&self, rows_md: Tensor) -> Tensor {
        match &self.final_norm {
            Some(norm) => norm.forward(&rows_md),
            None => rows_md,
        }
    }

    /// What is multiplied with the candidates, of normed rows `[M, D]`.
    fn queries(&self, normed_md: &Tensor) -> Tensor {
        match self.settings.cosine {
            Some(temperature) => unit_rows(normed_md) / temperature,
            None => normed_md.shallow_clone(),
        }
    }

    fn close_gradients(&self) {
        self.front.close_gradients();
        self.back.close_gradients();
    }

    /// Squared gradient norms of front and back.
    pub fn squared_grad_norms(&self) -> (f64, f64) {
        (self.front.squared_grad_norm(), self.back.squared_grad_norm())
    }

    /// Makes the optimiser step of front and back.
    pub fn step(&mut self, plan: StepPlan) {
        self.front.step(plan);
        self.back.step(plan);
    }

    /// Optimiser steps made so far, over all rounds unless moments are reset.
    pub fn steps(&self) -> u64 {
        self.front.steps()
    }

    /// The ends for one step, or under `no_grad` for one evaluation.
    pub fn ends(&self) -> Ends {
        let params = Params { base: &self.base, trainable: &[&self.trainable] };
        let mut ends = self.backbone.open(&params);
        if let Some(candidates_vd) = &self.candidates_vd {
            ends.outputs_vd = candidates_vd.shallow_clone();
        }
        ends
    }

    /// Has every later step and evaluation score these candidates, `[V, D]`, which nobody writes to
    /// and which do not train.
    pub fn set_candidates(&mut self, candidates_vd: Tensor) {
        self.candidates_vd = Some(candidates_vd);
    }

    /// Width of the hidden states.
    pub fn width(&self) -> i64 {
        self.width
    }

    /// Front without a graph: evaluation.
    pub fn evaluate_front(&self, ends: &Ends, inputs: &Inputs) -> HiddenStates {
        let lengths_b = inputs.lengths();
        let block_inputs = BlockInputs { masks: None, lengths_b };
        let hidden = no_grad(|| self.front_stack.run(&ends.enter(inputs), block_inputs));
        HiddenStates::new(&hidden).with_lengths(lengths_b)
    }

    /// Scores of every candidate at the given positions: `[B, T, D]` and `[M]` to `[M, V]`, f32.
    pub fn evaluate_back(
        &self,
        ends: &Ends,
        hidden: &HiddenStates,
        rows_m: &Tensor,
    ) -> Result<Tensor, SplitError> {
        let normed_md = self.last_hidden(hidden, rows_m)?;
        Ok(no_grad(|| self.scores(ends, &normed_md)))
    }

    /// The network's last hidden states at the given positions, after the final norm: `[B, T, D]` and
    /// `[M]` to `[M, D]`.
    pub fn last_hidden(
        &self,
        hidden: &HiddenStates,
        rows_m: &Tensor,
    ) -> Result<Tensor, SplitError> {
        hidden.check(self.width)?;
        let inputs = BlockInputs { masks: None, lengths_b: hidden.lengths() };
        Ok(no_grad(|| {
            let output_btd = self.back_stack.run(hidden.tensor(), inputs);
            self.normed(output_btd.view([-1, self.width]).index_select(0, rows_m))
        }))
    }

    fn scores(&self, ends: &Ends, normed_md: &Tensor) -> Tensor {
        self.queries(normed_md).matmul(&ends.outputs_vd.tr()).to_kind(tch::Kind::Float)
    }

    /// The front's part of a decoding's turn. `tokens` are the prompts `[B, T]`, right-padded, with
    /// their lengths at position 0, then one token a row `[B, 1]`.
    pub fn decode_front(
        &self,
        ends: &Ends,
        tokens_bt: &Tensor,
        turn: &Turn<'_>,
        held: &mut Option<DecodeCache>,
    ) -> Result<HiddenStates, SplitError> {
        let embedded_btd = no_grad(|| ends.embed(tokens_bt));
        let hidden_btd = self.front_stack.turn(&embedded_btd, turn, held)?;
        let lengths_b = match turn {
            Turn::Prompts { lengths_b } => Some(*lengths_b),
            Turn::Tokens { .. } => None,
        };
        Ok(HiddenStates::new(&hidden_btd).with_lengths(lengths_b))
    }

    /// The back's part of a decoding's turn: log-probabilities of the token that follows each row's
    /// last one, `[B, V]`, f32.
    pub fn decode_back(
        &self,
        ends: &Ends,
        hidden: &HiddenStates,
        turn: &Turn<'_>,
        held: &mut Option<DecodeCache>,
    ) -> Result<Tensor, SplitError> {
        hidden.check(self.width)?;
        let output_btd = self.back_stack.turn(hidden.tensor(), turn, held)?;
        Ok(no_grad(|| {
            let last_bd = match turn {
                Turn::Tokens { .. } => output_btd.squeeze_dim(1),
                Turn::Prompts { lengths_b } => {
                    let last_b =
                        (*lengths_b - 1).view([-1, 1, 1]).expand([-1, 1, self.width], false);
                    output_btd.gather(1, &last_b, false).squeeze_dim(1)
                }
            };
            self.scores(ends, &self.normed(last_bd)).log_softmax(-1, tch::Kind::Float)
        }))
    }

    /// Runs the whole client side in the caller's graph; the unsplit reference of the tests and
    /// the benches. `body` maps the front's output to the back's input.
    pub fn unsplit_step(
        &self,
        batch: &Batch,
        masks: MaskSeed,
        body: impl FnOnce(Tensor) -> Tensor,
    ) -> f64 {
        let ends = self.ends();
        let inputs = block_inputs(batch, &masks);
        let hidden_btd = body(self.unsplit_front(&ends, &batch.inputs, Some(&masks)));
        let output_btd = self.back_stack.run(&hidden_btd, inputs);
        let loss_sum = self.head_backward(&ends, &output_btd, batch);
        ends.backward();
        self.close_gradients();
        loss_sum
    }

    /// The last block's states `[B, T, D]` of a model without a body, in the caller's graph or in none;
    /// with dropout where there are masks.
    pub fn unsplit_output(&self, ends: &Ends, inputs: &Inputs, masks: Option<&MaskSeed>) -> Tensor {
        let hidden_btd = self.unsplit_front(ends, inputs, masks);
        self.back_stack.run(&hidden_btd, BlockInputs { masks, lengths_b: inputs.lengths() })
    }

    fn unsplit_front(&self, ends: &Ends, inputs: &Inputs, masks: Option<&MaskSeed>) -> Tensor {
        let embedded_btd = ends.enter(inputs);
        let embedded_btd = dropout(&embedded_btd, self.settings.dropout, "embedding", masks);
        self.front_stack.run(&embedded_btd, BlockInputs { masks, lengths_b: inputs.lengths() })
    }

    /// Ends the local round and hands out front and back.
    pub fn close(self) -> (TrainablePart, TrainablePart) {
        (self.front, self.back)
    }
}

fn block_inputs<'a>(batch: &'a Batch, masks: &'a MaskSeed) -> BlockInputs<'a> {
    BlockInputs { masks: Some(masks), lengths_b: batch.inputs.lengths() }
}

/// Rows of length 1, `[M, D]`; a row of zeros stays one.
pub fn unit_rows(rows_md: &Tensor) -> Tensor {
    let lengths = rows_md.norm_scalaropt_dim(2, [-1].as_slice(), true);
    rows_md / lengths.clamp_min(SHORTEST)
}
