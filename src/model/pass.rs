//! Whose rows go through the blocks in one pass, and what belongs to each client alone.
//!
//! Products with frozen weights do not ask whose a row is. Adapters, attention and dropout do: they are computed
//! client by client, so that each gets what it would get alone.
//!
//! Shapes: B = batch, T = positions, D = hidden width, N = B T summed over the clients.

use tch::Tensor;

use super::mask::MaskSeed;

/// What a block computes with beside one client's hidden states.
#[derive(Clone, Copy, Debug, Default)]
pub struct BlockInputs<'a> {
    /// Dropout masks of a training step; absent in evaluation.
    pub masks: Option<&'a MaskSeed>,
    /// Real positions of every row, `[B]` of i64, the rest is padding on the right. Needed by
    /// blocks that attend in both directions only.
    pub lengths_b: Option<&'a Tensor>,
}

/// The clients of a pass. Hidden states of one are `[B, T, D]`; those of several are packed to `[1, N, D]`, each
/// client's after those of the one before and nothing between.
#[derive(Debug)]
pub struct Pass<'a> {
    clients: Vec<Rows<'a>>,
}

/// One client's share of a pass.
#[derive(Debug)]
struct Rows<'a> {
    batch: i64,
    length: i64,
    inputs: BlockInputs<'a>,
}

impl<'a> Rows<'a> {
    fn of(x_btd: &Tensor, inputs: BlockInputs<'a>) -> Self {
        let (batch, length, _) = x_btd.size3().expect("frames have three dimensions");
        Self { batch, length, inputs }
    }
}

impl<'a> Pass<'a> {
    /// A pass of `x_btd` only, `[B, T, D]`.
    pub fn alone(x_btd: &Tensor, inputs: BlockInputs<'a>) -> Self {
        Self { clients: vec![Rows::of(x_btd, inputs)] }
    }

    /// A pass of all these, `[B, T, D]` each.
    pub fn together<'x>(clients: impl IntoIterator<Item = (&'x Tensor, BlockInputs<'a>)>) -> Self {
        Self { clients: clients.into_iter().map(|(x, inputs)| Rows::of(x, inputs)).collect() }
    }

    /// Clients in it.
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Hidden states as the blocks take them, from `[B, T, D]` of each client. Within the graph.
    pub fn pack(&self, each_btd: &[Tensor]) -> Tensor {
        match each_btd {
            [alone] => alone.shallow_clone(),
            each => Tensor::cat(&each.iter().map(flat).collect::<Vec<_>>(), 1),
        }
    }

    /// The opposite of [`Pass::pack`]. Several get storage of their own: one that stays does not keep the others'.
    pub fn unpack(&self, packed: &Tensor) -> Vec<Tensor> {
        if self.clients.len() == 1 {
            return vec![packed.shallow_clone()];
        }
        self.parts(packed).map(|part| part.copy()).collect()
    }

    /// Computes client by client: `f` gets a client's number, its parts `[B, T, ..]` of the tensors `xs` and what
    /// it computes with, and returns `[B, T, ..]`.
    pub fn each<const K: usize>(
        &self,
        xs: [&Tensor; K],
        f: impl Fn(usize, [Tensor; K], &BlockInputs<'a>) -> Tensor,
    ) -> Tensor {
        if let [alone] = self.clients.as_slice() {
            return f(0, xs.map(Tensor::shallow_clone), &alone.inputs);
        }
        let mut parts = xs.map(|x| self.parts(x));
        let outputs = self.clients.iter().enumerate().map(|(number, rows)| {
            let own = parts.each_mut().map(|part| part.next().expect("one part a client"));
            flat(&f(number, own, &rows.inputs))
        });
        Tensor::cat(&outputs.collect::<Vec<_>>(), 1)
    }

    /// Views `[B, T, ..]` of what is packed.
    fn parts(&self, packed: &Tensor) -> impl Iterator<Item = Tensor> {
        let mut start = 0;
        let width = packed.size()[2..].to_vec();
        self.clients.iter().map(move |Rows { batch, length, .. }| {
            let part = packed.narrow(1, start, batch * length);
            start += batch * length;
            part.reshape([&[*batch, *length], width.as_slice()].concat())
        })
    }
}

/// `[B, T, ..]` to `[1, B T, ..]`.
fn flat(x: &Tensor) -> Tensor {
    let size = x.size();
    x.reshape([&[1, size[0] * size[1]], &size[2..]].concat())
}
