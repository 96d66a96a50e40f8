//! CSV or TSV with a header, columns named by `data.table` of the configuration.

use std::path::Path;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::super::error::DataError;
use super::super::notes::ReadNotes;
use super::super::{Loaded, files, text};
use super::histories::{Histories, Moment};
use super::tabular::{CatalogueColumns, Table};
use super::{Attributes, Folders, finish, without_users};
use crate::config::TableConfig;

/// Whole numbers and seconds are both brought to this many parts, so that fractions keep their order.
const PARTS_PER_UNIT: i128 = 1_000_000_000;

/// Reads the data set that `config` describes in `folders`.
pub(in super::super) fn read(
    folders: Folders<'_>,
    config: &TableConfig,
) -> Result<Loaded, DataError> {
    let separator = separator(&config.delimiter)?;
    let mut notes = ReadNotes::default();
    let open = |folder: &Path, file: &Path, notes: &mut ReadNotes| -> Result<Table, DataError> {
        let file = files::require(folder, &[&file.to_string_lossy()])?;
        Table::quoted(&file, separator, notes)
    };

    let columns = CatalogueColumns {
        item: &config.item_column,
        title: &config.title_column,
        category: config.category_column.as_option().map(String::as_str),
    };
    let catalogue = open(folders.catalogue, &config.items, &mut notes)?;
    let catalogue = catalogue.catalogue(&columns, &mut notes)?;
    let (catalogue, index) = catalogue.finish(&folders.catalogue.join(&config.items))?;
    let Some(folder) = folders.histories else {
        return Ok(without_users(folders.catalogue, catalogue, notes));
    };

    let interactions = open(folder, &config.interactions, &mut notes)?;
    let mut histories = Histories::new(index, 0);
    read_interactions(&interactions, config, &mut histories, &mut notes)?;

    let attributes = match config.users.as_option() {
        None => Attributes::new(),
        Some(users) => {
            read_users(&open(folder, users, &mut notes)?, &config.user_column, &mut notes)?
        }
    };
    let histories = histories.finish(&mut notes);
    let interactions = folder.join(&config.interactions);
    finish(folder, catalogue, histories, attributes, notes, &interactions)
}

fn read_interactions(
    table: &Table,
    config: &TableConfig,
    histories: &mut Histories,
    notes: &mut ReadNotes,
) -> Result<(), DataError> {
    let user = table.column(&config.user_column)?;
    let item = table.column(&config.item_column)?;
    let time = config.time_column.as_option().map(|name| table.column(name)).transpose()?;
    table.for_each(|row| {
        let moment = match time {
            // File order: all moments equal.
            None => 0,
            Some(time) => moment(row.field(time)?)
                .ok_or_else(|| row.refuse(row.field(time).unwrap_or_default(), MOMENT))?,
        };
        let user = histories.user(row.field(user)?);
        histories.add(user, row.field(item)?, moment, notes);
        Ok(())
    })
}

fn read_users(
    table: &Table,
    user_column: &str,
    notes: &mut ReadNotes,
) -> Result<Attributes, DataError> {
    let user = table.column(user_column)?;
    let mut attributes = Attributes::new();
    table.for_each(|row| {
        let others = table.header().iter().enumerate().filter(|&(column, _)| column != user);
        let named = others
            .map(|(column, name)| Ok((name.clone(), text::label(row.field(column)?, notes))))
            .collect::<Result<_, DataError>>()?;
        attributes.insert(row.field(user)?.to_vec(), named);
        Ok(())
    })?;
    Ok(attributes)
}

/// What a time column holds, for error messages.
const MOMENT: &str = "a number or an ISO 8601 date or time";

/// A number in any unit, or ISO 8601; without an offset the text is taken as UTC.
fn moment(field: &[u8]) -> Option<Moment> {
    let text = std::str::from_utf8(field).ok()?;
    if let Ok(whole) = text.parse::<i64>() {
        return Some(Moment::from(whole) * PARTS_PER_UNIT);
    }
    if let Ok(number) = text.parse::<f64>() {
        return number.is_finite().then_some((number * PARTS_PER_UNIT as f64) as Moment);
    }
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Some(timestamp.as_nanosecond());
    }
    let civil: DateTime = text.parse().ok()?;
    TimeZone::UTC.to_timestamp(civil).ok().map(Timestamp::as_nanosecond)
}

fn separator(delimiter: &str) -> Result<Option<u8>, DataError> {
    match delimiter.as_bytes() {
        b"auto" => Ok(None),
        b"\\t" => Ok(Some(b'\t')),
        &[single] if single.is_ascii() && single != b'"' && single != b'\n' => Ok(Some(single)),
        _ => Err(DataError::Setting {
            key: "data.table.delimiter",
            got: format!("{delimiter:?}"),
            expected: "\"auto\" or one ASCII character".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fractions_and_iso_8601_keep_their_order() {
        let ascending = ["9.5", "10", "10.25", "978300760"];
        let moments: Vec<_> = ascending.iter().map(|text| moment(text.as_bytes())).collect();
        assert!(moments.iter().all(Option::is_some) && moments.is_sorted());
        let ascending =
            ["2001-01-01", "2001-01-01 00:00:01", "2001-01-01T00:00:02Z", "2001-01-01T00:00:02-01"];
        let moments: Vec<_> = ascending.iter().map(|text| moment(text.as_bytes())).collect();
        assert!(moments.iter().all(Option::is_some) && moments.is_sorted());
        for wrong in ["", "yesterday", "NaN", "inf", "2001-13-01"] {
            assert_eq!(moment(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
