//! Why a configuration was refused. Every message names the key, where it was set, and what was expected.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

use super::Origin;

/// Why a configuration was refused.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The name given with `--config` is no file and no preset.
    #[error("config `{name}` is neither a file nor a preset, presets are {presets}")]
    UnknownFile {
        /// What was given.
        name: String,
        /// Names of the embedded presets.
        presets: String,
    },

    /// A file exists but cannot be read.
    #[error("failed to read config file `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },

    /// A file is not TOML.
    #[error("{file}:{line}:{column}: not valid TOML: {reason}")]
    Syntax {
        /// File or preset.
        file: String,
        /// Line, from 1.
        line: usize,
        /// Column in bytes, from 1.
        column: usize,
        /// What the parser expected.
        reason: String,
    },

    /// A `--set` argument has no `=`.
    #[error("`--set {argument}` has no `=`, expected section.key=value")]
    NoAssignment {
        /// What was given.
        argument: String,
    },

    /// A key that does not exist.
    #[error("{origin}: unknown key `{key}`{}", did_you_mean(suggestion.as_deref()))]
    UnknownKey {
        /// The key as given.
        key: String,
        /// Where it was given.
        origin: Origin,
        /// The nearest key that exists.
        suggestion: Option<String>,
    },

    /// A section was given a value.
    #[error("{origin}: `{section}` is a section, expected one of its keys: {keys}")]
    NotAKey {
        /// The section.
        section: String,
        /// Where it was given.
        origin: Origin,
        /// Keys of the section.
        keys: String,
    },

    /// A value of the wrong type, or a word that the key does not know.
    #[error("{origin}: `{key}`: {reason}")]
    WrongType {
        /// The key, with an index inside a list.
        key: String,
        /// Where the value was set.
        origin: Origin,
        /// What was got and what was expected.
        reason: String,
    },

    /// A stored configuration that this build cannot read back.
    #[error("{file}: `{key}`: {reason}")]
    Stored {
        /// The file.
        file: String,
        /// The key, `.` where the whole file is meant.
        key: String,
        /// What was got and what was expected.
        reason: String,
    },

    /// Values of the right type that make no run. All of them are listed.
    #[error("{}", list(violations))]
    Invalid {
        /// Every rule that was broken.
        violations: Vec<Violation>,
    },

    /// The layers could not be merged.
    #[error("failed to merge the configuration layers")]
    Merge(#[from] config::ConfigError),

    /// The resolved values cannot be written as TOML, for instance a path that is not UTF-8.
    #[error("failed to write the configuration as TOML")]
    Serialize(#[from] toml::ser::Error),
}

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Key the user has to change.
    pub key: String,
    /// Its value.
    pub value: String,
    /// What a legal value satisfies.
    pub rule: String,
    /// Where the value was set; unknown for a `Config` that was built in code.
    pub origin: Option<Origin>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, rule, origin } = self;
        match origin {
            Some(origin) => write!(f, "{key} = {value} ({origin}): {rule}"),
            None => write!(f, "{key} = {value}: {rule}"),
        }
    }
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map(|key| format!(", did you mean `{key}`?")).unwrap_or_default()
}

fn list(violations: &[Violation]) -> String {
    let lines: Vec<_> = violations.iter().map(|violation| format!("\n  {violation}")).collect();
    format!("impossible configuration:{}", lines.concat())
}
