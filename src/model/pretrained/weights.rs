//! The tensors of one or several mapped files by this project's names, read one at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use safetensors::Dtype;
use sha2::{Digest as _, Sha256};
use tch::{Device, Kind, TchError, Tensor};

use super::error::{PretrainedError, TensorProblem};
use super::mapped::{MappedFile, StoredTensor};
use crate::model::spec::{Init, TensorSpec};

/// Mapped files and what is where in them.
#[derive(Debug)]
pub(super) struct Weights {
    files: Vec<MappedFile>,
    /// Where a missing tensor was looked for.
    home: PathBuf,
    places: BTreeMap<String, Place>,
    /// Names of the tensors whose numbers have been handed out.
    read: Mutex<BTreeSet<String>>,
}

/// A file and the name that it gives the tensor.
#[derive(Debug)]
struct Place {
    file: usize,
    stored: String,
}

impl Weights {
    /// `ours` translates stored names; tensors without one of ours are left out.
    pub(super) fn new(
        files: Vec<MappedFile>,
        home: PathBuf,
        ours: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, PretrainedError> {
        let mut places: BTreeMap<String, Place> = BTreeMap::new();
        for (file, mapped) in files.iter().enumerate() {
            for stored in mapped.tensors.keys() {
                let Some(tensor) = ours(stored) else { continue };
                if let Some(other) = places.get(&tensor) {
                    let (first, second) = (files[other.file].path.clone(), mapped.path.clone());
                    return Err(PretrainedError::Duplicate { tensor, first, second });
                }
                places.insert(tensor, Place { file, stored: stored.clone() });
            }
        }
        Ok(Self { files, home, places, read: Mutex::default() })
    }

    /// Shape of a tensor, if it is there.
    pub(super) fn shape(&self, name: &str) -> Option<&[i64]> {
        Some(&self.stored(self.places.get(name)?).shape)
    }

    /// Number type of a tensor, if it is there and of one that can be read.
    pub(super) fn kind(&self, name: &str) -> Option<Kind> {
        kind_of(self.stored(self.places.get(name)?).dtype)
    }

    /// Number types of the tensors, by how many numbers are stored in them.
    pub(super) fn dtypes(&self) -> BTreeMap<String, u64> {
        let mut numbers = BTreeMap::new();
        for place in self.places.values() {
            let stored = self.stored(place);
            let count: i64 = stored.shape.iter().product();
            *numbers.entry(stored.dtype.to_string().to_lowercase()).or_default() += count as u64;
        }
        numbers
    }

    /// Compares all tensors with all those of the model.
    pub(super) fn check(&self, specs: &[TensorSpec]) -> Result<(), PretrainedError> {
        let wanted: BTreeSet<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        let extra = self.places.iter().filter(|(name, _)| !wanted.contains(name.as_str()));
        let extra = extra.map(|(_, place)| TensorProblem::Extra {
            file: self.files[place.file].path.clone(),
            tensor: place.stored.clone(),
        });
        let problems: Vec<_> = specs.iter().filter_map(|s| self.problem(s)).chain(extra).collect();
        if problems.is_empty() { Ok(()) } else { Err(PretrainedError::Tensors { problems }) }
    }

    /// Reads one tensor, after the same checks.
    pub(super) fn tensor(
        &self,
        spec: &TensorSpec,
        kind: Kind,
        device: Device,
    ) -> Result<Tensor, PretrainedError> {
        if let Some(problem) = self.problem(spec) {
            return Err(PretrainedError::Tensors { problems: vec![problem] });
        }
        let place = &self.places[&spec.name];
        let (file, stored) = (&self.files[place.file], self.stored(place));
        let bytes = file.bytes(stored)?;
        self.read.lock().unwrap_or_else(PoisonError::into_inner).insert(spec.name.clone());
        let stored_kind = kind_of(stored.dtype).expect("other types are a problem");
        load(bytes, &stored.shape, stored_kind, kind, device).map_err(|source| {
            let (file, tensor) = (file.path.clone(), spec.name.clone());
            PretrainedError::Torch { file, tensor, source }
        })
    }

    /// Names given to [`Weights::tensor`] so far, of tensors that are there and fit.
    pub(super) fn read(&self) -> BTreeSet<String> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Hashes names, types, shapes and bits in name order, whatever file they are in.
    pub(super) fn hash_into(&self, hasher: &mut Sha256) -> Result<(), PretrainedError> {
        hasher.update((self.places.len() as u64).to_le_bytes());
        for (name, place) in &self.places {
            let stored = self.stored(place);
            // Every field of unknown length is preceded by its length, so no two sets read alike.
            for text in [name.as_str(), &stored.dtype.to_string()] {
                hasher.update((text.len() as u64).to_le_bytes());
                hasher.update(text);
            }
            hasher.update((stored.shape.len() as u64).to_le_bytes());
            for dim in &stored.shape {
                hasher.update(dim.to_le_bytes());
            }
            hasher.update(self.files[place.file].bytes(stored)?);
        }
        Ok(())
    }

    /// The error of a tensor that should have another shape.
    pub(super) fn misshapen(&self, name: &str, expected: &[i64]) -> PretrainedError {
        let spec = TensorSpec::new(name, expected, Init::Zeros);
        PretrainedError::Tensors { problems: self.problem(&spec).into_iter().collect() }
    }

    fn problem(&self, spec: &TensorSpec) -> Option<TensorProblem> {
        let tensor = spec.name.clone();
        let Some(place) = self.places.get(&spec.name) else {
            return Some(TensorProblem::Missing { file: self.home.clone(), tensor });
        };
        let (file, stored) = (self.files[place.file].path.clone(), self.stored(place));
        if stored.shape != spec.shape {
            let (got, expected) = (stored.shape.clone(), spec.shape.clone());
            return Some(TensorProblem::Shape { file, tensor, got, expected });
        }
        match kind_of(stored.dtype) {
            Some(_) => None,
            None => Some(TensorProblem::Dtype { file, tensor, got: stored.dtype.to_string() }),
        }
    }

    fn stored(&self, place: &Place) -> &StoredTensor {
        &self.files[place.file].tensors[&place.stored]
    }
}

/// Number types of weights, in libtorch's terms.
fn kind_of(dtype: Dtype) -> Option<Kind> {
    match dtype {
        Dtype::F32 => Some(Kind::Float),
        Dtype::BF16 => Some(Kind::BFloat16),
        Dtype::F16 => Some(Kind::Half),
        _ => None,
    }
}

/// Copies `bytes`, which are as many as `shape` and `stored` take, out of the map.
fn load(
    bytes: &[u8],
    shape: &[i64],
    stored: Kind,
    kind: Kind,
    device: Device,
) -> Result<Tensor, TchError> {
    Tensor::f_from_data_size(bytes, shape, stored)?.f_to_kind(kind)?.f_to_device(device)
}
