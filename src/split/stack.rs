//! A run of blocks with a half pass in each direction, by graph or by recomputation.
//!
//! Shapes: B = batch, T = tokens, D = hidden width.

use std::ops::Range;

use tch::{Tensor, no_grad};

use crate::model::backbone::backward;
use crate::model::block::Block;
use crate::model::layout::Layout;
use crate::model::mask::MaskSeed;
use crate::model::pass::{BlockInputs, Pass};
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
    told: Told,
    kept: Kept,
}

/// [`BlockInputs`] that outlive their pass.
#[derive(Debug)]
struct Told {
    masks: Option<MaskSeed>,
    lengths_b: Option<Tensor>,
}

impl Told {
    fn of(inputs: BlockInputs<'_>) -> Self {
        let lengths_b = inputs.lengths_b.map(Tensor::shallow_clone);
        Self { masks: inputs.masks.copied(), lengths_b }
    }

    fn inputs(&self) -> BlockInputs<'_> {
        BlockInputs { masks: self.masks.as_ref(), lengths_b: self.lengths_b.as_ref() }
    }
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
        if self.recompute {
            let mut passes = self.forward_each(&[(input_btd, inputs)], input_grad);
            return passes.pop().expect("one client's");
        }
        let input = input_btd.detach().set_requires_grad(input_grad);
        let output = self.run(&input, inputs);
        let kept = Kept::Graph { input, output: output.shallow_clone() };
        (output.detach(), StackPass { told: Told::of(inputs), kept })
    }

    /// [`BlockStack::forward`] of several clients at once, in the order in which the stack was built for them;
    /// keeps block inputs only.
    pub fn forward_each(
        &self,
        clients: &[(&Tensor, BlockInputs<'_>)],
        input_grad: bool,
    ) -> Vec<(Tensor, StackPass)> {
        let pass = Pass::together(clients.iter().copied());
        let each: Vec<Tensor> = clients.iter().map(|(input_btd, _)| input_btd.detach()).collect();
        let mut kept: Vec<Vec<Tensor>> = clients.iter().map(|_| Vec::new()).collect();
        let output = no_grad(|| {
            let mut hidden = pass.pack(&each);
            for block in &self.blocks {
                let next = block.forward(&hidden, &pass);
                let inputs = pass.unpack(&std::mem::replace(&mut hidden, next));
                kept.iter_mut().zip(inputs).for_each(|(kept, input)| kept.push(input));
            }
            pass.unpack(&hidden)
        });
        let told = clients.iter().map(|(_, inputs)| Told::of(*inputs));
        let passes = told
            .zip(kept)
            .map(|(told, inputs)| StackPass { told, kept: Kept::Inputs { inputs, input_grad } });
        output.into_iter().zip(passes).collect()
    }

    /// The blocks, in order.
    pub(super) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Runs `[B, T, D]` to `[B, T, D]` within the caller's graph, or within none.
    pub fn run(&self, input_btd: &Tensor, inputs: BlockInputs<'_>) -> Tensor {
        let pass = Pass::alone(input_btd, inputs);
        let first = input_btd.shallow_clone();
        self.blocks.iter().fold(first, |hidden, block| block.forward(&hidden, &pass))
    }

    /// Adds to the gradients of the blocks' trainable tensors. Takes the gradient at the output,
    /// returns the one at the input; undefined content if nobody wanted it.
    pub fn backward(&self, pass: StackPass, grad_btd: Tensor) -> Tensor {
        match pass.kept {
            Kept::Graph { .. } if self.blocks.is_empty() => grad_btd,
            Kept::Graph { input, output } => graph_backward(&input, &output, &grad_btd),
            Kept::Inputs { .. } => {
                self.backward_each(vec![(pass, grad_btd)]).pop().expect("one client's")
            }
        }
    }

    /// [`BlockStack::backward`] of several clients at once, in the order in which the stack was built for them.
    /// Which of them went forward together does not matter.
    ///
    /// # Panics
    /// If a forward pass kept its graph: that is one client's.
    pub fn backward_each(&self, clients: Vec<(StackPass, Tensor)>) -> Vec<Tensor> {
        let mut told = Vec::with_capacity(clients.len());
        let (mut each_inputs, mut grads) = (Vec::new(), Vec::new());
        let mut wanted_before = false;
        for (pass, grad_btd) in clients {
            let Kept::Inputs { inputs, input_grad } = pass.kept else {
                panic!("a stack of several keeps block inputs")
            };
            wanted_before |= input_grad;
            told.push(pass.told);
            each_inputs.push(inputs);
            grads.push(grad_btd);
        }
        let shapes = grads.iter().zip(&told).map(|(grad, told)| (grad, told.inputs()));
        let pass = Pass::together(shapes);
        let mut grad = pass.pack(&grads);
        for (index, block) in self.blocks.iter().enumerate().rev() {
            let last =
                each_inputs.iter_mut().map(|inputs| inputs.pop().expect("one input a block"));
            let input = pass.pack(&last.collect::<Vec<_>>());
            let input = input.detach().set_requires_grad(wanted_before || index > 0);
            let output = block.forward(&input, &pass);
            grad = graph_backward(&input, &output, &grad);
        }
        pass.unpack(&grad)
    }
}

fn graph_backward(input: &Tensor, output: &Tensor, grad: &Tensor) -> Tensor {
    if output.requires_grad() {
        backward(output, grad);
    }
    input.grad()
}
