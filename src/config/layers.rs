//! Resolves the layers: default < file or preset < environment < `--set` < a method of a study.
//!
//! Merging is the `config` crate's. Its own deserialiser is forgiving (`"yes"` is a number to it), so the
//! merged tree is read by `toml`'s, which is not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use config::{Config as Merged, ValueKind};
use serde::de::DeserializeOwned;

use super::source::{Layer, Leaf, TextKind};
use super::{Config, ConfigError, DEFAULT_TOML, Origin, Preset};

/// What the layers above the default are made from. The environment is passed in, so a test needs no global state.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// Name of a preset, or path of a file; a preset wins, so that a name means the same everywhere.
    pub file: Option<String>,
    /// Environment variables; those without the prefix `FELLREC__` are left alone.
    pub env: Vec<(String, String)>,
    /// `section.key=value`, later ones win.
    pub sets: Vec<String>,
    /// Above all others.
    pub method: Option<MethodLayer>,
}

/// What a method of a study decides, whatever else is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MethodLayer {
    /// Name of the method, for messages.
    pub name: String,
    /// A file of differences.
    pub file: Option<PathBuf>,
    /// `section.key=value` above the file, later ones win.
    pub sets: Vec<String>,
}

/// A resolved and validated configuration that knows where each value came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// The layer that decided each key, by its full name (`model.hidden`).
    pub origins: BTreeMap<String, Origin>,
}

impl Loaded {
    /// Merges the layers, reads the result and validates it.
    ///
    /// # Errors
    /// A file that cannot be read, an unknown key, a wrong type, or every broken rule at once.
    pub fn load(layers: &Layers) -> Result<Self, ConfigError> {
        let default = Layer::from_toml(DEFAULT_TOML, TextKind::Default)?;
        let known: BTreeSet<String> = default.0.iter().map(|leaf| leaf.key.clone()).collect();

        let mut stack = vec![default];
        stack.extend(layers.file.as_deref().map(file_layer).transpose()?);
        stack.push(Layer::from_environment(&layers.env));
        stack.push(Layer::from_arguments(&layers.sets)?);
        if let Some(MethodLayer { name, file, sets }) = &layers.method {
            stack.extend(file.as_deref().map(read_file).transpose()?);
            stack.push(Layer::from_method(name, sets)?);
        }

        let mut merged = Merged::builder();
        let mut origins = BTreeMap::new();
        for mut layer in stack {
            layer.0.retain(|leaf| !is_empty_section(leaf, &known));
            for leaf in &layer.0 {
                check_key(leaf, &known)?;
                origins.insert(leaf.key.clone(), leaf.origin.clone());
            }
            merged = merged.add_source(layer);
        }
        let tree: toml::Value = merged.build()?.try_deserialize()?;

        let config: Config = read(tree).map_err(|Misread { key, reason }| {
            let origin = origin_of(&key, &origins).cloned().unwrap_or(Origin::Default);
            ConfigError::WrongType { key, origin, reason }
        })?;
        config.validate().map_err(|error| with_origins(error, &origins))?;
        Ok(Self { config, origins })
    }
}

impl Config {
    /// Reads back what [`Config::to_toml`] wrote: all keys, no layers. `file` is for messages.
    ///
    /// # Errors
    /// Bad TOML, a missing or unknown key, a wrong type, or every broken rule at once.
    pub fn from_toml(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let name = file.display().to_string();
        // Parsed as a layer first: its errors carry line and column.
        Layer::from_toml(text, TextKind::File(&name))?;
        let stored =
            |Misread { key, reason }| ConfigError::Stored { file: name.clone(), key, reason };
        let tree = toml::from_str(text)
            .map_err(|error| stored(Misread { key: ".".into(), reason: error.message().into() }))?;
        let config: Config = read(tree).map_err(stored)?;
        config.validate()?;
        Ok(config)
    }
}

struct Misread {
    key: String,
    reason: String,
}

fn read<T: DeserializeOwned>(tree: toml::Value) -> Result<T, Misread> {
    serde_path_to_error::deserialize(tree).map_err(|error| Misread {
        key: error.path().to_string(),
        reason: error.inner().message().to_owned(),
    })
}

fn file_layer(name: &str) -> Result<Layer, ConfigError> {
    if let Some(preset) = Preset::find(name) {
        return Layer::from_toml(preset.text, TextKind::Preset(name));
    }
    let path = Path::new(name);
    if !path.exists() {
        return Err(ConfigError::UnknownFile { name: name.into(), presets: Preset::names() });
    }
    read_file(path)
}

fn read_file(path: &Path) -> Result<Layer, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    Layer::from_toml(&text, TextKind::File(&path.display().to_string()))
}

fn is_section(key: &str, known: &BTreeSet<String>) -> bool {
    let prefix = format!("{key}.");
    known.iter().any(|candidate| candidate.starts_with(&prefix))
}

fn is_empty_section(leaf: &Leaf, known: &BTreeSet<String>) -> bool {
    matches!(leaf.kind, ValueKind::Table(_)) && is_section(&leaf.key, known)
}

fn check_key(leaf: &Leaf, known: &BTreeSet<String>) -> Result<(), ConfigError> {
    let Leaf { key, origin, .. } = leaf;
    if known.contains(key) {
        return Ok(());
    }
    if is_section(key, known) {
        let prefix = format!("{key}.");
        let keys: Vec<_> = known.iter().filter_map(|known| known.strip_prefix(&prefix)).collect();
        let (section, keys) = (key.clone(), keys.join(", "));
        return Err(ConfigError::NotAKey { section, origin: origin.clone(), keys });
    }
    let suggestion = nearest(key, known);
    Err(ConfigError::UnknownKey { key: key.clone(), origin: origin.clone(), suggestion })
}

/// The known key most like `key`, by its whole name or, when the section is wrong, by its last part.
fn nearest(key: &str, known: &BTreeSet<String>) -> Option<String> {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let likeness = |candidate: &str| {
        let whole = strsim::normalized_damerau_levenshtein(key, candidate);
        let part = strsim::normalized_damerau_levenshtein(&last(key), &last(candidate));
        // A right last part in a wrong section counts a little less than a small slip in the whole.
        whole.max(0.9 * part)
    };
    known
        .iter()
        .map(|candidate| (likeness(candidate), candidate))
        .filter(|(likeness, _)| *likeness >= 0.6)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate.clone())
}

/// Origin of a key, or of the list that an indexed key such as `evaluation.ks[1]` stands in.
fn origin_of<'a>(key: &str, origins: &'a BTreeMap<String, Origin>) -> Option<&'a Origin> {
    let list = key.split('[').next().unwrap_or(key);
    origins.get(list)
}

fn with_origins(error: ConfigError, origins: &BTreeMap<String, Origin>) -> ConfigError {
    let ConfigError::Invalid { mut violations } = error else { return error };
    for violation in &mut violations {
        violation.origin = origin_of(&violation.key, origins).cloned();
    }
    ConfigError::Invalid { violations }
}
