//! A trained base and its folder.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tokenizers::Tokenizer;

use super::PretrainError;
use crate::config::{BackboneKind, PretrainConfig};
use crate::model::architecture::Architecture;
use crate::model::pretrained::{PretrainedError, SpecialTokens, write_checkpoint, write_tokenizer};
use crate::model::slice::Slice;

/// The file that says what a folder was made from.
const RECORD: &str = "fellrec-pretrain.json";

/// What a base was made from, and how well it came out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BaseRecord {
    /// Digest of all it depends on.
    pub key: String,
    /// Version that made it.
    pub product: String,
    /// Seed of every draw.
    pub seed: u64,
    /// What it is for.
    pub backbone: BackboneKind,
    /// How it was trained.
    pub pretrain: PretrainConfig,
    /// Trained numbers.
    pub parameters: u64,
    /// Tokens of its tokenizer.
    pub tokens: u64,
    /// Items that were never an answer in training.
    pub held_out_items: u64,
    /// Mean loss on them before and after, in nats: a token of an answer, or a choice among a batch.
    pub held_out_loss: [f64; 2],
}

impl BaseRecord {
    /// The record of a folder; `None` where there is none.
    ///
    /// # Errors
    /// A record that cannot be read.
    pub fn read(folder: &Path) -> Result<Option<Self>, PretrainedError> {
        let file = folder.join(RECORD);
        let text = match fs::read_to_string(&file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(|error| PretrainedError::io(&file, error))?,
        };
        let record = serde_json::from_str(&text);
        record.map(Some).map_err(|error| PretrainedError::io(&file, error.into()))
    }
}

/// A base that was trained.
pub struct Base {
    architecture: Architecture,
    tokenizer: Tokenizer,
    special: SpecialTokens,
    tensors: Slice,
    record: BaseRecord,
}

impl Base {
    pub(super) fn new(
        architecture: Architecture,
        tokenizer: Tokenizer,
        special: SpecialTokens,
        tensors: Slice,
        record: BaseRecord,
    ) -> Self {
        Self { architecture, tokenizer, special, tensors, record }
    }

    /// What it was made from.
    pub fn record(&self) -> &BaseRecord {
        &self.record
    }

    /// Writes it into `folder`, which must be there, as Hugging Face's libraries read it.
    ///
    /// # Errors
    /// The disk's.
    pub fn write(&self, folder: &Path) -> Result<(), PretrainError> {
        write_checkpoint(folder, &self.architecture, &self.special, &self.tensors)?;
        write_tokenizer(folder, &self.tokenizer, &self.special)?;
        let record = serde_json::to_string_pretty(&self.record).expect("numbers and text");
        let file = folder.join(RECORD);
        fs::write(&file, record + "\n").map_err(|error| PretrainedError::io(&file, error).into())
    }
}
