//! A resolved configuration as it is shown, as it is stored with a run, and the hash that names it.

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{Config, ConfigError, KeyDoc, Loaded, OrNone, Origin, keys};

/// One resolved key.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// Full name, such as `model.hidden`.
    pub key: String,
    /// Resolved value.
    pub value: toml::Value,
    /// Where it was set.
    pub origin: Origin,
}

impl Loaded {
    /// Every key with its value and origin, in the order of `default.toml`.
    ///
    /// # Errors
    /// A path that is not UTF-8.
    pub fn entries(&self) -> Result<Vec<Entry>, ConfigError> {
        let tree = toml::Value::try_from(&self.config)?;
        let entry = |key: String| {
            let value = value(&tree, &key)?.clone();
            let origin = self.origins.get(&key)?.clone();
            Some(Entry { key, value, origin })
        };
        Ok(keys().into_iter().filter_map(|doc| entry(doc.key)).collect())
    }
}

impl Config {
    /// All keys with their resolved values. [`Config::from_toml`] reads the same configuration back.
    ///
    /// # Errors
    /// A path that is not UTF-8.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        Ok(toml::to_string_pretty(self)?)
    }

    /// Keys that differ and count for [`Config::hash`], each with both values.
    ///
    /// # Errors
    /// A path that is not UTF-8.
    pub fn differences(&self, other: &Self) -> Result<Vec<String>, ConfigError> {
        let (ours, theirs) = (self.canonical()?, other.canonical()?);
        let differing = keys().into_iter().filter_map(|KeyDoc { key, .. }| {
            let (was, is) = (value(&ours, &key)?, value(&theirs, &key)?);
            (was != is).then(|| format!("{key} was {was}, is {is}"))
        });
        Ok(differing.collect())
    }

    /// SHA-256 of the canonical form, in hexadecimal: part of a run's fingerprint (protocol.md 6).
    ///
    /// Where files lie, what is logged, how a base would be made and how messages travel does not change a
    /// run, so `run.out`, `data.path`, `logging`, `pretrain` and `nodes` do not count: nodes that keep the
    /// same data in different folders agree.
    ///
    /// # Errors
    /// A path that is not UTF-8.
    pub fn hash(&self) -> Result<String, ConfigError> {
        let digest = Sha256::digest(toml::to_string_pretty(&self.canonical()?)?);
        Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    fn canonical(&self) -> Result<toml::Value, ConfigError> {
        let mut canonical = self.clone();
        canonical.run.out.clear();
        canonical.data.path = OrNone::None;
        let mut tree = toml::Table::try_from(canonical)?;
        for section in ["logging", "pretrain", "nodes"] {
            tree.remove(section);
        }
        Ok(toml::Value::Table(tree))
    }
}

fn value<'a>(tree: &'a toml::Value, key: &str) -> Option<&'a toml::Value> {
    key.split('.').try_fold(tree, |node, name| node.get(name))
}
