//! What can be wrong with data that comes from outside.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Longest part of a file that an error message repeats, in characters.
const QUOTED_CHARS: usize = 60;

/// Why a data set could not be read, split or put on clients.
#[derive(Debug, Error)]
pub enum DataError {
    /// The file exists and the system or the decompressor refused it.
    #[error("failed to read {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// A folder lacks a file that its format needs.
    #[error("{} holds no {expected}", folder.display())]
    MissingFile {
        /// The data folder.
        folder: PathBuf,
        /// The name or names that would have done.
        expected: String,
    },

    /// A line has fewer fields than its format.
    #[error("{}:{line}: got {got} fields, expected {expected}", file.display())]
    FieldCount {
        /// The file.
        file: PathBuf,
        /// Line, from 1.
        line: u64,
        /// Fields found.
        got: usize,
        /// Fields needed, in words.
        expected: String,
    },

    /// A field is not what its column holds.
    #[error("{}:{line}: got {got:?}, expected {expected}", file.display())]
    Field {
        /// The file.
        file: PathBuf,
        /// Line, from 1.
        line: u64,
        /// The field, shortened.
        got: String,
        /// What would have done.
        expected: &'static str,
    },

    /// A header lacks a column that the configuration names.
    #[error("{}: no column {column:?}, the header has {got:?}", file.display())]
    MissingColumn {
        /// The file.
        file: PathBuf,
        /// The column looked for.
        column: String,
        /// The columns found.
        got: Vec<String>,
    },

    /// The catalogue holds no item.
    #[error("{}: got no item, expected at least one", file.display())]
    EmptyCatalogue {
        /// The catalogue file.
        file: PathBuf,
    },

    /// No interaction of a known item is left.
    #[error("{}: got no interaction with an item of the catalogue", file.display())]
    NoInteractions {
        /// The interactions file.
        file: PathBuf,
    },

    /// A configuration key does not fit the data.
    #[error("{key}: got {got}, expected {expected}")]
    Setting {
        /// The key.
        key: &'static str,
        /// Its value.
        got: String,
        /// What would have done.
        expected: String,
    },

    /// The assignment file does not say where a user goes.
    #[error("{}: got no client for user {user:?}", file.display())]
    UnassignedUser {
        /// The assignment file.
        file: PathBuf,
        /// Key of the user.
        user: String,
    },
}

impl DataError {
    /// A field of `file` at `line` that is not `expected`.
    pub(super) fn field(file: &Path, line: u64, got: &[u8], expected: &'static str) -> Self {
        let got = String::from_utf8_lossy(got).chars().take(QUOTED_CHARS).collect();
        Self::Field { file: file.to_owned(), line, got, expected }
    }
}
