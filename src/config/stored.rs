//! A resolved configuration as it is stored with a run, and the hash that names it.

use sha2::{Digest, Sha256};

use super::{Config, ConfigError, OrNone};

impl Config {
    /// All keys with their resolved values. [`Config::from_toml`] reads the same configuration back.
    ///
    /// # Errors
    /// A path that is not UTF-8.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        Ok(toml::to_string_pretty(self)?)
    }

    /// SHA-256 of the canonical form, in hexadecimal: part of a run's fingerprint (protocol.md 6).
    ///
    /// Where files lie and what is logged does not change a result, so `run.out`, `data.path` and `logging`
    /// do not count: nodes that keep the same data in different folders agree.
    ///
    /// # Errors
    /// A path that is not UTF-8.
    pub fn hash(&self) -> Result<String, ConfigError> {
        let mut canonical = self.clone();
        canonical.run.out.clear();
        canonical.data.path = OrNone::None;
        canonical.logging.terminal.clear();
        canonical.logging.file.clear();
        let digest = Sha256::digest(canonical.to_toml()?);
        Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}
