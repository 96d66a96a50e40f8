//! Embeddings of the catalogue on disk, so that a run computes them once.
//!
//! Nothing secret: the catalogue is public, and the base model is.

use std::fs;
use std::path::{Path, PathBuf};

use tch::Tensor;

use crate::model::slice::{Digest, NamedTensor, Slice, SliceFileError};

const NAME: &str = "embeddings";

/// A folder with embeddings by the digest of what they were made of.
#[derive(Clone, Debug)]
pub struct EmbeddingCache {
    folder: PathBuf,
}

impl EmbeddingCache {
    /// A cache in `folder`, made when first written to.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Embeddings `[V, D]` of this digest and shape. A file that is not whole is as good as none.
    pub fn get(&self, key: &Digest, shape: [i64; 2]) -> Option<Tensor> {
        let path = self.path(key);
        if !path.exists() {
            return None;
        }
        match Slice::read(&path) {
            Ok(slice) => {
                slice.get(NAME).filter(|held| held.size() == shape).map(Tensor::shallow_clone)
            }
            Err(error) => {
                tracing::warn!(%error, "cached embeddings are computed again");
                None
            }
        }
    }

    /// Keeps embeddings. `writer` tells those apart who write at the same time: each has a file of its
    /// own until it is whole.
    ///
    /// # Errors
    /// The file could not be written.
    pub fn put(
        &self,
        key: &Digest,
        embeddings: &Tensor,
        writer: &str,
    ) -> Result<(), SliceFileError> {
        let (path, partial) = (self.path(key), self.folder.join(format!("{key}.{writer}.partial")));
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| SliceFileError::Io { path, source }
        };
        fs::create_dir_all(&self.folder).map_err(failed(&self.folder))?;
        let slice = Slice::new(vec![NamedTensor::new(NAME, embeddings.shallow_clone())]);
        slice.write(&partial, &Default::default())?;
        fs::rename(&partial, &path).map_err(failed(&path))
    }

    fn path(&self, key: &Digest) -> PathBuf {
        self.folder.join(format!("{key}.safetensors"))
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn what_is_put_is_got_and_what_is_torn_is_not() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let cache = EmbeddingCache::new(folder.path().join("embeddings"));
        let key = Digest::of(b"catalogue");
        let embeddings = Tensor::arange(6, (Kind::Float, Device::Cpu)).view([3, 2]);
        assert!(cache.get(&key, [3, 2]).is_none());
        cache.put(&key, &embeddings, "client-0").expect("writable");
        assert_eq!(cache.get(&key, [3, 2]), Some(embeddings));
        assert!(cache.get(&key, [2, 3]).is_none(), "another catalogue or model");
        assert!(cache.get(&Digest::of(b"other"), [3, 2]).is_none());
        let bytes = fs::read(cache.path(&key)).expect("it is there");
        fs::write(cache.path(&key), &bytes[..bytes.len() - 1]).expect("writable");
        assert!(cache.get(&key, [3, 2]).is_none(), "torn");
    }
}
