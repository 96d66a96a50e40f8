//! Files as bytes and bytes as lines.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use encoding_rs::{Encoding, UTF_8};
use flate2::read::MultiGzDecoder;

use super::error::DataError;
use super::notes::ReadNotes;

/// First bytes of every gzip file.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The first of `names` (each as it is, then with `.gz`) that `folder` holds.
pub(super) fn find(folder: &Path, names: &[&str]) -> Option<PathBuf> {
    names
        .iter()
        .flat_map(|name| [folder.join(name), folder.join(format!("{name}.gz"))])
        .find(|path| path.is_file())
}

/// As [`find`], with an error that names what would have done.
pub(super) fn require(folder: &Path, names: &[&str]) -> Result<PathBuf, DataError> {
    if !folder.is_dir() {
        return Err(DataError::Setting {
            key: "data.path",
            got: folder.display().to_string(),
            expected: "a folder that exists; `--data DIR` names another".to_owned(),
        });
    }
    find(folder, names).ok_or_else(|| DataError::MissingFile {
        folder: folder.to_owned(),
        expected: format!("{} (or .gz)", names.join(" or ")),
    })
}

/// A whole file, decompressed where its first bytes say gzip, without byte order mark, UTF-16 turned
/// into UTF-8; counts lines that end in CR LF.
pub(super) fn read(file: &Path, notes: &mut ReadNotes) -> Result<Vec<u8>, DataError> {
    let failed = |source| DataError::Read { file: file.to_owned(), source };
    let mut bytes = fs::read(file).map_err(failed)?;
    if bytes.starts_with(&GZIP_MAGIC) {
        let mut plain = Vec::with_capacity(bytes.len() * 4);
        MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut plain).map_err(failed)?;
        bytes = plain;
    }
    let bytes = match Encoding::for_bom(&bytes) {
        None => bytes,
        Some((encoding, mark)) if encoding == UTF_8 => bytes.split_off(mark),
        Some((utf16, mark)) => {
            notes.utf16_files += 1;
            utf16.decode_without_bom_handling(&bytes[mark..]).0.into_owned().into_bytes()
        }
    };
    notes.crlf_lines += bytes.windows(2).filter(|pair| pair == b"\r\n").count();
    Ok(bytes)
}

/// Lines that are not blank, each with its number from 1, without line ends.
pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    bytes
        .split(|&byte| byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .zip(1..)
        .filter(|(line, _)| !line.trim_ascii().is_empty())
        .map(|(line, number)| (number, line))
}

/// Name of the data set for tables: its folder's, or `fallback` for a path without one.
pub(super) fn folder_name(folder: &Path, fallback: &str) -> String {
    let full = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    full.file_name().map_or_else(|| fallback.to_owned(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_their_numbers_over_blank_ones() {
        let found: Vec<_> = lines(b"a\r\n\r\n \nb\nc").collect();
        assert_eq!(found, [(1, &b"a"[..]), (4, b"b"), (5, b"c")]);
    }

    #[test]
    fn utf16_and_byte_order_marks_are_read_and_a_torn_gzip_is_an_error() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("items.csv");
        let mut notes = ReadNotes::default();

        fs::write(&file, b"\xff\xfeA\0\xe9\0").expect("written");
        assert_eq!(read(&file, &mut notes).expect("read"), "Aé".as_bytes());
        assert_eq!(notes.utf16_files, 1);

        fs::write(&file, b"\xef\xbb\xbfA").expect("written");
        assert_eq!(read(&file, &mut notes).expect("read"), b"A");

        fs::write(&file, b"\x1f\x8b\x08\x00torn").expect("written");
        assert!(matches!(read(&file, &mut notes), Err(DataError::Read { .. })));
    }
}
