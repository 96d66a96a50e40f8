//! Sequence files: one line a user, `user item item ...`, oldest first, separated by white space.
//!
//! Either `sequences.txt`, or the three parts `sequential_train.txt`, `sequential_valid.txt` and
//! `sequential_test.txt`, where a user's history is the three concatenated. `items.tsv` has a header
//! with `item_id`, `title` and, optionally, `category`.

use std::path::Path;

use super::super::error::DataError;
use super::super::notes::ReadNotes;
use super::super::{Loaded, files};
use super::histories::Histories;
use super::tabular::{CatalogueColumns, Table};
use super::{Attributes, Folders, finish, without_users};

/// Files of the data set's own parts, in time order.
const PARTS: [&str; 3] = ["sequential_train.txt", "sequential_valid.txt", "sequential_test.txt"];

/// One file instead of parts.
const WHOLE: &str = "sequences.txt";

/// Reads the data set in `folders`.
pub(in super::super) fn read(folders: Folders<'_>) -> Result<Loaded, DataError> {
    let mut notes = ReadNotes::default();
    let items = files::require(folders.catalogue, &["items.tsv"])?;
    let columns = CatalogueColumns { item: "item_id", title: "title", category: Some("category") };
    let table = Table::unquoted(&items, b'\t', &mut notes)?;
    // A missing category column is no loss: the format's catalogues do without.
    let category = columns.category.filter(|name| table.has(name));
    let catalogue = table.catalogue(&CatalogueColumns { category, ..columns }, &mut notes)?;
    let (catalogue, index) = catalogue.finish(&items)?;
    let Some(folder) = folders.histories else {
        return Ok(without_users(folders.catalogue, catalogue, notes));
    };

    let mut histories = Histories::new(index, 0);
    let first = files::require(folder, &[PARTS[0], WHOLE])?;
    let in_parts = files::find(folder, &[PARTS[0]]).is_some();
    if in_parts {
        for (part, name) in PARTS.into_iter().enumerate() {
            let file = files::require(folder, &[name])?;
            read_lines(&file, part, &mut histories, &mut notes)?;
        }
    } else {
        read_lines(&first, 0, &mut histories, &mut notes)?;
    }
    let histories =
        if in_parts { histories.finish_parts(&mut notes) } else { histories.finish(&mut notes) };
    finish(folder, catalogue, histories, Attributes::new(), notes, &first)
}

/// Position in a line is the order, so every step of a file gets the same moment: its part.
fn read_lines(
    file: &Path,
    part: usize,
    histories: &mut Histories,
    notes: &mut ReadNotes,
) -> Result<(), DataError> {
    let bytes = files::read(file, notes)?;
    for (_, row) in files::lines(&bytes) {
        let mut fields = row.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
        let Some(user) = fields.next() else {
            continue;
        };
        let user = histories.user(user);
        for item in fields {
            histories.add(user, item, part as i128, notes);
        }
    }
    Ok(())
}
