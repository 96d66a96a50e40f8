//! One reader a format. All of them collect a catalogue and interactions, count oddities in
//! [`ReadNotes`] and refuse, with file and line, only what leaves them no meaning.

mod catalogue;
mod histories;
pub(super) mod movielens;
pub(super) mod movielens_100k;
pub(super) mod sequences;
pub(super) mod table;
mod tabular;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::error::DataError;
use super::notes::ReadNotes;
use super::{Catalogue, Dataset, Loaded, User, files};
use catalogue::ItemIndex;
use histories::History;

/// Where a reader finds its files.
#[derive(Clone, Copy)]
pub(super) struct Folders<'a> {
    /// Holds the catalogue.
    pub catalogue: &'a Path,
    /// Holds the interactions and what is known of users; `None` where the catalogue is all that is wanted.
    pub histories: Option<&'a Path>,
}

/// User attributes by user key.
type Attributes = HashMap<Vec<u8>, BTreeMap<String, String>>;

/// The common end of all readers: histories and attributes become users, users without history go.
fn finish(
    folder: &Path,
    catalogue: Catalogue,
    histories: Vec<History>,
    mut attributes: Attributes,
    mut notes: ReadNotes,
    interactions_file: &Path,
) -> Result<Loaded, DataError> {
    let mut users = Vec::with_capacity(histories.len());
    for history in histories {
        let attributes = attributes.remove(&history.key).unwrap_or_default();
        if history.items.is_empty() {
            notes.empty_histories += 1;
            continue;
        }
        let key = String::from_utf8_lossy(&history.key).into_owned();
        users.push(User { key, attributes, history: history.items, parts: history.parts });
    }
    // Whoever is left has attributes and never acted.
    notes.empty_histories += attributes.len();
    if users.is_empty() {
        return Err(DataError::NoInteractions { file: interactions_file.to_owned() });
    }
    notes.inspect_titles(&catalogue);
    let name = files::folder_name(folder, "data");
    Ok(Loaded { dataset: Dataset { name, catalogue, users }, notes })
}

/// A catalogue without anybody's histories.
fn without_users(folder: &Path, catalogue: Catalogue, mut notes: ReadNotes) -> Loaded {
    notes.inspect_titles(&catalogue);
    let name = files::folder_name(folder, "data");
    Loaded { dataset: Dataset { name, catalogue, users: Vec::new() }, notes }
}

/// A whole number as the MovieLens files write it.
fn integer(field: &[u8]) -> Option<i64> {
    std::str::from_utf8(field.trim_ascii()).ok()?.parse().ok()
}
