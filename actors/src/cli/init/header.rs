//! The first line of a table.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};

/// More than any header needs; a first line beyond it is no header.
const LONGEST_HEADER: u64 = 64 * 1024;

/// Separators that `data.table.delimiter = "auto"` knows.
const DELIMITERS: [u8; 4] = [b',', b';', b'|', b'\t'];

/// A table's name and columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// File name, relative to the data folder.
    pub file: String,
    /// Column names in order.
    pub columns: Vec<String>,
}

impl Header {
    /// Reads the header of `folder/file`.
    pub fn read(folder: &Path, file: &Path) -> Result<Self> {
        let path = folder.join(file);
        let reading = || format!("failed to read {}", path.display());
        let mut line = Vec::new();
        let mut reader =
            BufReader::new(File::open(&path).with_context(reading)?).take(LONGEST_HEADER);
        reader.read_until(b'\n', &mut line).with_context(reading)?;
        let columns = columns(line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line));
        if columns.len() < 2 {
            bail!("{}: the first line is no header with at least two columns", path.display());
        }
        Ok(Self { file: file.display().to_string(), columns })
    }
}

/// Headers of the `.csv`, `.tsv` and `.txt` files of a folder, by name; files without a header are passed over.
pub(super) fn tables_in(folder: &Path) -> Result<Vec<Header>> {
    let listing = || format!("failed to list {}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(listing)? {
        let path = entry.with_context(listing)?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        let table = extension.is_some_and(|extension| {
            ["csv", "tsv", "txt"].contains(&extension.to_lowercase().as_str())
        });
        if table && path.is_file() {
            names.extend(path.file_name().map(ToOwned::to_owned));
        }
    }
    names.sort();
    Ok(names.iter().filter_map(|name| Header::read(folder, name.as_ref()).ok()).collect())
}

/// Splits by the separator that gives the most columns, quotes respected.
fn columns(line: &[u8]) -> Vec<String> {
    let split = |delimiter| {
        let mut reader =
            csv::ReaderBuilder::new().delimiter(delimiter).has_headers(false).from_reader(line);
        let record = reader.byte_records().next()?.ok()?;
        let name = |field: &[u8]| String::from_utf8_lossy(field).trim().to_owned();
        Some(record.iter().map(name).collect::<Vec<_>>())
    };
    // `max_by_key` takes the last of equals, so a line without any separator is one column either way.
    DELIMITERS.into_iter().filter_map(split).max_by_key(Vec::len).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_separator_is_the_one_that_splits_most_and_quotes_hold_together() {
        assert_eq!(
            columns(b"user,\"item, or title\",time\r\n"),
            ["user", "item, or title", "time"]
        );
        assert_eq!(columns(b"user\titem\n"), ["user", "item"]);
        assert_eq!(columns(b"user;item|title;time"), ["user", "item|title", "time"]);
        assert_eq!(columns(b""), Vec::<String>::new());
    }
}
