//! Self-attention in both directions: dense as in BERT, or Longformer's sliding window with global
//! attention on the first token (arXiv 2004.05150, as Hugging Face computes it).
//!
//! With a window of w every token sees those at most w / 2 away and token 0, by the same queries,
//! keys and values. Token 0 sees all of them by three projections of its own.
//!
//! Shapes: B = batch, T = positions, D = hidden width, H = heads, E = head width, W = one side of the
//! window, N = chunks of W queries, C = 3 W keys that a chunk can see.

use tch::{Kind, Tensor};

use super::padding::Padding;
use crate::config::LoraConfig;
use crate::model::architecture::{Architecture, Encoder};
use crate::model::linear::Linear;
use crate::model::pass::{BlockInputs, Pass};
use crate::model::spec::Params;

/// `attention.self` of a block.
#[derive(Debug)]
pub struct Attention {
    local: Projections,
    heads: i64,
    window: Option<Window>,
}

#[derive(Debug)]
struct Window {
    /// Furthest neighbour that is seen, W.
    reach: i64,
    /// What token 0 sees with.
    global: Projections,
}

#[derive(Debug)]
struct Projections {
    query: Linear,
    key: Linear,
    value: Linear,
}

impl Projections {
    fn new(params: &Params<'_>, name: &str, suffix: &str, lora: &LoraConfig) -> Self {
        let linear = |part: &str| Linear::new(params, &format!("{name}.self.{part}{suffix}"), lora);
        Self { query: linear("query"), key: linear("key"), value: linear("value") }
    }

    /// Queries, keys and values `[B, T, H * E]`.
    fn project(&self, x_btd: &Tensor, pass: &Pass<'_>) -> [Tensor; 3] {
        [&self.query, &self.key, &self.value].map(|linear| linear.forward(x_btd, pass))
    }
}

/// Queries, keys and values of every head.
pub(super) struct Heads {
    /// `[B, H, T, E]`.
    pub q_bhte: Tensor,
    /// `[B, H, T, E]`.
    pub k_bhte: Tensor,
    /// `[B, H, T, E]`.
    pub v_bhte: Tensor,
}

impl Attention {
    /// The layer called `name`, as in `encoder.layer.0.attention`, of block `layer`.
    pub fn new(
        params: &Params<'_>,
        name: &str,
        layer: i64,
        architecture: &Architecture,
        encoder: &Encoder,
        lora: &LoraConfig,
    ) -> Self {
        let window = encoder.windows.as_ref().map(|windows| Window {
            reach: windows[layer as usize] / 2,
            global: Projections::new(params, name, "_global", lora),
        });
        let local = Projections::new(params, name, "", lora);
        Self { local, heads: architecture.heads, window }
    }

    /// `[B, T, D]` to `[B, T, D]`, before the output projection. Padded positions are seen by no
    /// other; what comes out at them means nothing.
    pub fn forward(&self, x_btd: &Tensor, pass: &Pass<'_>) -> Tensor {
        let [query, key, value] = self.local.project(x_btd, pass);
        let Some(Window { reach, global }) = &self.window else {
            return pass.each([&query, &key, &value], |_, local, inputs| {
                let heads = self.heads(local);
                joined(&heads.dense(None, &heads.padding(inputs)))
            });
        };
        let (first_key, first_value) =
            (global.key.forward(x_btd, pass), global.value.forward(x_btd, pass));
        let xs = [x_btd, &query, &key, &value, &first_key, &first_value];
        pass.each(xs, |_, [x_btd, query, key, value, first_key, first_value], inputs| {
            let heads = self.heads([query, key, value]);
            let padding = heads.padding(inputs);
            let local_bhte = heads.windowed(*reach, &padding);
            // What token 0 sees, `[B, H, 1, E]`; nobody trains adapters on its projections.
            let first_b1d = x_btd.narrow(1, 0, 1);
            let first_query = global.query.forward(&first_b1d, &Pass::alone(&first_b1d, *inputs));
            let first_bh1e =
                self.heads([first_query, first_key, first_value]).dense(None, &padding);
            let others = local_bhte.size()[2] - 1;
            joined(&Tensor::cat(&[first_bh1e, local_bhte.narrow(2, 1, others)], 2))
        })
    }

    /// Heads of projections `[B, T, H * E]`.
    fn heads(&self, projections: [Tensor; 3]) -> Heads {
        let [q_bhte, k_bhte, v_bhte] = projections.map(|projected| self.split(&projected));
        Heads { q_bhte, k_bhte, v_bhte }
    }

    /// `[B, T, H * E]` to `[B, H, T, E]`.
    fn split(&self, projected: &Tensor) -> Tensor {
        let (batch, length, _) = projected.size3().expect("frames have three dimensions");
        projected.view([batch, length, self.heads, -1]).transpose(1, 2)
    }
}

impl Heads {
    /// Which keys are real.
    fn padding(&self, inputs: &BlockInputs<'_>) -> Padding {
        Padding::new(inputs.lengths_b, self.k_bhte.size()[2])
    }

    /// Every query over all real keys, or over those that are `reach` away and key 0; T^2 scores.
    pub(super) fn dense(&self, reach: Option<i64>, padding: &Padding) -> Tensor {
        let real = padding.real_bt().map(|real_bt| real_bt.unsqueeze(1).unsqueeze(1));
        let band = reach.map(|reach| {
            let length = self.k_bhte.size()[2];
            let positions_t = Tensor::arange(length, (Kind::Int64, self.k_bhte.device()));
            let near_tt = (positions_t.unsqueeze(1) - &positions_t).abs().le(reach);
            near_tt.logical_or(&positions_t.eq(0))
        });
        let visible = match (real, band) {
            (Some(real), Some(band)) => Some(real.logical_and(&band)),
            (real, band) => real.or(band),
        };
        let Heads { q_bhte, k_bhte, v_bhte } = self;
        Tensor::scaled_dot_product_attention(
            q_bhte,
            k_bhte,
            v_bhte,
            visible.as_ref(),
            0.0,
            false,
            None,
            false,
        )
    }

    /// Every query over the real keys that are `reach` away and key 0. No more than T C scores exist:
    /// where that is less than T^2, chunks of queries meet the keys around them only.
    pub(super) fn windowed(&self, reach: i64, padding: &Padding) -> Tensor {
        if self.k_bhte.size()[2] <= 3 * reach {
            return self.dense(Some(reach), padding);
        }
        self.chunked(reach, padding)
    }

    /// [`Heads::windowed`] by chunks, whatever the length.
    pub(super) fn chunked(&self, reach: i64, padding: &Padding) -> Tensor {
        let (batch, heads, length, width) = self.q_bhte.size4().expect("four dimensions");
        let chunk = reach.max(1);
        let chunks = (length + chunk - 1) / chunk;
        let short = chunks * chunk - length;

        // Keys of the chunk before, the chunk itself and the one after; zeros beyond both ends.
        let around = |x_bhte: &Tensor| {
            let padded = x_bhte.constant_pad_nd([0, 0, chunk, chunk + short]);
            padded.unfold(2, 3 * chunk, chunk)
        };
        let (k_bhnec, v_bhnec) = (around(&self.k_bhte), around(&self.v_bhte));
        let q_bhte = &self.q_bhte / (width as f64).sqrt();
        let q_bhnwe =
            q_bhte.constant_pad_nd([0, 0, 0, short]).view([batch, heads, chunks, chunk, width]);

        let hidden = self.hidden_keys(reach, chunk, short, padding);
        let near_bhnwc = q_bhnwe.matmul(&k_bhnec).masked_fill(&hidden, f64::NEG_INFINITY);
        let (first_k, first_v) = (self.k_bhte.narrow(2, 0, 1), self.v_bhte.narrow(2, 0, 1));
        let first_bhnw1 = q_bhnwe.matmul(&first_k.transpose(2, 3).unsqueeze(2));

        let scores = Tensor::cat(&[first_bhnw1, near_bhnwc], -1);
        let shares = scores.softmax(-1, Kind::Float).to_kind(scores.kind());
        let of_first = shares.narrow(-1, 0, 1) * first_v.unsqueeze(2);
        let of_near = shares.narrow(-1, 1, 3 * chunk).matmul(&v_bhnec.transpose(-1, -2));
        let mixed_bhte = (of_first + of_near).view([batch, heads, chunks * chunk, width]);
        mixed_bhte.narrow(2, 0, length)
    }

    /// Bool, broadcast to `[B, H, N, W, C]`: true where the query of a chunk does not see the key
    /// around it, since it is too far, no token, or key 0, which is scored by itself.
    fn hidden_keys(&self, reach: i64, chunk: i64, short: i64, padding: &Padding) -> Tensor {
        let (length, device) = (self.k_bhte.size()[2], self.k_bhte.device());
        let options = (Kind::Int64, device);
        let queries_w = Tensor::arange_start(chunk, 2 * chunk, options);
        let keys_c = Tensor::arange(3 * chunk, options);
        let far_wc = (queries_w.unsqueeze(1) - keys_c).abs().gt(reach);

        let near_bt = match padding.real_bt() {
            Some(real_bt) => real_bt.shallow_clone(),
            None => Tensor::ones([1, length], (Kind::Bool, device)),
        };
        let near_bt = near_bt.logical_and(&Tensor::arange(length, options).ne(0));
        let near_bnc = near_bt.constant_pad_nd([chunk, chunk + short]).unfold(1, 3 * chunk, chunk);
        near_bnc.logical_not().unsqueeze(2).logical_or(&far_wc).unsqueeze(1)
    }
}

/// `[B, H, T, E]` to `[B, T, H * E]`.
fn joined(x_bhte: &Tensor) -> Tensor {
    let (batch, _, length, _) = x_bhte.size4().expect("heads have four dimensions");
    x_bhte.transpose(1, 2).reshape([batch, length, -1])
}
