//! Backbone `recformer`: the text of a history in, the state of its first token against the item
//! table out (arXiv 2305.13731).
//!
//! The candidates are the states of the items' own texts, encoded by the same network before they
//! are needed and frozen then: whoever trains or ranks brings them.
//! Shapes: D = hidden width.

use tch::Tensor;

use super::architecture::{Architecture, Encoder};
use super::backbone::{Backbone, EndTensors, Ends};
use super::encoder::{Embeddings, embedding_specs};
use super::spec::{Params, TensorSpec};
use crate::data::TOKEN_TYPES;

/// Ends of an encoder that reads items as text.
#[derive(Clone, Debug)]
pub struct RecFormer {
    architecture: Architecture,
    /// With the tables that item text needs.
    encoder: Encoder,
    /// Tensors that the architecture has as they are.
    given: Vec<TensorSpec>,
}

impl RecFormer {
    /// Ends of a network for texts of at most `max_items` items. An encoder that was pretrained on
    /// other text, such as a plain Longformer, gets new token types and item positions.
    pub fn new(architecture: &Architecture, encoder: &Encoder, max_items: i64) -> Self {
        let given = embedding_specs(architecture, encoder);
        let encoder = Encoder {
            token_types: encoder.token_types.max(TOKEN_TYPES),
            item_positions: encoder.item_positions.max(max_items + 1),
            ..encoder.clone()
        };
        Self { architecture: architecture.clone(), encoder, given }
    }
}

impl Backbone for RecFormer {
    fn front(&self) -> EndTensors {
        let (base, adapters) = embedding_specs(&self.architecture, &self.encoder)
            .into_iter()
            .partition(|spec| self.given.contains(spec));
        EndTensors { base, adapters }
    }

    fn back(&self) -> EndTensors {
        EndTensors::default()
    }

    fn share(&self) -> Box<dyn Backbone> {
        Box::new(self.clone())
    }

    fn open(&self, params: &Params<'_>) -> Ends {
        let embeddings = Embeddings::new(params, &self.architecture, &self.encoder);
        let none_vd = Tensor::empty([0, self.architecture.hidden], embeddings.options());
        Ends::text(embeddings, none_vd)
    }
}
