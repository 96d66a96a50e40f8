//! Data sets: readers, the public catalogue, who is on which client, and the split of histories.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{ClientId, ItemId, UserId};

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
    /// In user-id order.
    pub users: Vec<UserSplit>,
}
