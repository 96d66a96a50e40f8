//! Causal grouped-query self-attention.
//!
//! Shapes: B = batch, T = tokens, D = hidden width, H = heads, E = head width, C = cached columns.

use tch::{Kind, Tensor};

use super::architecture::{Architecture, Decoder};
use super::block::BlockInputs;
use super::linear::Linear;
use super::norm::RmsNorm;
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

/// Keys and values of the tokens so far, `[B, H, C, E]` with H the key-value heads.
#[derive(Debug)]
pub struct KeyValues {
    keys: Tensor,
    values: Tensor,
}

impl KeyValues {
    /// Every row goes on from the row that `parents_b` names; rows that nobody names are dropped.
    pub fn reorder(&mut self, parents_b: &Tensor) {
        self.keys = self.keys.index_select(0, parents_b);
        self.values = self.values.index_select(0, parents_b);
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> u64 {
        let bytes = |t: &Tensor| (t.numel() * t.kind().elt_size_in_bytes()) as u64;
        bytes(&self.keys) + bytes(&self.values)
    }
}

/// Where one new token of every row stands.
#[derive(Debug)]
pub struct NewToken {
    /// Its position in its own text, `[B]`.
    pub positions_b: Tensor,
    /// Which columns, its own included, each row attends to, `[B, 1, 1, C + 1]` of bool; `None` is all.
    pub visible: Option<Tensor>,
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
    pub fn forward(&self, x_btd: &Tensor, rope: &RopeTable, inputs: &BlockInputs<'_>) -> Tensor {
        self.prefill(x_btd, rope, inputs).0
    }

    /// As [`Attention::forward`], and the keys and values that tokens to come attend to.
    pub fn prefill(
        &self,
        x_btd: &Tensor,
        rope: &RopeTable,
        inputs: &BlockInputs<'_>,
    ) -> (Tensor, KeyValues) {
        let (q_bhte, k_bhte, v_bhte) = self.project(x_btd, inputs);
        let (q_bhte, keys) = (rope.apply(&q_bhte), rope.apply(&k_bhte));
        let cache = KeyValues { keys, values: v_bhte };
        (self.attend(&q_bhte, &cache, None, true, inputs), cache)
    }

    /// One new token a row `[B, 1, D]`, which attends to the cache and itself and joins the cache.
    pub fn extend(
        &self,
        x_btd: &Tensor,
        rope: &RopeTable,
        token: &NewToken,
        cache: &mut KeyValues,
    ) -> Tensor {
        let inputs = BlockInputs::default();
        let (q_bhte, k_bhte, v_bhte) = self.project(x_btd, &inputs);
        let q_bhte = rope.apply_at(&q_bhte, &token.positions_b);
        let k_bhte = rope.apply_at(&k_bhte, &token.positions_b);
        cache.keys = Tensor::cat(&[&cache.keys, &k_bhte], 2);
        cache.values = Tensor::cat(&[&cache.values, &v_bhte], 2);
        self.attend(&q_bhte, cache, token.visible.as_ref(), false, &inputs)
    }

    /// Queries, keys and values `[B, H, T, E]`, not yet rotated.
    fn project(&self, x_btd: &Tensor, inputs: &BlockInputs<'_>) -> (Tensor, Tensor, Tensor) {
        let (batch, length, _) = x_btd.size3().expect("frames have three dimensions");
        let split = |linear: &Linear, heads: i64, norm: Option<&RmsNorm>| {
            let heads_bthe = linear.forward(x_btd, inputs.masks).view([batch, length, heads, -1]);
            norm.map_or_else(|| heads_bthe.shallow_clone(), |norm| norm.forward(&heads_bthe))
                .transpose(1, 2)
        };
        let (q_norm, k_norm) = self.head_norms.as_ref().map(|(q, k)| (q, k)).unzip();
        let q_bhte = split(&self.q, self.heads, q_norm);
        let k_bhte = split(&self.k, self.kv_heads, k_norm);
        (q_bhte, k_bhte, split(&self.v, self.kv_heads, None))
    }

    fn attend(
        &self,
        q_bhte: &Tensor,
        cache: &KeyValues,
        visible: Option<&Tensor>,
        causal: bool,
        inputs: &BlockInputs<'_>,
    ) -> Tensor {
        let (batch, _, length, _) = q_bhte.size4().expect("heads have four dimensions");
        debug_assert!(visible.is_none_or(|mask| mask.kind() == Kind::Bool));
        let mixed_bhte = Tensor::scaled_dot_product_attention(
            q_bhte,
            &cache.keys,
            &cache.values,
            visible,
            0.0,
            causal,
            None,
            self.kv_heads < self.heads,
        );
        let mixed_btd = mixed_bhte.transpose(1, 2).reshape([batch, length, -1]);
        self.o.forward(&mixed_btd, inputs.masks)
    }
}
