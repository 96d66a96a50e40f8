//! The network: one layer a file, tensors named as in Hugging Face checkpoints.

pub mod architecture;
pub mod attention;
pub mod backbone;
pub mod block;
pub mod causal_lm;
pub mod cut;
pub mod decoder;
pub mod encoder;
pub mod item_tokens;
pub mod key_values;
pub mod layout;
pub mod linear;
pub mod mask;
pub mod mlp;
pub mod named;
pub mod norm;
pub mod packed;
pub mod pass;
pub mod pretrained;
pub mod recformer;
pub mod rope;
pub mod slice;
pub mod spec;
pub mod start;
