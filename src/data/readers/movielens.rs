//! MovieLens files with `::` between fields (ML-1M, ML-10M).
//!
//! `ratings.dat` holds `user::movie::rating::timestamp`, `ratings_ranked.dat` the same with a
//! per-user rank in place of the timestamp; either may be gzipped. `movies.dat` holds
//! `movie::title::genres`, in latin-1. `users.dat` (`user::gender::age::occupation::zip`) is optional.
//! A rating of any value is an interaction.

use std::path::Path;

use super::super::error::DataError;
use super::super::notes::ReadNotes;
use super::super::{Loaded, files, text};
use super::catalogue::CatalogueBuilder;
use super::histories::Histories;
use super::{Attributes, Folders, finish, integer, without_users};

/// Columns of `users.dat` after the user.
const ATTRIBUTES: [&str; 4] = ["gender", "age", "occupation", "zip"];

/// Bytes of a typical rating line; only sizes a buffer.
const RATING_LINE_BYTES: usize = 18;

/// Reads the data set in `folders`.
pub(in super::super) fn read(folders: Folders<'_>) -> Result<Loaded, DataError> {
    let mut notes = ReadNotes::default();
    let movies = files::require(folders.catalogue, &["movies.dat"])?;
    let (catalogue, index) = read_movies(&movies, &mut notes)?.finish(&movies)?;
    let Some(folder) = folders.histories else {
        return Ok(without_users(folders.catalogue, catalogue, notes));
    };
    let ratings = files::require(folder, &["ratings.dat", "ratings_ranked.dat"])?;
    let bytes = files::read(&ratings, &mut notes)?;
    let mut histories = Histories::new(index, bytes.len() / RATING_LINE_BYTES);
    read_ratings(&ratings, &bytes, &mut histories, &mut notes)?;
    let attributes = match files::find(folder, &["users.dat"]) {
        Some(users) => read_users(&users, &mut notes)?,
        None => Attributes::new(),
    };
    let histories = histories.finish(&mut notes);
    finish(folder, catalogue, histories, attributes, notes, &ratings)
}

fn read_movies(file: &Path, notes: &mut ReadNotes) -> Result<CatalogueBuilder, DataError> {
    let bytes = files::read(file, notes)?;
    let mut catalogue = CatalogueBuilder::default();
    for (line, row) in files::lines(&bytes) {
        // Titles may hold `::` themselves: they reach from the first separator to the last.
        let fields = cut_first(row).and_then(|(key, rest)| Some((key, cut_last(rest)?)));
        let Some((key, (title, genres))) = fields else {
            return Err(too_few(file, line, row, "movie::title::genres"));
        };
        catalogue.add(key, title, genres, notes);
    }
    Ok(catalogue)
}

fn read_ratings(
    file: &Path,
    bytes: &[u8],
    histories: &mut Histories,
    notes: &mut ReadNotes,
) -> Result<(), DataError> {
    for (line, row) in files::lines(bytes) {
        let Some([user, movie, _rating, time]) = split(row) else {
            return Err(too_few(file, line, row, "user::movie::rating::timestamp"));
        };
        let Some(moment) = integer(time) else {
            return Err(DataError::field(file, line, time, "a whole number as timestamp or rank"));
        };
        let user = histories.user(user.trim_ascii());
        histories.add(user, movie.trim_ascii(), moment.into(), notes);
    }
    Ok(())
}

fn read_users(file: &Path, notes: &mut ReadNotes) -> Result<Attributes, DataError> {
    let bytes = files::read(file, notes)?;
    let mut attributes = Attributes::new();
    for (line, row) in files::lines(&bytes) {
        let Some([user, values @ ..]) = split::<{ ATTRIBUTES.len() + 1 }>(row) else {
            return Err(too_few(file, line, row, "user::gender::age::occupation::zip"));
        };
        let named = ATTRIBUTES.map(str::to_owned).into_iter();
        let values = values.into_iter().map(|value| text::label(value, notes));
        attributes.insert(user.trim_ascii().to_vec(), named.zip(values).collect());
    }
    Ok(attributes)
}

/// The first `N` fields; `None` where there are fewer.
fn split<const N: usize>(mut row: &[u8]) -> Option<[&[u8]; N]> {
    let mut fields = [row; N];
    for field in &mut fields[..N - 1] {
        (*field, row) = cut_first(row)?;
    }
    // Columns beyond the last are none of ours.
    fields[N - 1] = cut_first(row).map_or(row, |(last, _)| last);
    Some(fields)
}

fn cut_first(row: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = row.windows(2).position(|pair| pair == b"::")?;
    Some((&row[..at], &row[at + 2..]))
}

fn cut_last(row: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = row.windows(2).rposition(|pair| pair == b"::")?;
    Some((&row[..at], &row[at + 2..]))
}

fn too_few(file: &Path, line: u64, row: &[u8], expected: &str) -> DataError {
    let separators = row.windows(2).filter(|pair| pair == b"::").count();
    let expected = expected.to_owned();
    DataError::FieldCount { file: file.to_owned(), line, got: separators + 1, expected }
}
