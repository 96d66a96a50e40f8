//! The bidirectional network: BERT, Longformer, RecFormer (arXiv 1810.04805, 2004.05150, 2305.13731).
//!
//! Tensors are named as in `BertModel` and `LongformerModel`, without a prefix. Of the dropouts of the
//! originals only the one on an adapter's input exists here: the others are off in their evaluation
//! mode, which is what fixtures compare with, and fine-tuning on small data goes without them.

mod attention;
mod block;
mod embeddings;
mod norm;
mod padding;
#[cfg(test)]
mod tests;

pub use attention::Attention;
pub use block::{EncoderBlock, encoder_lora_specs, encoder_specs};
pub use embeddings::{
    Embeddings, EncoderInputs, ITEM_POSITION_TABLE, TOKEN_TYPE_TABLE, embedding_specs,
};
pub use norm::LayerNorm;
pub use padding::Padding;
