//! Delimited files with a header, column by name.

use std::path::{Path, PathBuf};

use csv::{ByteRecord, ReaderBuilder, Terminator};

use super::super::error::DataError;
use super::super::notes::ReadNotes;
use super::super::{files, text};
use super::catalogue::CatalogueBuilder;

/// Separators that `"auto"` chooses from; the most frequent in the header wins, the earlier on a tie.
const SEPARATORS: [u8; 4] = [b'\t', b',', b';', b'|'];

/// Where a catalogue file holds what.
pub(super) struct CatalogueColumns<'a> {
    pub(super) item: &'a str,
    pub(super) title: &'a str,
    pub(super) category: Option<&'a str>,
}

/// A delimited file in memory, its header parsed.
pub(super) struct Table {
    file: PathBuf,
    bytes: Vec<u8>,
    separator: u8,
    quoted: bool,
    header: Vec<String>,
}

/// One data row.
pub(super) struct Row<'a> {
    table: &'a Table,
    record: &'a ByteRecord,
    line: u64,
}

impl Table {
    /// A file whose fields may stand in double quotes; `separator` `None` looks at the header.
    pub(super) fn quoted(
        file: &Path,
        separator: Option<u8>,
        notes: &mut ReadNotes,
    ) -> Result<Self, DataError> {
        let bytes = files::read(file, notes)?;
        let separator = separator.unwrap_or_else(|| guess_separator(&bytes));
        Self::open(file, bytes, separator, true, notes)
    }

    /// A file in which a double quote is a character like any other.
    pub(super) fn unquoted(
        file: &Path,
        separator: u8,
        notes: &mut ReadNotes,
    ) -> Result<Self, DataError> {
        let bytes = files::read(file, notes)?;
        Self::open(file, bytes, separator, false, notes)
    }

    fn open(
        file: &Path,
        bytes: Vec<u8>,
        separator: u8,
        quoted: bool,
        notes: &mut ReadNotes,
    ) -> Result<Self, DataError> {
        let mut table =
            Self { file: file.to_owned(), bytes, separator, quoted, header: Vec::new() };
        let mut header = ByteRecord::new();
        table.reader().read_byte_record(&mut header).map_err(|error| table.failed(error))?;
        table.header = header.iter().map(|name| text::label(name, notes)).collect();
        Ok(table)
    }

    /// Names of the columns.
    pub(super) fn header(&self) -> &[String] {
        &self.header
    }

    /// Whether there is such a column.
    pub(super) fn has(&self, column: &str) -> bool {
        self.header.iter().any(|name| name == column)
    }

    /// Position of a column.
    pub(super) fn column(&self, name: &str) -> Result<usize, DataError> {
        self.header.iter().position(|column| column == name).ok_or_else(|| {
            DataError::MissingColumn {
                file: self.file.clone(),
                column: name.to_owned(),
                got: self.header.clone(),
            }
        })
    }

    /// Calls `visit` on every row after the header that is not blank.
    pub(super) fn for_each(
        &self,
        mut visit: impl FnMut(Row<'_>) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        let mut reader = self.reader();
        let mut record = ByteRecord::new();
        let mut is_header = true;
        while reader.read_byte_record(&mut record).map_err(|error| self.failed(error))? {
            let is_blank = record.len() == 1 && record[0].trim_ascii().is_empty();
            if !std::mem::take(&mut is_header) && !is_blank {
                visit(Row { table: self, record: &record, line: self.line(&record) })?;
            }
        }
        Ok(())
    }

    /// The file as a catalogue.
    pub(super) fn catalogue(
        &self,
        columns: &CatalogueColumns<'_>,
        notes: &mut ReadNotes,
    ) -> Result<CatalogueBuilder, DataError> {
        let (item, title) = (self.column(columns.item)?, self.column(columns.title)?);
        let category = columns.category.map(|name| self.column(name)).transpose()?;
        let mut catalogue = CatalogueBuilder::default();
        self.for_each(|row| {
            let category = category.map_or(Ok(&b""[..]), |category| row.field(category))?;
            catalogue.add(row.field(item)?, row.field(title)?, category, notes);
            Ok(())
        })?;
        Ok(catalogue)
    }

    /// Line of a record, from 1. The parser notes where it began to look, before the empty lines it skips.
    fn line(&self, record: &ByteRecord) -> u64 {
        let Some(position) = record.position() else { return 0 };
        let from = usize::try_from(position.byte()).unwrap_or(usize::MAX);
        let rest = self.bytes.get(from..).unwrap_or_default();
        let skipped = rest.iter().take_while(|&&byte| byte == b'\n').count();
        position.line() + skipped as u64
    }

    /// The terminator is LF alone, so that a stray CR inside a field does not tear the row; CR at the
    /// end of a line falls to the trimming of fields.
    fn reader(&self) -> csv::Reader<&[u8]> {
        ReaderBuilder::new()
            .delimiter(self.separator)
            .quoting(self.quoted)
            .terminator(Terminator::Any(b'\n'))
            .flexible(true)
            .has_headers(false)
            .from_reader(&self.bytes)
    }

    fn failed(&self, error: csv::Error) -> DataError {
        DataError::Read { file: self.file.clone(), source: std::io::Error::other(error) }
    }
}

impl<'a> Row<'a> {
    /// The field in a column, without white space around it.
    pub(super) fn field(&self, column: usize) -> Result<&'a [u8], DataError> {
        self.record.get(column).map(<[u8]>::trim_ascii).ok_or_else(|| DataError::FieldCount {
            file: self.table.file.clone(),
            line: self.line,
            got: self.record.len(),
            expected: format!("{} as in the header", self.table.header.len()),
        })
    }

    /// A refusal of `got` in this row.
    pub(super) fn refuse(&self, got: &[u8], expected: &'static str) -> DataError {
        DataError::field(&self.table.file, self.line, got, expected)
    }
}

fn guess_separator(bytes: &[u8]) -> u8 {
    let header = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let count = |separator: u8| header.iter().filter(|&&byte| byte == separator).count();
    // max_by_key keeps the last maximum.
    SEPARATORS.into_iter().rev().max_by_key(|&separator| count(separator)).unwrap_or(b',')
}
