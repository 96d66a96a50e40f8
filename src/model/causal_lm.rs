//! Backbone `causal-lm`: token embedding in, language-model head out.
//!
//! Shapes: V = vocabulary, D = hidden width.

use super::architecture::{Architecture, BlockKind};
use super::backbone::{Backbone, EndTensors, Ends};
use super::spec::{Init, Params, TensorSpec};

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// A language model's ends, with a head of its own or tied to the embedding.
#[derive(Clone, Debug)]
pub struct CausalLm {
    vocab: i64,
    hidden: i64,
    init_std: f64,
    tied: bool,
}

impl CausalLm {
    /// The ends of a causal network.
    pub fn new(architecture: &Architecture) -> Self {
        let &Architecture { vocab, hidden, init_std, .. } = architecture;
        let tied = matches!(&architecture.blocks, BlockKind::Decoder(decoder) if decoder.tied);
        Self { vocab, hidden, init_std, tied }
    }

    fn table(&self, name: &str) -> EndTensors {
        let spec = TensorSpec::new(name, &[self.vocab, self.hidden], Init::Normal(self.init_std));
        EndTensors { base: vec![spec], adapters: Vec::new() }
    }
}

impl Backbone for CausalLm {
    fn front(&self) -> EndTensors {
        self.table(EMBEDDING)
    }

    fn back(&self) -> EndTensors {
        if self.tied { EndTensors::default() } else { self.table(HEAD) }
    }

    fn share(&self) -> Box<dyn Backbone> {
        Box::new(self.clone())
    }

    fn open(&self, params: &Params<'_>) -> Ends {
        let embedding_vd = params.tensor(EMBEDDING);
        // A tied embedding that trains is a leaf: both ends add to its gradient as it is.
        let head_vd = if self.tied { embedding_vd.shallow_clone() } else { params.tensor(HEAD) };
        Ends::separate(embedding_vd, head_vd)
    }
}
