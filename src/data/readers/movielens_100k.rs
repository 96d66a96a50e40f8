//! MovieLens-100K: `u.data` (tab-separated `user item rating timestamp`), `u.item` (`|`-separated,
//! latin-1, 19 genre flags at the end) and, optionally, `u.user` (`user|age|gender|occupation|zip`).

use std::path::Path;

use super::super::error::DataError;
use super::super::notes::ReadNotes;
use super::super::{Loaded, files, text};
use super::catalogue::CatalogueBuilder;
use super::histories::Histories;
use super::{Attributes, Folders, finish, integer, without_users};

/// Meaning of the flags, in the order of `u.genre`.
const GENRES: [&str; 19] = [
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
];

/// Item, title, release date, video release date and address stand before the flags.
const FIELDS_BEFORE_GENRES: usize = 5;

/// Columns of `u.user` after the user.
const ATTRIBUTES: [&str; 4] = ["age", "gender", "occupation", "zip"];

/// Reads the data set in `folders`.
pub(in super::super) fn read(folders: Folders<'_>) -> Result<Loaded, DataError> {
    let mut notes = ReadNotes::default();
    let items = files::require(folders.catalogue, &["u.item"])?;
    let (catalogue, index) = read_items(&items, &mut notes)?.finish(&items)?;
    let Some(folder) = folders.histories else {
        return Ok(without_users(folders.catalogue, catalogue, notes));
    };
    let ratings = files::require(folder, &["u.data"])?;
    let bytes = files::read(&ratings, &mut notes)?;
    let mut histories = Histories::new(index, 0);
    read_ratings(&ratings, &bytes, &mut histories, &mut notes)?;
    let attributes = match files::find(folder, &["u.user"]) {
        Some(users) => read_users(&users, &mut notes)?,
        None => Attributes::new(),
    };
    let histories = histories.finish(&mut notes);
    finish(folder, catalogue, histories, attributes, notes, &ratings)
}

fn read_items(file: &Path, notes: &mut ReadNotes) -> Result<CatalogueBuilder, DataError> {
    let bytes = files::read(file, notes)?;
    let mut catalogue = CatalogueBuilder::default();
    for (line, row) in files::lines(&bytes) {
        let fields: Vec<&[u8]> = row.split(|&byte| byte == b'|').collect();
        let needed = FIELDS_BEFORE_GENRES + GENRES.len();
        if fields.len() < needed {
            return Err(too_few(file, line, fields.len(), format!("{needed} separated by |")));
        }
        let flags = fields[FIELDS_BEFORE_GENRES..].iter().zip(GENRES);
        let genres: Vec<&str> =
            flags.filter(|(flag, _)| flag.trim_ascii() == b"1").map(|(_, genre)| genre).collect();
        catalogue.add(fields[0], fields[1], genres.join("|").as_bytes(), notes);
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
        let fields: Vec<&[u8]> = row.split(|&byte| byte == b'\t').collect();
        let [user, item, _rating, time, ..] = fields[..] else {
            let expected = "user, item, rating, timestamp separated by tabs".to_owned();
            return Err(too_few(file, line, fields.len(), expected));
        };
        let Some(moment) = integer(time) else {
            return Err(DataError::field(file, line, time, "a whole number as timestamp"));
        };
        let user = histories.user(user.trim_ascii());
        histories.add(user, item.trim_ascii(), moment.into(), notes);
    }
    Ok(())
}

fn read_users(file: &Path, notes: &mut ReadNotes) -> Result<Attributes, DataError> {
    let bytes = files::read(file, notes)?;
    let mut attributes = Attributes::new();
    for (line, row) in files::lines(&bytes) {
        let fields: Vec<&[u8]> = row.split(|&byte| byte == b'|').collect();
        let [user, ref values @ ..] = fields[..] else {
            continue;
        };
        if values.len() < ATTRIBUTES.len() {
            let expected = "user|age|gender|occupation|zip".to_owned();
            return Err(too_few(file, line, fields.len(), expected));
        }
        let named = ATTRIBUTES.map(str::to_owned).into_iter();
        let values = values.iter().map(|value| text::label(value, notes));
        attributes.insert(user.trim_ascii().to_vec(), named.zip(values).collect());
    }
    Ok(attributes)
}

fn too_few(file: &Path, line: u64, got: usize, expected: String) -> DataError {
    DataError::FieldCount { file: file.to_owned(), line, got, expected }
}
