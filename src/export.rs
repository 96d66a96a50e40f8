//! What a client trained, as a folder that Hugging Face's libraries load: an adapter, or whole weights.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tch::{Device, Kind, Tensor};
use thiserror::Error;

use crate::blueprint::Blueprint;
use crate::config::Trainable;
use crate::model::architecture::BlockKind;
use crate::model::encoder::{ITEM_POSITION_TABLE, TOKEN_TYPE_TABLE};
use crate::model::layout::model_specs;
use crate::model::linear::{lora_a, lora_b};
use crate::model::pretrained::{
    CONFIG, Checkpoint, PretrainedError, SpecialTokens, write_adapter, write_checkpoint,
    write_tokenizer,
};
use crate::model::slice::{NamedTensor, Slice, SliceFileError};
use crate::model::spec::TensorSpec;

/// Trained tensors that no model of transformers has, such as the projector of `item-tokens`.
pub const EXTRA: &str = "fellrec_extra.safetensors";
/// The base beside an adapter, where it was drawn and nobody else has it.
pub const BASE: &str = "base";
/// What a checkpoint has beside its weights and its `config.json`; copied as it is.
const COMPANIONS: [&str; 9] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
];

/// Why nothing was exported.
#[derive(Debug, Error)]
pub enum ExportError {
    /// An adapter of a model that trained as a whole.
    #[error("--format peft: model.trainable is \"full\", there is no adapter; use --format merged")]
    NoAdapter,
    /// PEFT's names for an encoder's layers are others.
    #[error(
        "--format peft: adapters of causal models only, this one is an encoder; use --format merged"
    )]
    Encoder,
    /// Weights could not be read or written.
    #[error(transparent)]
    Pretrained(Box<PretrainedError>),
    /// Extra tensors could not be written.
    #[error(transparent)]
    Extra(#[from] SliceFileError),
    /// A companion file could not be copied.
    #[error("failed to copy {path}")]
    Copy {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl From<PretrainedError> for ExportError {
    fn from(error: PretrainedError) -> Self {
        Self::Pretrained(Box::new(error))
    }
}

/// What came of it, beside the folder.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Names of the tensors in [`EXTRA`].
    pub extra: Vec<String>,
    /// Whether the base lies beside the adapter.
    pub base: bool,
}

/// Writes the adapter in `trained`, which are the tensors of all places of one client, into `folder`.
/// `home` is where the folder will be: a drawn base is named by its path.
///
/// # Errors
/// See [`ExportError`].
pub fn adapter(
    blueprint: &Blueprint,
    trained: &Slice,
    folder: &Path,
    home: &Path,
) -> Result<Exported, ExportError> {
    if blueprint.layout.mode == Trainable::Full {
        return Err(ExportError::NoAdapter);
    }
    if let BlockKind::Encoder(_) = blueprint.layout.architecture.blocks {
        return Err(ExportError::Encoder);
    }
    let (lora, extra): (Vec<&NamedTensor>, Vec<&NamedTensor>) =
        trained.tensors.iter().partition(|named| is_lora(&named.name));
    let base = match blueprint.start.checkpoint() {
        Some(checkpoint) => checkpoint.folder().to_owned(),
        None => home.join(BASE),
    };
    write_adapter(folder, &base.display().to_string(), &blueprint.layout.lora, lora)?;
    let drawn = blueprint.start.checkpoint().is_none();
    if drawn {
        let path = folder.join(BASE);
        fs::create_dir(&path).map_err(|source| ExportError::Copy { path: path.clone(), source })?;
        write_model(blueprint, &Slice::default(), &path)?;
    }
    Ok(Exported { extra: write_extra(&extra, folder)?, base: drawn })
}

/// Writes the whole model with what `trained` says into `folder`, which must be there: trained weights as
/// they are, adapters added to theirs, W + (alpha / r) B A in f32; all in the number type of the base.
///
/// # Errors
/// See [`ExportError`].
pub fn merged(
    blueprint: &Blueprint,
    trained: &Slice,
    folder: &Path,
) -> Result<Exported, ExportError> {
    let names = write_model(blueprint, trained, folder)?;
    let beside = |named: &&NamedTensor| !is_lora(&named.name) && !names.contains(&named.name);
    let extra: Vec<&NamedTensor> = trained.tensors.iter().filter(beside).collect();
    Ok(Exported { extra: write_extra(&extra, folder)?, base: false })
}

/// Names of the model's tensors.
fn write_model(
    blueprint: &Blueprint,
    trained: &Slice,
    folder: &Path,
) -> Result<Vec<String>, ExportError> {
    let mut architecture = blueprint.layout.architecture.clone();
    if let BlockKind::Encoder(encoder) = &mut architecture.blocks {
        // What reads item text has tables that the encoder it started from may lack.
        let rows = |name: &str, own: i64| trained.get(name).map_or(own, |table| table.size()[0]);
        encoder.token_types = rows(TOKEN_TYPE_TABLE, encoder.token_types);
        encoder.item_positions = rows(ITEM_POSITION_TABLE, encoder.item_positions);
    }
    let specs = model_specs(&architecture);
    let tensors = specs
        .iter()
        .map(|spec| Ok(NamedTensor::new(spec.name.as_str(), weight(blueprint, trained, spec)?)))
        .collect::<Result<_, PretrainedError>>()?;
    let tensors = Slice::new(tensors);
    match blueprint.start.checkpoint() {
        Some(checkpoint) => {
            write_checkpoint(folder, &architecture, &checkpoint.special_tokens(), &tensors)?;
            copy_companions(checkpoint, folder)?;
            // Its own says more than ours, unless the model has grown tables.
            if *checkpoint.architecture() == architecture {
                copy(checkpoint, CONFIG, folder)?;
            }
        }
        None => {
            let special = drawn_special_tokens(blueprint);
            write_checkpoint(folder, &architecture, &special, &tensors)?;
            if let Some(tokenizer) = blueprint.tokenizer() {
                write_tokenizer(folder, tokenizer, &special)?;
            }
        }
    }
    Ok(specs.into_iter().map(|spec| spec.name).collect())
}

/// A tensor of the model as the client has it.
fn weight(
    blueprint: &Blueprint,
    trained: &Slice,
    spec: &TensorSpec,
) -> Result<Tensor, PretrainedError> {
    let start = &blueprint.start;
    let kind = match start.checkpoint() {
        Some(checkpoint) => checkpoint.stored_kind(&spec.name).unwrap_or(Kind::Float),
        None => blueprint.kind(),
    };
    if let Some(whole) = trained.get(&spec.name) {
        return Ok(whole.to_kind(kind));
    }
    let module = spec.name.strip_suffix(".weight").unwrap_or(&spec.name);
    let matrices = (trained.get(&lora_a(module)), trained.get(&lora_b(module)));
    let (Some(a_rd), Some(b_or)) = matrices else {
        return start.base(spec, kind, Device::Cpu);
    };
    let lora = &blueprint.layout.lora;
    // The base as it is stored, its change in f32.
    let base = start.base(spec, kind, Device::Cpu)?.to_kind(Kind::Float);
    let change = b_or.to_kind(Kind::Float).matmul(&a_rd.to_kind(Kind::Float));
    Ok((base + change * (lora.alpha / lora.rank as f64)).to_kind(kind))
}

/// Whether a tensor is one of the two matrices of an adapter.
fn is_lora(name: &str) -> bool {
    name.ends_with(&lora_a("")) || name.ends_with(&lora_b(""))
}

fn write_extra(extra: &[&NamedTensor], folder: &Path) -> Result<Vec<String>, ExportError> {
    let share =
        |named: &&NamedTensor| NamedTensor::new(named.name.as_str(), named.tensor.shallow_clone());
    if !extra.is_empty() {
        let slice = Slice::new(extra.iter().map(share).collect());
        slice.write(&folder.join(EXTRA), &BTreeMap::new())?;
    }
    Ok(extra.iter().map(|named| named.name.clone()).collect())
}

/// Ids that our own tokenizers give a meaning.
fn drawn_special_tokens(blueprint: &Blueprint) -> SpecialTokens {
    let id = |token| blueprint.tokenizer()?.token_to_id(token).map(i64::from);
    let encoder = matches!(blueprint.layout.architecture.blocks, BlockKind::Encoder(_));
    SpecialTokens {
        bos: id("<s>"),
        eos: blueprint.prompts().map(|prompts| i64::from(prompts.end())).into_iter().collect(),
        pad: encoder.then_some(0),
    }
}

fn copy_companions(checkpoint: &Checkpoint, folder: &Path) -> Result<(), ExportError> {
    COMPANIONS.iter().try_for_each(|name| copy(checkpoint, name, folder))
}

/// Copies a file of the checkpoint, if it has it.
fn copy(checkpoint: &Checkpoint, name: &str, folder: &Path) -> Result<(), ExportError> {
    let path = checkpoint.folder().join(name);
    if !path.is_file() {
        return Ok(());
    }
    let copied = fs::copy(&path, folder.join(name));
    copied.map(drop).map_err(|source| ExportError::Copy { path, source })
}
