//! Backbone `item-tokens`: an item of the history enters as one vector made from its title.
//!
//! In the manner of E4SRec (arXiv 2312.02443) and CoLLM (arXiv 2310.19488). The same vectors are
//! the candidates, so both ends share them; embedding, projector and scores stay on the client.
//! Shapes: V = items, W = token vocabulary, D = hidden width.

use tch::{Device, Kind, Tensor};

use super::backbone::{Backbone, EndTensors, Ends};
use super::spec::{Init, Params, TensorSpec};
use crate::config::ModelConfig;

const EMBEDDING: &str = "model.embed_tokens.weight";
/// Standard deviation of token embeddings that no checkpoint brings: that of torch.nn.Embedding. A mean
/// of title tokens has to be large enough for the projector to learn from; at Llama's 0.02, the model
/// learns several times more slowly (measured on MovieLens-1M).
const TOKEN_STD: f64 = 1.0;
const PROJECTOR: [&str; 2] = ["item_projector.0", "item_projector.2"];

/// Title tokens of the public catalogue.
#[derive(Debug)]
pub struct ItemTokens {
    vocab: i64,
    hidden: i64,
    /// Token ids of all titles, one after the other.
    tokens: Tensor,
    /// Where each title starts, `[V]`.
    offsets: Tensor,
}

impl ItemTokens {
    /// A backbone over titles given as token ids below `vocab`; empty titles get token 0.
    pub fn new(model: &ModelConfig, vocab: i64, titles: &[Vec<u32>], device: Device) -> Self {
        let (mut tokens, mut offsets) = (Vec::new(), Vec::with_capacity(titles.len()));
        for title in titles {
            offsets.push(tokens.len() as i64);
            tokens.extend(title.iter().map(|token| i64::from(*token)));
            if title.is_empty() {
                tokens.push(0);
            }
        }
        Self {
            vocab,
            hidden: model.hidden,
            tokens: Tensor::from_slice(&tokens).to_device(device),
            offsets: Tensor::from_slice(&offsets).to_device(device),
        }
    }
}

impl Backbone for ItemTokens {
    fn front(&self) -> EndTensors {
        let embedding = Init::Normal(TOKEN_STD);
        let bound = Init::Uniform(1.0 / (self.hidden as f64).sqrt());
        let projector = PROJECTOR.iter().flat_map(|name| {
            [
                TensorSpec::new(format!("{name}.weight"), &[self.hidden, self.hidden], bound),
                TensorSpec::new(format!("{name}.bias"), &[self.hidden], Init::Zeros),
            ]
        });
        EndTensors {
            base: vec![TensorSpec::new(EMBEDDING, &[self.vocab, self.hidden], embedding)],
            adapters: projector.collect(),
        }
    }

    fn back(&self) -> EndTensors {
        EndTensors::default()
    }

    fn share(&self) -> Box<dyn Backbone> {
        Box::new(Self {
            tokens: self.tokens.shallow_clone(),
            offsets: self.offsets.shallow_clone(),
            ..*self
        })
    }

    fn open(&self, params: &Params<'_>) -> Ends {
        let embedding_wd = params.tensor(EMBEDDING);
        let (mean_vd, ..) = Tensor::embedding_bag::<&Tensor>(
            &embedding_wd,
            &self.tokens,
            &self.offsets,
            false,
            1,
            false,
            None,
            false,
        );
        let linear = |x: &Tensor, name: &str| {
            let weight = params.tensor(&format!("{name}.weight"));
            x.linear(&weight, Some(params.tensor(&format!("{name}.bias"))))
        };
        let mean_vd = mean_vd.to_kind(Kind::Float);
        let hidden_vd = linear(&mean_vd, PROJECTOR[0]).silu();
        let table_vd = linear(&hidden_vd, PROJECTOR[1]);
        Ends::shared(table_vd.to_kind(embedding_wd.kind()))
    }
}
