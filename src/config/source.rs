//! One layer of configuration: keys, values, and where each was written.

use config::{Map, Source, Value, ValueKind};
use serde::Serialize;
use std::fmt;
use toml_edit::{Document, Item, TableLike, Value as TomlValue};

use super::ConfigError;

/// Where a value was set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "layer", rename_all = "kebab-case")]
pub enum Origin {
    /// `configs/default.toml`, embedded.
    Default,
    /// An embedded preset.
    Preset {
        /// Its name.
        name: String,
        /// Line, from 1.
        line: usize,
    },
    /// The user's file.
    File {
        /// Path as given.
        path: String,
        /// Line, from 1.
        line: usize,
    },
    /// An environment variable.
    Environment {
        /// Its name.
        variable: String,
    },
    /// The command line.
    Argument {
        /// What followed `--set`.
        argument: String,
    },
    /// A method of a study.
    Method {
        /// Its name.
        name: String,
        /// What it sets.
        argument: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::Preset { name, line } => write!(f, "preset {name}:{line}"),
            Origin::File { path, line } => write!(f, "{path}:{line}"),
            Origin::Environment { variable } => write!(f, "environment {variable}"),
            Origin::Argument { argument } => write!(f, "--set {argument}"),
            Origin::Method { name, argument } => write!(f, "method {name}, {argument}"),
        }
    }
}

/// A text that is parsed as one layer.
#[derive(Clone, Copy, Debug)]
pub(super) enum TextKind<'a> {
    Default,
    Preset(&'a str),
    File(&'a str),
}

impl TextKind<'_> {
    fn at(self, line: usize) -> Origin {
        match self {
            TextKind::Default => Origin::Default,
            TextKind::Preset(name) => Origin::Preset { name: name.into(), line },
            TextKind::File(path) => Origin::File { path: path.into(), line },
        }
    }

    fn name(self) -> String {
        match self {
            TextKind::Default => "default.toml".into(),
            TextKind::Preset(name) => format!("preset {name}"),
            TextKind::File(path) => path.into(),
        }
    }
}

/// A key and its value. Tables are followed down; a list is one value.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    pub key: String,
    pub kind: ValueKind,
    pub origin: Origin,
}

/// The leaves of one file, of the environment, or of the command line.
#[derive(Clone, Debug)]
pub(super) struct Layer(pub Vec<Leaf>);

impl Layer {
    /// Parses a TOML file.
    pub fn from_toml(text: &str, kind: TextKind<'_>) -> Result<Self, ConfigError> {
        let document = Document::parse(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            ConfigError::Syntax {
                file: kind.name(),
                line: line_of(text, start),
                column: start - text[..start].rfind('\n').map_or(0, |newline| newline + 1) + 1,
                reason: error.message().to_owned(),
            }
        })?;
        let mut leaves = Vec::new();
        let origin = |start| kind.at(line_of(text, start));
        collect(document.as_table(), "", &origin, &mut leaves);
        Ok(Self(leaves))
    }

    /// Takes the variables that start with `FELLREC__`; their values are read as TOML, or else as text.
    pub fn from_environment(variables: &[(String, String)]) -> Self {
        let mut leaves: Vec<_> = variables
            .iter()
            .filter_map(|(variable, value)| {
                let path = variable.strip_prefix(super::ENVIRONMENT_PREFIX)?;
                let key = path.to_lowercase().replace("__", ".");
                let origin = Origin::Environment { variable: variable.clone() };
                Some(Leaf { key, kind: parse_value(value), origin })
            })
            .collect();
        // The system lists variables in no order; the first error reported should still be the same one.
        leaves.sort_by(|a, b| a.key.cmp(&b.key));
        Self(leaves)
    }

    /// Takes `section.key=value` arguments; values are read as TOML, or else as text.
    pub fn from_arguments(arguments: &[String]) -> Result<Self, ConfigError> {
        Self::from_sets(arguments, |argument| Origin::Argument { argument })
    }

    /// As [`Layer::from_arguments`], for what a method sets.
    pub fn from_method(name: &str, sets: &[String]) -> Result<Self, ConfigError> {
        Self::from_sets(sets, |argument| Origin::Method { name: name.to_owned(), argument })
    }

    fn from_sets(
        arguments: &[String],
        origin: impl Fn(String) -> Origin,
    ) -> Result<Self, ConfigError> {
        let mut leaves = Vec::new();
        for argument in arguments {
            let (key, value) = argument
                .split_once('=')
                .ok_or_else(|| ConfigError::NoAssignment { argument: argument.clone() })?;
            let origin = origin(argument.clone());
            let key = key.trim().to_owned();
            leaves.push(Leaf { key, kind: parse_value(value), origin });
        }
        Ok(Self(leaves))
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        let value = |leaf: &Leaf| Value::new(Some(&leaf.origin.to_string()), leaf.kind.clone());
        Ok(self.0.iter().map(|leaf| (leaf.key.clone(), value(leaf))).collect())
    }
}

fn collect(
    table: &dyn TableLike,
    parent: &str,
    origin: &dyn Fn(usize) -> Origin,
    leaves: &mut Vec<Leaf>,
) {
    for (name, item) in table.iter() {
        let key = if parent.is_empty() { name.to_owned() } else { format!("{parent}.{name}") };
        match item.as_table_like() {
            Some(table) if !table.is_empty() => collect(table, &key, origin, leaves),
            // An empty table is kept so that a misspelt section is noticed.
            _ => {
                let start = item.span().map_or(0, |span| span.start);
                leaves.push(Leaf { key, kind: kind_of_item(item), origin: origin(start) });
            }
        }
    }
}

fn line_of(text: &str, start: usize) -> usize {
    1 + text[..start].matches('\n').count()
}

fn parse_value(text: &str) -> ValueKind {
    match text.trim().parse::<TomlValue>() {
        Ok(value) => kind_of(&value),
        Err(_) => ValueKind::String(text.to_owned()),
    }
}

fn kind_of_item(item: &Item) -> ValueKind {
    match item.clone().into_value() {
        Ok(value) => kind_of(&value),
        Err(_) => ValueKind::Nil,
    }
}

fn kind_of(value: &TomlValue) -> ValueKind {
    let nested = |value: &TomlValue| Value::new(None, kind_of(value));
    match value {
        TomlValue::String(text) => ValueKind::String(text.value().clone()),
        TomlValue::Integer(number) => ValueKind::I64(*number.value()),
        TomlValue::Float(number) => ValueKind::Float(*number.value()),
        TomlValue::Boolean(flag) => ValueKind::Boolean(*flag.value()),
        // No key holds a date: a folder called 2024-01-01 is a name.
        TomlValue::Datetime(date) => ValueKind::String(date.value().to_string()),
        TomlValue::Array(values) => ValueKind::Array(values.iter().map(nested).collect()),
        TomlValue::InlineTable(table) => ValueKind::Table(
            table.iter().map(|(key, value)| (key.to_owned(), nested(value))).collect(),
        ),
    }
}
