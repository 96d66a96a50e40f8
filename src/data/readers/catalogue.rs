//! Collects the catalogue while a reader goes through its file.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;

use super::super::error::DataError;
use super::super::notes::ReadNotes;
use super::super::text;
use super::super::{Catalogue, Item};
use crate::ids::ItemId;

/// Item by the key its files use.
pub(super) type ItemIndex = HashMap<Vec<u8>, ItemId>;

/// A catalogue that grows row by row.
#[derive(Default)]
pub(super) struct CatalogueBuilder {
    items: Vec<Item>,
    index: ItemIndex,
}

impl CatalogueBuilder {
    /// Adds a row; a key that an earlier row has is counted and skipped.
    pub(super) fn add(&mut self, key: &[u8], title: &[u8], category: &[u8], notes: &mut ReadNotes) {
        let key = key.trim_ascii();
        // The position fits: a file of 2^32 rows does not fit in memory.
        let Entry::Vacant(vacant) = self.index.entry(key.to_vec()) else {
            notes.duplicate_items += 1;
            return;
        };
        vacant.insert(ItemId(self.items.len() as u32));
        let key = text::label(key, notes);
        let mut title = text::title(title, notes);
        if title.is_empty() {
            notes.empty_titles += 1;
            title.clone_from(&key);
        }
        self.items.push(Item { key, title, category: text::category(category, notes) });
    }

    /// The catalogue and the way to its items.
    pub(super) fn finish(self, file: &Path) -> Result<(Catalogue, ItemIndex), DataError> {
        if self.items.is_empty() {
            return Err(DataError::EmptyCatalogue { file: file.to_owned() });
        }
        Ok((Catalogue { items: self.items }, self.index))
    }
}
