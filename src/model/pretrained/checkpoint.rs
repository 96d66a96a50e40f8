//! A folder with a pretrained model: what it is, and its tensors one by one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tch::{Device, Kind, Tensor};

use super::config_json::{Family, architecture, family};
use super::error::PretrainedError;
use super::json::JsonObject;
use super::weights::Weights;
use super::{CONFIG, GENERATION, files, names};
use crate::model::architecture::{Architecture, BlockKind};
use crate::model::encoder::ITEM_POSITION_TABLE;
use crate::model::slice::Digest;
use crate::model::spec::TensorSpec;

const TOKENIZER: &str = "tokenizer.json";
/// Starts every digest, so that another way of hashing can never give an equal one.
const DIGEST_VERSION: &[u8] = b"fellrec checkpoint 1\n";

/// Ids with a meaning of their own. `generation_config.json` wins over `config.json`, key by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Starts a text.
    pub bos: Option<i64>,
    /// Any of these ends one; empty where the folder names none.
    pub eos: Vec<i64>,
    /// Fills rows up.
    pub pad: Option<i64>,
}

/// A folder written by transformers 4 or 5, mapped into memory.
///
/// Several threads may read from one: a tensor that is asked for is copied out of the map, and the
/// pages of the others are never touched.
#[derive(Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    family: Family,
    architecture: Architecture,
    special_tokens: SpecialTokens,
    weights: Weights,
}

impl Checkpoint {
    /// Reads the configuration and the headers of the weights, no numbers.
    ///
    /// # Errors
    /// Everything that is wrong with either, or not supported, by file and key or tensor.
    pub fn open(folder: &Path) -> Result<Self, PretrainedError> {
        let missing =
            || PretrainedError::MissingFile { folder: folder.to_owned(), expected: CONFIG };
        let config = JsonObject::read(folder, CONFIG)?.ok_or_else(missing)?;
        let family = family(&config)?;
        let mut architecture = architecture(&config, family)?;
        let special_tokens = special_tokens(folder, &config, architecture.vocab)?;
        let files = files::open(folder)?;
        let home = files::home(&files, folder);
        let tied = matches!(&architecture.blocks, BlockKind::Decoder(decoder) if decoder.tied);
        let weights = Weights::new(files, home, |stored| names::ours(family, tied, stored))?;
        if let BlockKind::Encoder(encoder) = &mut architecture.blocks {
            encoder.item_positions = item_positions(family, &weights, architecture.hidden)?;
        }
        Ok(Self { folder: folder.to_owned(), family, architecture, special_tokens, weights })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Which family of models it belongs to.
    pub fn family(&self) -> Family {
        self.family
    }

    /// What the network is made of.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// The tokenizer's file, if there is one.
    pub fn tokenizer(&self) -> Option<PathBuf> {
        Some(self.folder.join(TOKENIZER)).filter(|file| file.is_file())
    }

    /// Ids that start, end and fill up texts.
    pub fn special_tokens(&self) -> SpecialTokens {
        self.special_tokens.clone()
    }

    /// Compares the stored tensors with `specs`, which must be ALL that the model has. Frequencies,
    /// position ids, poolers, the heads of encoders and a stored copy of a tied head are no model's.
    ///
    /// # Errors
    /// [`PretrainedError::Tensors`] with everything missing, extra, or of another shape or type.
    pub fn check(&self, specs: &[TensorSpec]) -> Result<(), PretrainedError> {
        self.weights.check(specs)
    }

    /// Reads one tensor and no other, converted to `kind` on `device`, and remembers its name.
    ///
    /// # Errors
    /// [`PretrainedError::Tensors`] if it is missing or of another shape; a file that has been cut or
    /// has grown since it was opened; libtorch's.
    pub fn tensor(
        &self,
        spec: &TensorSpec,
        kind: Kind,
        device: Device,
    ) -> Result<Tensor, PretrainedError> {
        self.weights.tensor(spec, kind, device)
    }

    /// Number type that a tensor is stored in; `None` if there is no such tensor.
    pub fn stored_kind(&self, name: &str) -> Option<Kind> {
        self.weights.kind(name)
    }

    /// Number types of the stored tensors, such as `bf16`, and how many numbers each has.
    pub fn dtypes(&self) -> BTreeMap<String, u64> {
        self.weights.dtypes()
    }

    /// Names of the tensors that [`Checkpoint::tensor`] has read so far.
    pub fn tensors_read(&self) -> BTreeSet<String> {
        self.weights.read()
    }

    /// SHA-256 over the architecture and the model's tensors, however they are spread over files.
    ///
    /// Reads all numbers once, of all places. These reads hand out nothing, and
    /// [`Checkpoint::tensors_read`] does not count them.
    ///
    /// # Errors
    /// A file that has been cut or has grown since it was opened.
    pub fn digest(&self) -> Result<Digest, PretrainedError> {
        let mut hasher = Sha256::new_with_prefix(DIGEST_VERSION);
        let architecture = format!("{} {:?}", self.family, self.architecture);
        hasher.update((architecture.len() as u64).to_le_bytes());
        hasher.update(architecture);
        self.weights.hash_into(&mut hasher)?;
        Ok(hasher.into())
    }
}

/// Rows of RecFormer's own table, 0 without one.
fn item_positions(family: Family, weights: &Weights, hidden: i64) -> Result<i64, PretrainedError> {
    match weights.shape(ITEM_POSITION_TABLE) {
        Some([rows, width]) if family == Family::Longformer && *width == hidden && *rows > 0 => {
            Ok(*rows)
        }
        Some(got) if family == Family::Longformer => {
            let rows = got.first().copied().unwrap_or_default().max(1);
            Err(weights.misshapen(ITEM_POSITION_TABLE, &[rows, hidden]))
        }
        // In any other family it is an extra tensor, which `check` refuses.
        _ => Ok(0),
    }
}

fn special_tokens(
    folder: &Path,
    config: &JsonObject,
    vocab: i64,
) -> Result<SpecialTokens, PretrainedError> {
    let mut tokens = SpecialTokens::default();
    for source in [Some(config), JsonObject::read(folder, GENERATION)?.as_ref()] {
        let Some(source) = source else { continue };
        tokens.bos = source.token("bos_token_id", vocab)?.or(tokens.bos);
        tokens.pad = source.token("pad_token_id", vocab)?.or(tokens.pad);
        let eos = source.tokens("eos_token_id", vocab)?;
        if !eos.is_empty() {
            tokens.eos = eos;
        }
    }
    Ok(tokens)
}
