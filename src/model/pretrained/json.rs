//! A JSON object of a Hugging Face folder, with errors that name file, key, value and what would do.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::error::PretrainedError;

/// Largest dimension believed: products of two of them still fit into an `i64`.
const MAX_DIMENSION: i64 = i32::MAX as i64;
/// Longest part of a value that an error message repeats, in characters.
const QUOTED_CHARS: usize = 60;

/// A file, or an object within it. A key whose value is `null` counts as absent, as in transformers.
#[derive(Clone, Debug)]
pub(super) struct JsonObject {
    file: PathBuf,
    /// Keys around this object, each followed by a full stop.
    prefix: String,
    map: Map<String, Value>,
}

impl JsonObject {
    /// The object that a file of `folder` consists of, if the file is there.
    pub(super) fn read(folder: &Path, name: &str) -> Result<Option<Self>, PretrainedError> {
        let file = folder.join(name);
        let bytes = match fs::read(&file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(PretrainedError::io(&file, error)),
        };
        match serde_json::from_slice(&bytes) {
            Ok(map) => Ok(Some(Self { file, prefix: String::new(), map })),
            Err(source) => Err(PretrainedError::Json { file, source }),
        }
    }

    /// Keys and values in the order of the file.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.map.iter()
    }

    /// The value of a key.
    pub(super) fn value(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// An object below a key.
    pub(super) fn object(&self, key: &str) -> Result<Option<Self>, PretrainedError> {
        let within = |map: &Map<String, Value>| Self {
            file: self.file.clone(),
            prefix: format!("{}{key}.", self.prefix),
            map: map.clone(),
        };
        self.typed(key, "an object", |value| value.as_object().map(within))
    }

    /// A string.
    pub(super) fn text(&self, key: &str) -> Result<Option<&str>, PretrainedError> {
        self.typed(key, "a string", Value::as_str)
    }

    /// A boolean; `false` where absent.
    pub(super) fn flag(&self, key: &str) -> Result<bool, PretrainedError> {
        Ok(self.typed(key, "true or false", Value::as_bool)?.unwrap_or(false))
    }

    /// A count of something that there is at least one of.
    pub(super) fn dimension(&self, key: &str) -> Result<Option<i64>, PretrainedError> {
        let expected = format!("a whole number in 1..={MAX_DIMENSION}");
        let within = |number: &i64| (1..=MAX_DIMENSION).contains(number);
        self.typed(key, &expected, |value| value.as_i64().filter(within))
    }

    /// A finite number above 0.
    pub(super) fn positive(&self, key: &str) -> Result<Option<f64>, PretrainedError> {
        let within = |number: &f64| number.is_finite() && *number > 0.0;
        self.typed(key, "a finite number above 0", |value| value.as_f64().filter(within))
    }

    /// A number in 0..1.
    pub(super) fn fraction(&self, key: &str) -> Result<Option<f64>, PretrainedError> {
        let within = |number: &f64| (0.0..1.0).contains(number);
        self.typed(key, "a number in 0..1", |value| value.as_f64().filter(within))
    }

    /// A token id below `vocab`. transformers writes "none" as `null`, and once wrote it as -1.
    pub(super) fn token(&self, key: &str, vocab: i64) -> Result<Option<i64>, PretrainedError> {
        let read = |value: &Value| value.as_i64().filter(|id| *id < vocab);
        Ok(self.typed(key, &format!("a token id below {vocab}"), read)?.filter(|id| *id >= 0))
    }

    /// Token ids below `vocab`: one or a list.
    pub(super) fn tokens(&self, key: &str, vocab: i64) -> Result<Vec<i64>, PretrainedError> {
        let Some(Value::Array(list)) = self.value(key) else {
            return Ok(self.token(key, vocab)?.into_iter().collect());
        };
        let read = |value: &Value| value.as_i64().filter(|id| (0..vocab).contains(id));
        let ids: Option<Vec<i64>> = list.iter().map(read).collect();
        ids.ok_or_else(|| self.wrong(key, format!("token ids below {vocab}")))
    }

    /// Insists that a key is there.
    pub(super) fn required<T>(&self, key: &str, value: Option<T>) -> Result<T, PretrainedError> {
        value.ok_or_else(|| self.wrong(key, "a value"))
    }

    /// Insists that what these keys switch on is off: each absent, `false`, or empty.
    pub(super) fn inactive(&self, keys: &[&str]) -> Result<(), PretrainedError> {
        let off = |value: &Value| match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        match keys.iter().find(|key| !self.map.get(**key).is_none_or(off)) {
            Some(key) => Err(self.wrong(key, "none, which is all that is supported")),
            None => Ok(()),
        }
    }

    /// The error of a key whose value is not what was expected.
    pub(super) fn wrong(&self, key: &str, expected: impl Into<String>) -> PretrainedError {
        let got = match self.map.get(key) {
            Some(value) => value.to_string().chars().take(QUOTED_CHARS).collect(),
            None => "nothing".to_owned(),
        };
        PretrainedError::Key {
            file: self.file.clone(),
            key: format!("{}{key}", self.prefix),
            got,
            expected: expected.into(),
        }
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, PretrainedError> {
        match self.value(key) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| self.wrong(key, expected)),
        }
    }
}
