//! Why no run can start.

use std::path::PathBuf;

use thiserror::Error;

use crate::config::{BackboneKind, ConfigError, DeviceName};
use crate::data::{DataError, TokenError};
use crate::model::pretrained::{Family, PretrainedError};

/// Why no run can start.
#[derive(Debug, Error)]
pub enum BlueprintError {
    /// The data could not be read, split or put on clients.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The catalogue could not be tokenized.
    #[error(transparent)]
    Tokens(#[from] TokenError),
    /// The config does not fit the data.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The checkpoint is none, or none of its architecture.
    #[error("model.checkpoint")]
    Pretrained(#[source] Box<PretrainedError>),
    /// The adapter is none, or none of its architecture.
    #[error("model.adapter")]
    Adapter(#[source] Box<PretrainedError>),
    /// The adapter is of another shape than the run's.
    #[error("{key}: got {got}, expected {expected}, which model.adapter has")]
    AdapterShape {
        /// Key of the section `lora`.
        key: &'static str,
        /// Its value.
        got: String,
        /// The adapter's.
        expected: String,
    },
    /// The checkpoint brings no tokenizer and none is configured.
    #[error("{folder} (model.checkpoint) holds no tokenizer.json; set model.tokenizer")]
    NoTokenizer {
        /// The folder.
        folder: PathBuf,
    },
    /// Nobody says which token ends a text.
    #[error("neither model.checkpoint nor the tokenizer ({expected}) says which token ends a text")]
    NoEnd {
        /// The token that would have done.
        expected: &'static str,
    },
    /// The tokenizer belongs to another model.
    #[error("the tokenizer (model.tokenizer) knows {known} tokens, model.checkpoint has {vocab}")]
    Vocabulary {
        /// Tokens it knows.
        known: i64,
        /// Rows of the checkpoint's embedding.
        vocab: i64,
    },
    /// The checkpoint is of a model that the backbone cannot use.
    #[error("model.backbone {backbone} needs {expected}, model.checkpoint is {family}")]
    Kind {
        /// The backbone.
        backbone: BackboneKind,
        /// What the checkpoint is.
        family: Family,
        /// What it would have to be.
        expected: &'static str,
    },
    /// Texts may become longer than the checkpoint can read.
    #[error("{key} is {got}, model.checkpoint has room for {room}")]
    Room {
        /// Key that bounds the texts.
        key: &'static str,
        /// Its value.
        got: i64,
        /// What the checkpoint has embeddings for.
        room: i64,
    },
    /// Encoding the item table would send more than is allowed.
    #[error(
        "encoding the table of {items} items would send {needed_mib} MiB over the cut, \
         recformer.table_traffic_mib allows {allowed_mib}"
    )]
    TableTraffic {
        /// Items of the catalogue.
        items: u64,
        /// What one table needs, both ways together, rounded up.
        needed_mib: u64,
        /// The configured bound.
        allowed_mib: u64,
    },
    /// A configured device is not there.
    #[error("{key} is {device}, but this process sees {found} CUDA devices; run `fellrec doctor`")]
    NoDevice {
        /// Key that names the device.
        key: &'static str,
        /// Device asked for.
        device: DeviceName,
        /// GPUs that libtorch sees.
        found: i64,
    },
}

impl From<PretrainedError> for BlueprintError {
    fn from(error: PretrainedError) -> Self {
        Self::Pretrained(Box::new(error))
    }
}
