//! The input of the first block: LayerNorm(word + position + token type + item position).
//!
//! Shapes: B = batch, T = positions, D = hidden width.

use tch::{Device, Kind, Tensor};

use super::norm::{LayerNorm, norm_specs};
use crate::data::TextRow;
use crate::model::architecture::{Architecture, Encoder};
use crate::model::spec::{Init, Params, TensorSpec};

const WORDS: &str = "embeddings.word_embeddings.weight";
const POSITIONS: &str = "embeddings.position_embeddings.weight";
/// Name of the token-type table.
pub const TOKEN_TYPE_TABLE: &str = "embeddings.token_type_embeddings.weight";
/// Name of RecFormer's own table.
pub const ITEM_POSITION_TABLE: &str = "embeddings.item_position_embeddings.weight";
const NORM: &str = "embeddings.LayerNorm";

/// A batch of texts, right-padded.
#[derive(Debug)]
pub struct EncoderInputs {
    /// Token ids, `[B, T]`.
    pub ids_bt: Tensor,
    /// Token types, `[B, T]`.
    pub token_types_bt: Tensor,
    /// Item positions, `[B, T]`; read by models that embed them.
    pub item_positions_bt: Tensor,
    /// Tokens of every row, `[B]` of i64; at least 1.
    pub lengths_b: Tensor,
}

impl EncoderInputs {
    /// Pads rows, none of them empty, to the longest. Padding is never seen, so its ids are 0.
    pub fn new(rows: &[TextRow], device: Device) -> Self {
        let lengths: Vec<i64> = rows.iter().map(|row| row.ids.len() as i64).collect();
        let width = lengths.iter().copied().max().unwrap_or_default();
        let padded = |column: fn(&TextRow) -> &Vec<i64>| {
            let mut values = Vec::with_capacity(rows.len() * width as usize);
            for (number, row) in rows.iter().enumerate() {
                values.extend(column(row));
                values.resize((number + 1) * width as usize, 0);
            }
            Tensor::from_slice(&values).view([rows.len() as i64, width]).to_device(device)
        };
        Self {
            ids_bt: padded(|row| &row.ids),
            token_types_bt: padded(|row| &row.token_types),
            item_positions_bt: padded(|row| &row.item_positions),
            lengths_b: Tensor::from_slice(&lengths).to_device(device),
        }
    }
}

impl EncoderInputs {
    /// Where every row's first token is, as indices into `B * T`, `[B]`.
    pub fn first_positions(&self) -> Tensor {
        let (rows, width) = self.ids_bt.size2().expect("rows of tokens");
        Tensor::arange(rows, (Kind::Int64, self.ids_bt.device())) * width
    }
}

/// The layer `embeddings`.
#[derive(Debug)]
pub struct Embeddings {
    words: Tensor,
    positions: Tensor,
    token_types: Tensor,
    item_positions: Option<Tensor>,
    norm: LayerNorm,
    first_position: i64,
}

impl Embeddings {
    /// The layer from its tensors.
    pub fn new(params: &Params<'_>, architecture: &Architecture, encoder: &Encoder) -> Self {
        Self {
            words: params.tensor(WORDS),
            positions: params.tensor(POSITIONS),
            token_types: params.tensor(TOKEN_TYPE_TABLE),
            item_positions: params.optional(ITEM_POSITION_TABLE),
            norm: LayerNorm::new(params, NORM, architecture.norm_eps),
            first_position: encoder.first_position,
        }
    }

    /// Number type and device of what comes out.
    pub fn options(&self) -> (Kind, Device) {
        (self.words.kind(), self.words.device())
    }

    /// A batch of at most [`Encoder::longest`] positions to `[B, T, D]`.
    pub fn forward(&self, inputs: &EncoderInputs) -> Tensor {
        let (length, device) = (inputs.ids_bt.size()[1], inputs.ids_bt.device());
        let rows_t = Tensor::arange(length, (Kind::Int64, device)) + self.first_position;
        let look_up =
            |table: &Tensor, ids: &Tensor| Tensor::embedding(table, ids, -1, false, false);
        let mut sum_btd = look_up(&self.words, &inputs.ids_bt)
            + look_up(&self.positions, &rows_t)
            + look_up(&self.token_types, &inputs.token_types_bt);
        if let Some(table) = &self.item_positions {
            sum_btd += look_up(table, &inputs.item_positions_bt);
        }
        // New tables beside a bf16 checkpoint are f32.
        self.norm.forward(&sum_btd.to_kind(self.words.kind()))
    }
}

impl Encoder {
    /// Positions of the longest text: RoBERTa's descendants keep the first rows for padding.
    pub fn longest(&self) -> i64 {
        self.positions - self.first_position
    }
}

/// Base tensors of the embeddings.
pub fn embedding_specs(architecture: &Architecture, encoder: &Encoder) -> Vec<TensorSpec> {
    let tables = [
        (WORDS, architecture.vocab),
        (POSITIONS, encoder.positions),
        (TOKEN_TYPE_TABLE, encoder.token_types),
        (ITEM_POSITION_TABLE, encoder.item_positions),
    ];
    let init = Init::Normal(architecture.init_std);
    let mut specs: Vec<TensorSpec> = tables
        .into_iter()
        .filter(|(_, rows)| *rows > 0)
        .map(|(name, rows)| TensorSpec::new(name, &[rows, architecture.hidden], init))
        .collect();
    specs.extend(norm_specs(NORM, architecture.hidden));
    specs
}
