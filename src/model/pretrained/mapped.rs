//! One safetensors file, mapped into memory: its header read and checked, its numbers left alone.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::Deserialize;
use serde_json::Value;

use super::error::PretrainedError;

/// Bytes of the field that starts a safetensors file: the length of its header, little-endian.
const LENGTH_FIELD: u64 = 8;
/// Longest header that the format allows. Unit: bytes.
const MAX_HEADER: u64 = 100_000_000;

/// Where the numbers of a tensor are, and what they are.
#[derive(Clone, Debug)]
pub(super) struct StoredTensor {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<i64>,
    /// Within the file; as long as type and shape say.
    bytes: Range<usize>,
}

/// A safetensors file whose header has been checked.
#[derive(Debug)]
pub(super) struct MappedFile {
    pub(super) path: PathBuf,
    /// By the names that the file gives them.
    pub(super) tensors: BTreeMap<String, StoredTensor>,
    /// Kept to see whether the file still has the length that was mapped.
    file: File,
    map: Mmap,
}

impl MappedFile {
    /// Maps a file and reads its header; the pages of the numbers are not touched.
    pub(super) fn open(path: &Path) -> Result<Self, PretrainedError> {
        let (file, map) = map(path)?;
        let (header, start) = header(path, &map)?;
        let metadata: Metadata =
            serde_json::from_slice(header).map_err(|error| why_refused(path, header, error))?;
        covers(path, &metadata, start, map.len() as u64)?;
        let mut tensors = BTreeMap::new();
        for (name, info) in metadata.tensors() {
            let stored = stored(path, &name, info, start as usize)?;
            tensors.insert(name, stored);
        }
        Ok(Self { path: path.to_owned(), tensors, file, map })
    }

    /// The numbers of one of its tensors, row by row, little-endian.
    pub(super) fn bytes(&self, tensor: &StoredTensor) -> Result<&[u8], PretrainedError> {
        let now = self.file.metadata().map_err(|error| PretrainedError::io(&self.path, error))?;
        let (got, expected) = (now.len(), self.map.len() as u64);
        if got != expected {
            return Err(PretrainedError::Changed { file: self.path.clone(), got, expected });
        }
        Ok(&self.map[tensor.bytes.clone()])
    }
}

fn map(path: &Path) -> Result<(File, Mmap), PretrainedError> {
    let bad_io = |source| PretrainedError::io(path, source);
    let file = File::open(path).map_err(bad_io)?;
    let metadata = file.metadata().map_err(bad_io)?;
    if !metadata.is_file() {
        return Err(bad_io(io::Error::other("not a regular file")));
    }
    if metadata.len() < LENGTH_FIELD {
        let (got, expected) = (LENGTH_FIELD, metadata.len());
        return Err(PretrainedError::HeaderLength { file: path.to_owned(), got, expected });
    }
    // Weights are replaced by renaming, as downloads and checkpoints do it, and then the map keeps
    // the old file. Whoever cuts the file in the middle of a read ends this process, whoever
    // overwrites it in place changes the weights: the price of not copying a model per party.
    #[allow(unsafe_code, reason = "a map is unsafe since others may write to the file; see above")]
    let map = unsafe { Mmap::map(&file) }.map_err(bad_io)?;
    Ok((file, map))
}

/// The bytes of the header, and where the numbers start.
fn header<'a>(path: &Path, map: &'a [u8]) -> Result<(&'a [u8], u64), PretrainedError> {
    let (field, rest) = map.split_first_chunk().expect("shorter files are not mapped");
    let (got, expected) = (u64::from_le_bytes(*field), MAX_HEADER.min(rest.len() as u64));
    if got > expected {
        return Err(PretrainedError::HeaderLength { file: path.to_owned(), got, expected });
    }
    Ok((&rest[..got as usize], LENGTH_FIELD + got))
}

/// Checks that the file ends where its last tensor does. The parser has checked that there are no
/// gaps and no overlaps.
fn covers(
    path: &Path,
    metadata: &Metadata,
    start: u64,
    length: u64,
) -> Result<(), PretrainedError> {
    let end = |data_end: usize| (data_end as u64).saturating_add(start);
    let (got, expected) = (length, end(metadata.data_len()));
    let file = path.to_owned();
    if got > expected {
        return Err(PretrainedError::TooLong { file, got, expected });
    }
    for tensor in metadata.offset_keys() {
        let info = metadata.info(&tensor).expect("the key is the header's own");
        let expected = end(info.data_offsets.1);
        if got < expected {
            return Err(PretrainedError::Truncated { file, tensor, got, expected });
        }
    }
    Ok(())
}

fn stored(
    path: &Path,
    name: &str,
    info: &TensorInfo,
    start: usize,
) -> Result<StoredTensor, PretrainedError> {
    let shape: Result<Vec<i64>, _> = info.shape.iter().map(|&dim| i64::try_from(dim)).collect();
    let shape = shape.map_err(|_| {
        bad_entry(path, name, format!("shape {:?}", info.shape), "dimensions below 2^63")
    })?;
    let (from, to) = info.data_offsets;
    Ok(StoredTensor { dtype: info.dtype, shape, bytes: start + from..start + to })
}

/// The parser's error, or a better one where it is one tensor's entry that is wrong.
fn why_refused(path: &Path, header: &[u8], source: serde_json::Error) -> PretrainedError {
    let entries: BTreeMap<String, Value> = serde_json::from_slice(header).unwrap_or_default();
    let tensors = entries.iter().filter(|(name, _)| *name != "__metadata__");
    for (name, entry) in tensors {
        let info = match TensorInfo::deserialize(entry) {
            Ok(info) => info,
            Err(why) => return bad_entry(path, name, why.to_string(), "dtype, shape and offsets"),
        };
        let (from, to) = info.data_offsets;
        let numbers = info.shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim));
        let bits = numbers.and_then(|numbers| numbers.checked_mul(info.dtype.bitsize()));
        if to < from || bits != (to - from).checked_mul(8) {
            let got = format!("bytes {from}..{to}");
            let expected = format!("as many as {} of shape {:?} take", info.dtype, info.shape);
            return bad_entry(path, name, got, expected);
        }
    }
    PretrainedError::Header { file: path.to_owned(), source }
}

fn bad_entry(
    path: &Path,
    tensor: &str,
    got: String,
    expected: impl Into<String>,
) -> PretrainedError {
    let (file, tensor) = (path.to_owned(), tensor.to_owned());
    PretrainedError::HeaderEntry { file, tensor, got, expected: expected.into() }
}
