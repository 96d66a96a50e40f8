//! Causal grouped-query self-attention.
//!
//! Shapes: B = batch, T = tokens, D = hidden width, H = heads, E = head width, R = rows.

use tch::Tensor;

use super::architecture::{Architecture, Decoder};
use super::key_values::{KeyValues, NewToken};
use super::linear::Linear;
use super::norm::RmsNorm;
use super::pass::Pass;
use super::rope::RopeTable;
use super::spec::Params;
use crate::config::LoraConfig;

/// Projections around libtorch's fused attention. Right padding needs no mask: no real position
/// attends to a later one.
#[derive(Debug)]
pub struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    /// Norms of queries and keys, head by head, where the family has them.
    head_norms: Option<(RmsNorm, RmsNorm)>,
    heads: i64,
    kv_heads: i64,
}

impl Attention {
    /// The layer called `name`, as in `model.layers.0.self_attn`.
    pub fn new(
        params: &Params<'_>,
        name: &str,
        architecture: &Architecture,
        decoder: &Decoder,
        lora: &LoraConfig,
    ) -> Self {
        let linear = |projection: &str| Linear::new(params, &format!("{name}.{projection}"), lora);
        let norm =
            |part: &str| RmsNorm::new(params, &format!("{name}.{part}"), architecture.norm_eps);
        Self {
            q: linear("q_proj"),
            k: linear("k_proj"),
            v: linear("v_proj"),
            o: linear("o_proj"),
            head_norms: decoder.qk_norm.then(|| (norm("q_norm"), norm("k_norm"))),
            heads: architecture.heads,
            kv_heads: architecture.kv_heads,
        }
    }

    /// `[B, T, D]` to `[B, T, D]`.
    pub fn forward(&self, x_btd: &Tensor, rope: &RopeTable, pass: &Pass<'_>) -> Tensor {
        let (q_bthe, k_bthe, v_bthe) = self.project(x_btd, pass);
        let mixed_btd = pass.each([&q_bthe, &k_bthe, &v_bthe], |_, heads, _| {
            let [q_bhte, k_bhte, v_bhte] = rotated(heads, rope);
            self.mix(&q_bhte, &k_bhte, &v_bhte)
        });
        self.o.forward(&mixed_btd, pass)
    }

    /// As [`Attention::forward`] of one client, and the keys and values that tokens to come attend to.
    pub fn prefill(
        &self,
        x_btd: &Tensor,
        rope: &RopeTable,
        pass: &Pass<'_>,
    ) -> (Tensor, KeyValues) {
        let (q_bthe, k_bthe, v_bthe) = self.project(x_btd, pass);
        let [q_bhte, k_bhte, v_bhte] = rotated([q_bthe, k_bthe, v_bthe], rope);
        let mixed_btd = self.mix(&q_bhte, &k_bhte, &v_bhte);
        let cache = KeyValues::of_prompts(&k_bhte, &v_bhte);
        (self.o.forward(&mixed_btd, pass), cache)
    }

    /// One new token a row `[R, 1, D]` of one client, which attends to the cache and itself and joins the cache.
    pub fn extend(
        &self,
        x_r1d: &Tensor,
        rope: &RopeTable,
        token: &NewToken,
        cache: &mut KeyValues,
        pass: &Pass<'_>,
    ) -> Tensor {
        let (q_r1he, k_r1he, v_r1he) = self.project(x_r1d, pass);
        let q_rh1e = rope.apply_at(&q_r1he.transpose(1, 2), &token.positions_r);
        let k_rh1e = rope.apply_at(&k_r1he.transpose(1, 2), &token.positions_r);
        cache.push(k_rh1e, v_r1he.transpose(1, 2));
        let (rows, _, _, width) = q_rh1e.size4().expect("heads have four dimensions");
        let group = self.heads / self.kv_heads;
        let q_rkge = q_rh1e.reshape([rows, self.kv_heads, group, width]);
        let mixed_r1d = cache.attend(&q_rkge, token).reshape([rows, 1, -1]);
        self.o.forward(&mixed_r1d, pass)
    }

    /// Queries, keys and values `[B, T, H, E]`, not yet rotated.
    fn project(&self, x_btd: &Tensor, pass: &Pass<'_>) -> (Tensor, Tensor, Tensor) {
        let (batch, length, _) = x_btd.size3().expect("frames have three dimensions");
        let split = |linear: &Linear, heads: i64, norm: Option<&RmsNorm>| {
            let heads_bthe = linear.forward(x_btd, pass).view([batch, length, heads, -1]);
            norm.map_or_else(|| heads_bthe.shallow_clone(), |norm| norm.forward(&heads_bthe))
        };
        let (q_norm, k_norm) = self.head_norms.as_ref().map(|(q, k)| (q, k)).unzip();
        let q_bthe = split(&self.q, self.heads, q_norm);
        let k_bthe = split(&self.k, self.kv_heads, k_norm);
        (q_bthe, k_bthe, split(&self.v, self.kv_heads, None))
    }

    /// Causal attention of a whole sequence, `[B, T, H * E]`.
    fn mix(&self, q_bhte: &Tensor, k_bhte: &Tensor, v_bhte: &Tensor) -> Tensor {
        let (batch, _, length, _) = q_bhte.size4().expect("heads have four dimensions");
        let mixed_bhte = Tensor::scaled_dot_product_attention(
            q_bhte,
            k_bhte,
            v_bhte,
            None::<&Tensor>,
            0.0,
            true,
            None,
            self.kv_heads < self.heads,
        );
        mixed_bhte.transpose(1, 2).reshape([batch, length, -1])
    }
}

/// Queries, keys and values `[B, T, H, E]` as `[B, H, T, E]`, the first two rotated.
fn rotated([q_bthe, k_bthe, v_bthe]: [Tensor; 3], rope: &RopeTable) -> [Tensor; 3] {
    let heads_first = |x: Tensor| x.transpose(1, 2);
    [rope.apply(&heads_first(q_bthe)), rope.apply(&heads_first(k_bthe)), heads_first(v_bthe)]
}
