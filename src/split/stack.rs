//! A run of blocks with a half pass in each direction, by graph or by recomputation.
//!
//! Shapes: B = batch, T = tokens, D = hidden width.

use std::ops::Range;

use tch::{Tensor, no_grad};

use crate::model::backbone::backward;
use crate::model::block::{Block, BlockInputs};
use crate::model::layout::Layout;
use crate::model::mask::MaskSeed;
use crate::model::rope::RopeTable;
use crate::model::spec::Params;

/// Consecutive blocks of one place.
#[derive(Debug)]
pub struct BlockStack {
    blocks: Vec<Block>,
    recompute: bool,
}

/// What a forward pass keeps for its backward pass.
#[derive(Debug)]
pub struct StackPass {
    masks: Option<MaskSeed>,
    lengths_b: Option<Tensor>,
    kept: Kept,
}

#[derive(Debug)]
enum Kept {
    /// The graph from the input leaf to the output.
    Graph { input: Tensor, output: Tensor },
    /// The input of every block; `input_grad` tells whether the first one's gradient is wanted.
    Inputs { inputs: Vec<Tensor>, input_grad: bool },
}

impl BlockStack {
    /// The blocks `layers`. With `recompute` only block inputs are kept and every block is
    /// computed again in the backward pass, with the same masks.
    pub fn new(
        params: &Params<'_>,
        layout: &Layout,
        layers: Range<i64>,
        rope: &RopeTable,
        recompute: bool,
    ) -> Self {
        let block = |layer| Block::new(params, layer, &layout.architecture, &layout.lora, rope);
        Self { blocks: layers.map(block).collect(), recompute }
    }

    /// Runs `[B, T, D]` to `[B, T, D]` and keeps what [`BlockStack::backward`] needs.
    ///
    /// `input_grad` tells whether anybody trains before these blocks.
    pub fn forward(
        &self,
        input_btd: &Tensor,
        input_grad: bool,
        inputs: BlockInputs<'_>,
    ) -> (Tensor, StackPass) {
        let masks = inputs.masks.copied();
        let lengths_b = inputs.lengths_b.map(Tensor::shallow_clone);
        if self.recompute {
            let mut kept = Vec::with_capacity(self.blocks.len());
            let mut hidden_btd = input_btd.detach();
            no_grad(|| {
                for block in &self.blocks {
                    let next = block.forward(&hidden_btd, &inputs);
                    kept.push(std::mem::replace(&mut hidden_btd, next));
                }
            });
            let kept = Kept::Inputs { inputs: kept, input_grad };
            return (hidden_btd, StackPass { masks, lengths_b, kept });
        }
        let input = input_btd.detach().set_requires_grad(input_grad);
        let output = self.run(&input, inputs);
        let kept = Kept::Graph { input, output: output.shallow_clone() };
        (output.detach(), StackPass { masks, lengths_b, kept })
    }

    /// The blocks, in order.
    pub(super) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Runs `[B, T, D]` to `[B, T, D]` within the caller's graph, or within none.
    pub fn run(&self, input_btd: &Tensor, inputs: BlockInputs<'_>) -> Tensor {
        let mut hidden_btd = input_btd.shallow_clone();
        for block in &self.blocks {
            hidden_btd = block.forward(&hidden_btd, &inputs);
        }
        hidden_btd
    }

    /// Adds to the gradients of the blocks' trainable tensors. Takes the gradient at the output,
    /// returns the one at the input; undefined content if nobody wanted it.
    pub fn backward(&self, pass: StackPass, grad_btd: Tensor) -> Tensor {
        match pass.kept {
            Kept::Graph { .. } if self.blocks.is_empty() => grad_btd,
            Kept::Graph { input, output } => graph_backward(&input, &output, &grad_btd),
            Kept::Inputs { mut inputs, input_grad } => {
                let (masks, lengths_b) = (pass.masks.as_ref(), pass.lengths_b.as_ref());
                let mut grad_btd = grad_btd;
                for (index, block) in self.blocks.iter().enumerate().rev() {
                    let wanted = input_grad || index > 0;
                    let input = inputs.pop().expect("one input a block");
                    let input = input.detach().set_requires_grad(wanted);
                    let output = block.forward(&input, &BlockInputs { masks, lengths_b });
                    grad_btd = graph_backward(&input, &output, &grad_btd);
                }
                grad_btd
            }
        }
    }
}

fn graph_backward(input: &Tensor, output: &Tensor, grad: &Tensor) -> Tensor {
    if output.requires_grad() {
        backward(output, grad);
    }
    input.grad()
}
