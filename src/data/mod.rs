//! Data sets: readers, the public catalogue, who is on which client, and the split of histories.
//!
//! In order of use: [`load`] a data set, [`split()`] its histories, [`assign()`] its users to clients,
//! draw the [`TrainingRows`]; [`inspect()`] says what came of it.

mod assign;
mod error;
mod files;
mod inspect;
mod item_text;
mod notes;
mod prompt;
mod readers;
mod rows;
mod silos;
mod split;
mod synthetic;
mod text;
mod tokens;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::{DataConfig, DataFormat};
use crate::ids::{ClientId, ItemId, UserId};

pub use assign::assign;
pub use error::DataError;
pub use inspect::{CategoryShare, ClientSummary, HistoryLengths, Inspection, inspect};
pub use item_text::{ItemTexts, TOKEN_TYPES, TextRow, item_text_tokenizer};
pub use notes::ReadNotes;
pub use prompt::{PromptTemplate, Prompts};
use readers::Folders;
pub use rows::TrainingRows;
pub use silos::{Holdings, Prepared, prepare};
pub use split::{Part, Query, Splits, split};
pub use text::MAX_TITLE_CHARS;
pub use tokens::{
    END_OF_TEXT, TitleTokens, TokenError, read_tokenizer, text_tokenizer, title_tokenizer,
};

/// An item as every party knows it: the catalogue is public.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Identifier in the data set's own files.
    pub key: String,
    /// Title, HTML entities decoded.
    pub title: String,
    /// Categories or genres, joined by `|`; empty when there are none.
    pub category: String,
}

/// All items that can be recommended. An [`ItemId`] is a position in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalogue {
    /// In the order of the catalogue file.
    pub items: Vec<Item>,
}

/// Where a data set's own parts end within a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GivenParts {
    /// Items of the training part; they come first.
    pub train: usize,
    /// Items of the validation part; the rest is the test part.
    pub validation: usize,
}

/// One user and what they did, oldest first; equal timestamps keep file order (method.md 7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Identifier in the data set's own files.
    pub key: String,
    /// Attributes by column name, such as `gender`.
    pub attributes: BTreeMap<String, String>,
    /// Chronological.
    pub history: Vec<ItemId>,
    /// The data set's own parts, where it has them.
    pub parts: Option<GivenParts>,
}

/// A data set as read. A [`UserId`] is a position in `users`.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// Name for tables and reports.
    pub name: String,
    /// Public items.
    pub catalogue: Catalogue,
    /// In the order of the files.
    pub users: Vec<User>,
}

/// One user's history in parts. Known history at test time is `train` then `validation`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserSplit {
    /// Whose.
    pub user: UserId,
    /// Items to train on.
    pub train: Vec<ItemId>,
    /// Validation targets; empty when the user has too few interactions.
    pub validation: Vec<ItemId>,
    /// Test targets; empty when the user has too few interactions.
    pub test: Vec<ItemId>,
}

/// What one client holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientData {
    /// Who holds it.
    pub client: ClientId,
    /// In user-id order; on a pooled client client by client, each in user-id order.
    pub users: Vec<UserSplit>,
}

/// A data set and what its reader met on the way.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What was read.
    pub dataset: Dataset,
    /// What was skipped, repaired or noticed.
    pub notes: ReadNotes,
}

/// Reads the data set that `config` names; `seed` is the run's and matters to the generator only.
///
/// # Errors
/// A missing file or column, a line without meaning (with its number), no item or no interaction left.
pub fn load(config: &DataConfig, seed: u64) -> Result<Loaded, DataError> {
    if config.format == DataFormat::Synthetic {
        let dataset = synthetic::generate(&config.synthetic, seed)?;
        return Ok(Loaded { dataset, notes: ReadNotes::default() });
    }
    let folder = folder(config)?;
    read(config, Folders { catalogue: folder, histories: Some(folder) })
}

fn folder(config: &DataConfig) -> Result<&Path, DataError> {
    config.path.as_option().map(PathBuf::as_path).ok_or_else(|| DataError::Setting {
        key: "data.path",
        got: "\"none\"".to_owned(),
        expected: "the folder of the data set".to_owned(),
    })
}

/// Reads files in the format of `config`.
fn read(config: &DataConfig, folders: Folders<'_>) -> Result<Loaded, DataError> {
    match config.format {
        DataFormat::Synthetic => Err(DataError::Setting {
            key: "data.format",
            got: "\"synthetic\"".to_owned(),
            expected: "a format that is read from files".to_owned(),
        }),
        DataFormat::Movielens => readers::movielens::read(folders),
        DataFormat::Movielens100k => readers::movielens_100k::read(folders),
        DataFormat::Sequences => readers::sequences::read(folders),
        DataFormat::Table => readers::table::read(folders, &config.table),
    }
}
