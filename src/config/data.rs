//! Sections `data` and `clients`: where interactions come from and who holds them.

use std::num::NonZeroU32;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::OrNone;

/// Which reader understands the data folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataFormat {
    /// The embedded generator.
    Synthetic,
    /// `ratings.dat` (or `ratings_ranked.dat`, either `.gz`), `movies.dat`, `users.dat`.
    Movielens,
    /// `u.data`, `u.item`, `u.user`.
    #[serde(rename = "movielens-100k")]
    Movielens100k,
    /// `sequential_{train,valid,test}.txt` (or `sequences.txt`) and `items.tsv`.
    Sequences,
    /// CSV or TSV with a header.
    Table,
}

/// How a history becomes training, validation and test items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SplitKind {
    /// Last item tests, the one before validates.
    LeaveOneOut,
    /// The data set's own parts.
    Given,
}

/// Section `data`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented in configs/default.toml")]
pub struct DataConfig {
    pub format: DataFormat,
    pub path: OrNone<PathBuf>,
    pub split: SplitKind,
    pub synthetic: SyntheticConfig,
    pub table: TableConfig,
}

/// Section `data.synthetic`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented in configs/default.toml")]
pub struct SyntheticConfig {
    pub users: NonZeroU32,
    pub items: NonZeroU32,
    pub groups: NonZeroU32,
    pub mean_history: NonZeroU32,
    pub odd_group: bool,
}

/// Section `data.table`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented in configs/default.toml")]
pub struct TableConfig {
    pub interactions: PathBuf,
    pub items: PathBuf,
    pub users: OrNone<PathBuf>,
    pub delimiter: String,
    pub user_column: String,
    pub item_column: String,
    pub time_column: OrNone<String>,
    pub title_column: String,
    pub category_column: OrNone<String>,
}

/// Rule that puts users on clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AssignmentKind {
    /// Seeded K-means++ over a matrix factorisation of the training interactions.
    KMeans,
    /// `user,client` rows.
    File,
    /// A user attribute, one client a value.
    Attribute,
    /// Uniformly at random.
    Uniform,
    /// One client a user.
    PerUser,
    /// Every client has a data folder of its own.
    Silos,
}

/// Section `clients`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "documented in configs/default.toml")]
pub struct ClientsConfig {
    pub assignment: AssignmentKind,
    pub count: NonZeroU32,
    pub file: OrNone<PathBuf>,
    pub attribute: OrNone<String>,
    pub factors: NonZeroU32,
    pub factor_epochs: NonZeroU32,
    pub pooled: bool,
}
