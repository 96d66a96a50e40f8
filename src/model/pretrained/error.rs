//! What can be wrong with a folder of pretrained weights.

use std::io;
use std::path::{Path, PathBuf};

use tch::TchError;
use thiserror::Error;

use crate::model::slice::SliceFileError;

/// Why a folder could not be used, or an adapter not be written.
#[derive(Debug, Error)]
pub enum PretrainedError {
    /// The system refused a file.
    #[error("failed to access {}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// The folder lacks a file.
    #[error("{} holds no {expected}", folder.display())]
    MissingFile {
        /// The folder.
        folder: PathBuf,
        /// The file or files that would have done.
        expected: &'static str,
    },

    /// The weights are there, pickled: reading those would run code that the file brings.
    #[error("{}: got pickled weights, expected safetensors: convert them to {expected}", file.display())]
    Pickled {
        /// The file.
        file: PathBuf,
        /// The file to convert them to.
        expected: &'static str,
    },

    /// A file is no JSON.
    #[error("{}: expected a JSON object", file.display())]
    Json {
        /// The file.
        file: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },

    /// A key has a value that is wrong or that this build does not support.
    #[error("{}: {key}: got {got}, expected {expected}", file.display())]
    Key {
        /// The file.
        file: PathBuf,
        /// The key, with the keys around it.
        key: String,
        /// Its value, shortened; `nothing` where it is absent.
        got: String,
        /// What would have done.
        expected: String,
    },

    /// A weights file promises a longer header than it can hold: cut short, or no safetensors file.
    #[error("{}: got a header of {got} bytes, expected at most {expected}", file.display())]
    HeaderLength {
        /// The file.
        file: PathBuf,
        /// Length that the first field claims.
        got: u64,
        /// Bytes that there are for it.
        expected: u64,
    },

    /// The header of a weights file is not one.
    #[error("{}: expected the header of a safetensors file", file.display())]
    Header {
        /// The file.
        file: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },

    /// The header says something impossible of one tensor.
    #[error("{}: tensor {tensor}: got {got}, expected {expected}", file.display())]
    HeaderEntry {
        /// The file.
        file: PathBuf,
        /// The tensor, as the file names it.
        tensor: String,
        /// What the header says.
        got: String,
        /// What would have done.
        expected: String,
    },

    /// A weights file ends before the numbers of a tensor do.
    #[error("{}: tensor {tensor} ends at byte {expected}, the file is cut off at {got}", file.display())]
    Truncated {
        /// The file.
        file: PathBuf,
        /// The first tensor that is cut, as the file names it.
        tensor: String,
        /// Length of the file.
        got: u64,
        /// Length that this tensor needs.
        expected: u64,
    },

    /// A weights file goes on after its last tensor.
    #[error("{}: got {got} bytes, expected {expected}, where the last tensor ends", file.display())]
    TooLong {
        /// The file.
        file: PathBuf,
        /// Length of the file.
        got: u64,
        /// Length that its header accounts for.
        expected: u64,
    },

    /// A weights file is not as long as when it was opened.
    #[error("{}: got {got} bytes, expected {expected} as when it was opened", file.display())]
    Changed {
        /// The file.
        file: PathBuf,
        /// Length it has now.
        got: u64,
        /// Length it had.
        expected: u64,
    },

    /// The index names a shard that is not in the folder.
    #[error("{}: tensor {tensor} is in {shard}, which is not there", index.display())]
    MissingShard {
        /// The index.
        index: PathBuf,
        /// A tensor that it looks for in the shard.
        tensor: String,
        /// The shard.
        shard: String,
    },

    /// A shard lacks a tensor that the index looks for in it.
    #[error("{}: got no tensor {tensor}, expected it by {}", shard.display(), index.display())]
    NotInShard {
        /// The index.
        index: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shard.
        shard: PathBuf,
    },

    /// Two tensors of the folder have one name.
    #[error("tensor {tensor} is in {} and in {}, expected in one place", first.display(), second.display())]
    Duplicate {
        /// The tensor, by this project's name for it.
        tensor: String,
        /// File of one.
        first: PathBuf,
        /// File of the other; the same file where two spellings of a name meet.
        second: PathBuf,
    },

    /// The tensors are not those of the model.
    #[error("{}", list(problems))]
    Tensors {
        /// Everything that does not fit.
        problems: Vec<TensorProblem>,
    },

    /// libtorch refused a tensor, for instance for lack of memory.
    #[error("{}: failed to load tensor {tensor}", file.display())]
    Torch {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// What libtorch said.
        source: TchError,
    },

    /// A tensor to be written is no part of a LoRA adapter.
    #[error("tensor {tensor}: got {got}, expected {expected}")]
    NotAdapter {
        /// The tensor.
        tensor: String,
        /// What it is.
        got: String,
        /// What would have done.
        expected: String,
    },

    /// The adapter's tensors could not be written.
    #[error(transparent)]
    Write(#[from] SliceFileError),
}

impl PretrainedError {
    pub(crate) fn io(file: &Path, source: io::Error) -> Self {
        Self::Io { file: file.to_owned(), source }
    }
}

/// How a stored tensor differs from the one that the model has.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TensorProblem {
    /// It is not there.
    #[error("{}: tensor {tensor} is missing", file.display())]
    Missing {
        /// Where it was looked for.
        file: PathBuf,
        /// The tensor, by the model's name for it.
        tensor: String,
    },

    /// The model has no such tensor.
    #[error("{}: tensor {tensor} is not part of the model", file.display())]
    Extra {
        /// Its file.
        file: PathBuf,
        /// The tensor, as the file names it.
        tensor: String,
    },

    /// Same name, other shape.
    #[error("{}: tensor {tensor} has shape {got:?}, expected {expected:?}", file.display())]
    Shape {
        /// Its file.
        file: PathBuf,
        /// The tensor, by the model's name for it.
        tensor: String,
        /// Shape it has.
        got: Vec<i64>,
        /// Shape it must have.
        expected: Vec<i64>,
    },

    /// Same name, a number type that weights do not have.
    #[error("{}: tensor {tensor} has type {got}, expected one of F32, BF16, F16", file.display())]
    Dtype {
        /// Its file.
        file: PathBuf,
        /// The tensor, by the model's name for it.
        tensor: String,
        /// Type it has, as the file spells it.
        got: String,
    },
}

fn list(problems: &[TensorProblem]) -> String {
    problems.iter().map(TensorProblem::to_string).collect::<Vec<_>>().join("; ")
}
