//! The seam between backbones and the split: a backbone says how a batch becomes hidden states at
//! the front and how hidden states become a loss and a ranking at the back. The body does not know.
//!
//! Shapes: B = batch, T = positions, D = hidden width, M = labelled positions, V = candidates.

use tch::{Tensor, no_grad};

use super::encoder::{Embeddings, EncoderInputs};
use super::spec::{Params, TensorSpec};

/// What enters the front.
#[derive(Debug)]
pub enum Inputs {
    /// Ids of items or tokens, `[B, T]`, right-padded with 0. Causal blocks need no lengths.
    Ids(Tensor),
    /// Texts for an encoder.
    Texts(EncoderInputs),
}

impl Inputs {
    /// Ids of items or tokens, `[B, T]`.
    pub fn ids(&self) -> &Tensor {
        match self {
            Self::Ids(ids_bt) => ids_bt,
            Self::Texts(texts) => &texts.ids_bt,
        }
    }

    /// Real positions of every row, `[B]`, where the blocks have to know.
    pub fn lengths(&self) -> Option<&Tensor> {
        match self {
            Self::Ids(_) => None,
            Self::Texts(texts) => Some(&texts.lengths_b),
        }
    }
}

/// Rows of inputs with the positions that are trained on.
#[derive(Debug)]
pub struct Batch {
    /// What enters, `[B, T]`.
    pub inputs: Inputs,
    /// Labelled positions as indices into `B * T`, `[M]`.
    pub rows_m: Tensor,
    /// Candidate expected at each of them, `[M]`.
    pub labels_m: Tensor,
}

impl Batch {
    /// Labelled positions: the unit in which losses are averaged and throughput is counted.
    pub fn labels(&self) -> u64 {
        self.labels_m.numel() as u64
    }
}

/// Tensors of one end of the model beside its blocks.
#[derive(Clone, Debug, Default)]
pub struct EndTensors {
    /// Part of the base: frozen when `trainable = "lora"`.
    pub base: Vec<TensorSpec>,
    /// Trained in either mode, for instance a projector that no checkpoint brings.
    pub adapters: Vec<TensorSpec>,
}

/// What the two ends compute with during one step.
///
/// Where both ends use the same parameters they meet in a leaf: each end adds to the leaf's
/// gradient, and [`Ends::backward`] walks the shared part once (method.md 5).
#[derive(Debug)]
pub struct Ends {
    input: InputLayer,
    /// Row v scores candidate v, `[V, D]`.
    pub outputs_vd: Tensor,
    shared: Option<Tensor>,
}

#[derive(Debug)]
enum InputLayer {
    /// Row v is the input vector of id v, `[V, D]`.
    Table(Tensor),
    Text(Embeddings),
}

impl Ends {
    /// Ends with parameters of their own, or with one parameter that is a leaf already.
    pub fn separate(inputs_vd: Tensor, outputs_vd: Tensor) -> Self {
        Self { input: InputLayer::Table(inputs_vd), outputs_vd, shared: None }
    }

    /// Text comes in; the candidates, which are computed elsewhere, are frozen.
    pub fn text(embeddings: Embeddings, outputs_vd: Tensor) -> Self {
        Self { input: InputLayer::Text(embeddings), outputs_vd, shared: None }
    }

    /// Both ends use `table_vd`, which is computed from parameters.
    pub fn shared(table_vd: Tensor) -> Self {
        if !table_vd.requires_grad() {
            return Self::separate(table_vd.shallow_clone(), table_vd);
        }
        let leaf_vd = table_vd.detach().set_requires_grad(true);
        let input = InputLayer::Table(leaf_vd.shallow_clone());
        Self { input, outputs_vd: leaf_vd, shared: Some(table_vd) }
    }

    /// Input vectors of a batch, `[B, T, D]`.
    ///
    /// # Panics
    /// If they are of another kind than the backbone's: the same blueprint makes both.
    pub fn enter(&self, inputs: &Inputs) -> Tensor {
        match (inputs, &self.input) {
            (Inputs::Ids(ids_bt), _) => self.embed(ids_bt),
            (Inputs::Texts(texts), InputLayer::Text(embeddings)) => embeddings.forward(texts),
            (Inputs::Texts(_), InputLayer::Table(_)) => panic!("texts enter an encoder"),
        }
    }

    /// Input vectors of ids `[B, T]`: `[B, T, D]`.
    ///
    /// # Panics
    /// If the backbone reads texts.
    pub fn embed(&self, ids_bt: &Tensor) -> Tensor {
        match &self.input {
            InputLayer::Table(inputs_vd) => Tensor::embedding(inputs_vd, ids_bt, -1, false, false),
            InputLayer::Text(_) => panic!("an encoder reads texts, not ids"),
        }
    }

    /// Back-propagates what both ends left at the shared leaf.
    pub fn backward(self) {
        if let Some(table_vd) = self.shared {
            backward(&table_vd, &self.outputs_vd.grad());
        }
    }
}

/// Back-propagates `grad` from `output`: the scalar sum(output * grad) has exactly the
/// vector-Jacobian product as its gradient.
pub fn backward(output: &Tensor, grad: &Tensor) {
    (output * grad.detach()).sum(output.kind()).backward();
}

/// A kind of model around the blocks.
pub trait Backbone: Send {
    /// Tensors of the front beside its blocks.
    fn front(&self) -> EndTensors;

    /// Tensors of the back beside its blocks and the final norm.
    fn back(&self) -> EndTensors;

    /// The same backbone on shared storage, for another client of this process.
    fn share(&self) -> Box<dyn Backbone>;

    /// Prepares the ends for one step, or under `no_grad` for one evaluation.
    fn open(&self, params: &Params<'_>) -> Ends;
}

/// Summed loss and its gradient, from [`cross_entropy`].
#[derive(Debug)]
pub struct LossGradient {
    /// Sum of the cross-entropy over the M rows, in nats.
    pub loss_sum: f64,
    /// Gradient of the mean loss, `[M, D]`.
    pub rows_md: Tensor,
}

/// Softmax cross-entropy of `rows_md` against all V candidates, `chunk` rows at a time, so that
/// no more than `chunk * V` logits exist at once.
///
/// The gradient is written out, (softmax - onehot) / M, instead of recorded: it costs one pass
/// over the logits, and frozen candidates cost none. Where `outputs_vd` trains, its gradient is
/// added through the graph of an inner product with a constant.
pub fn cross_entropy(
    rows_md: &Tensor,
    labels_m: &Tensor,
    outputs_vd: &Tensor,
    chunk: i64,
) -> LossGradient {
    let count = rows_md.size()[0];
    let mut loss_sum = Tensor::zeros([0i64; 0], (tch::Kind::Double, rows_md.device()));
    let mut grads_md = Vec::new();
    let mut outputs_grad_vd = None;
    no_grad(|| {
        let outputs_dv = outputs_vd.tr();
        let minus_one = Tensor::from(-1f32).to_device(rows_md.device());
        for start in (0..count).step_by(chunk as usize) {
            let length = chunk.min(count - start);
            let rows = rows_md.narrow(0, start, length);
            let labels = labels_m.narrow(0, start, length).unsqueeze(1);
            // f32 from here on: a softmax over many candidates is no place for bf16.
            let mut logits = rows.matmul(&outputs_dv).log_softmax(-1, tch::Kind::Float);
            loss_sum -= logits.gather(1, &labels, false).sum(tch::Kind::Double);
            let _ = logits.exp_();
            let _ = logits.scatter_add_(1, &labels, &minus_one.expand([length, 1], false));
            let logits = logits.to_kind(rows.kind());
            grads_md.push(logits.matmul(outputs_vd) / count as f64);
            if outputs_vd.requires_grad() {
                let grad = logits.tr().matmul(&rows);
                outputs_grad_vd = Some(match outputs_grad_vd.take() {
                    None => grad,
                    Some(sum) => sum + grad,
                });
            }
        }
    });
    if let Some(grad) = outputs_grad_vd {
        backward(outputs_vd, &(grad / count as f64));
    }
    LossGradient { loss_sum: loss_sum.double_value(&[]), rows_md: Tensor::cat(&grads_md, 0) }
}
