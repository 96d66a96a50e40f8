//! Backbone `item-tokens`: an item of the history enters as one vector made from its title.
//!
//! In the manner of E4SRec (arXiv 2312.02443) and CoLLM (arXiv 2310.19488). The same vectors are
//! the candidates, so both ends share them; embedding, projector and scores stay on the client.
//! Shapes: V = items, W = token vocabulary, D = hidden width.

use tch::{Device, Kind, Tensor};

use super::architecture::Architecture;
use super::backbone::{Backbone, EndTensors, Ends};
use super::norm::RmsNorm;
use super::spec::{Init, Params, TensorSpec};

const EMBEDDING: &str = "model.embed_tokens.weight";
/// Far below the mean square of fresh embeddings (0.02^2 over a few tokens).
const MEAN_EPS: f64 = 1e-12;
const NORM: &str = "item_projector.norm";
/// Root mean square of an item vector at the start: scores of a normalised hidden state then have a
/// standard deviation of about 1 at widths around 128. Source: ours.
const VECTOR_SCALE: f64 = 0.1;
const PROJECTOR: [&str; 2] = ["item_projector.0", "item_projector.2"];

/// Title tokens of the public catalogue.
#[derive(Debug)]
pub struct ItemTokens {
    vocab: i64,
    hidden: i64,
    init_std: f64,
    norm_eps: f64,
    /// Token ids of all titles, one after the other.
    tokens: Tensor,
    /// Where each title starts, `[V]`.
    offsets: Tensor,
}

impl ItemTokens {
    /// A backbone over titles given as token ids below the vocabulary; empty titles get token 0.
    pub fn new(architecture: &Architecture, titles: &[Vec<u32>], device: Device) -> Self {
        let (mut tokens, mut offsets) = (Vec::new(), Vec::with_capacity(titles.len()));
        for title in titles {
            offsets.push(tokens.len() as i64);
            tokens.extend(title.iter().map(|token| i64::from(*token)));
            if title.is_empty() {
                tokens.push(0);
            }
        }
        Self {
            vocab: architecture.vocab,
            hidden: architecture.hidden,
            init_std: architecture.init_std,
            norm_eps: architecture.norm_eps,
            tokens: Tensor::from_slice(&tokens).to_device(device),
            offsets: Tensor::from_slice(&offsets).to_device(device),
        }
    }
}

impl Backbone for ItemTokens {
    fn front(&self) -> EndTensors {
        let embedding = Init::Normal(self.init_std);
        let bound = Init::Uniform(1.0 / (self.hidden as f64).sqrt());
        let projector = PROJECTOR.iter().flat_map(|name| {
            [
                TensorSpec::new(format!("{name}.weight"), &[self.hidden, self.hidden], bound),
                TensorSpec::new(format!("{name}.bias"), &[self.hidden], Init::Zeros),
            ]
        });
        let scale =
            TensorSpec::new(format!("{NORM}.weight"), &[self.hidden], Init::Constant(VECTOR_SCALE));
        EndTensors {
            base: vec![TensorSpec::new(EMBEDDING, &[self.vocab, self.hidden], embedding)],
            adapters: projector.chain([scale]).collect(),
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
        // Normalised before and after: how fast vectors turn must not depend on how large they are.
        let mean_vd =
            mean_vd.to_kind(Kind::Float).rms_norm::<&Tensor>([self.hidden], None, MEAN_EPS);
        let hidden_vd = linear(&mean_vd, PROJECTOR[0]).silu();
        let projected_vd = linear(&hidden_vd, PROJECTOR[1]) + mean_vd;
        let table_vd = RmsNorm::new(params, NORM, self.norm_eps).forward(&projected_vd);
        Ends::shared(table_vd.to_kind(embedding_wd.kind()))
    }
}
