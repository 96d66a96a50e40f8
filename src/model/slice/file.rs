//! Slices as safetensors files.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use tch::{Kind, TchError, Tensor};
use thiserror::Error;

use super::{NamedTensor, Slice};
use crate::model::packed::with_raw_bytes;

/// Bytes of the field that starts a safetensors file: the length of its header, little-endian.
const LENGTH_FIELD: u64 = 8;

/// Why a slice could not be written to or read from a file.
#[derive(Debug, Error)]
pub enum SliceFileError {
    /// The file system refused.
    #[error("failed to access slice file {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file promises more than it holds: cut short, or no safetensors file at all.
    #[error(
        "slice file {path} is truncated or no safetensors file: its header claims {got} bytes, \
         expected at most {expected}"
    )]
    HeaderLength {
        /// The file.
        path: PathBuf,
        /// Length that the first field claims.
        got: u64,
        /// Bytes that follow that field.
        expected: u64,
    },
    /// The bytes are not a valid safetensors file.
    #[error("slice file {path} is truncated or no safetensors file")]
    Format {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: SafeTensorError,
    },
    /// A tensor of the file has a type or shape that libtorch does not hold.
    #[error("tensor {name} of slice file {path} cannot be held by libtorch")]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What libtorch said.
        source: TchError,
    },
}

impl Slice {
    /// Writes a safetensors file; a slice without tensors goes without its metadata. Waiting until it is on the disk is the commit's business.
    ///
    /// The header's key order is not fixed, so files of equal slices may differ; compare
    /// [`Slice::digest`]. The file appears in place: a commit writes into a folder that it renames.
    ///
    /// # Errors
    /// [`SliceFileError::Io`] and [`SliceFileError::Tensor`], naming the file.
    pub fn write(
        &self,
        path: &Path,
        metadata: &BTreeMap<String, String>,
    ) -> Result<(), SliceFileError> {
        let mut payloads = Vec::with_capacity(self.tensors.len());
        for named in &self.tensors {
            let dtype =
                dtype_of(named.tensor.kind()).map_err(|e| bad_tensor(path, &named.name, e))?;
            let shape: Vec<usize> = named.tensor.size().iter().map(|&dim| dim as usize).collect();
            payloads.push((
                named.name.as_str(),
                dtype,
                shape,
                with_raw_bytes(&named.tensor, <[u8]>::to_vec),
            ));
        }
        let mut views = Vec::with_capacity(payloads.len());
        for (name, dtype, shape, bytes) in &payloads {
            let view =
                TensorView::new(*dtype, shape.clone(), bytes).map_err(|e| bad_format(path, e))?;
            views.push((*name, view));
        }
        // The library writes no valid header for metadata without a tensor.
        let metadata = Some(metadata).filter(|metadata| !views.is_empty() && !metadata.is_empty());
        let metadata: Option<HashMap<_, _>> = metadata.map(|m| m.clone().into_iter().collect());
        safetensors::serialize_to_file(views, metadata, path).map_err(|e| bad_format(path, e))
    }

    /// Reads a file that [`Slice::write`] wrote, onto the CPU.
    ///
    /// # Errors
    /// Any byte sequence that is no such file is an error that names the file, never a panic.
    pub fn read(path: &Path) -> Result<Self, SliceFileError> {
        let bytes = read_checked(path)?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| bad_format(path, e))?;
        let mut tensors = Vec::with_capacity(file.len());
        for (name, view) in file.iter() {
            let tensor = tensor_of(&view).map_err(|e| bad_tensor(path, name, e))?;
            tensors.push(NamedTensor::new(name, tensor));
        }
        Ok(Self::new(tensors))
    }
}

/// Reads the file after a look at its first field, so that garbage costs no memory.
fn read_checked(path: &Path) -> Result<Vec<u8>, SliceFileError> {
    let mut file = File::open(path).map_err(|e| bad_io(path, e))?;
    let length = file.metadata().map_err(|e| bad_io(path, e))?.len();
    let mut field = [0; LENGTH_FIELD as usize];
    file.read_exact(&mut field).map_err(|e| bad_io(path, e))?;
    let (got, expected) = (u64::from_le_bytes(field), length.saturating_sub(LENGTH_FIELD));
    if got > expected {
        return Err(SliceFileError::HeaderLength { path: path.to_owned(), got, expected });
    }
    let mut bytes = field.to_vec();
    file.read_to_end(&mut bytes).map_err(|e| bad_io(path, e))?;
    Ok(bytes)
}

/// Number types that train, in both libraries' names.
const DTYPES: [(Kind, Dtype); 4] = [
    (Kind::Float, Dtype::F32),
    (Kind::Double, Dtype::F64),
    (Kind::BFloat16, Dtype::BF16),
    (Kind::Half, Dtype::F16),
];

fn dtype_of(kind: Kind) -> Result<Dtype, TchError> {
    let known = DTYPES.iter().find(|(ours, _)| *ours == kind).map(|(_, dtype)| *dtype);
    known.ok_or_else(|| TchError::Convert(format!("type {kind:?} does not train")))
}

fn kind_of(dtype: Dtype) -> Result<Kind, TchError> {
    let known = DTYPES.iter().find(|(_, theirs)| *theirs == dtype).map(|(kind, _)| *kind);
    known.ok_or_else(|| TchError::Convert(format!("type {dtype:?} does not train")))
}

fn tensor_of(view: &TensorView<'_>) -> Result<Tensor, TchError> {
    let kind = kind_of(view.dtype())?;
    let shape: Result<Vec<i64>, _> = view.shape().iter().map(|&dim| i64::try_from(dim)).collect();
    let shape = shape.map_err(|e| TchError::Convert(format!("shape {:?}: {e}", view.shape())))?;
    Tensor::f_from_data_size(view.data(), &shape, kind)
}

fn bad_io(path: &Path, source: io::Error) -> SliceFileError {
    SliceFileError::Io { path: path.to_owned(), source }
}

fn bad_format(path: &Path, error: SafeTensorError) -> SliceFileError {
    match error {
        SafeTensorError::IoError(source) => bad_io(path, source),
        source => SliceFileError::Format { path: path.to_owned(), source },
    }
}

fn bad_tensor(path: &Path, name: &str, source: TchError) -> SliceFileError {
    SliceFileError::Tensor { path: path.to_owned(), name: name.to_owned(), source }
}
