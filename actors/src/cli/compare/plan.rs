//! All cells of a study with their configurations, and how far each has come.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use fellrec::config::{Config, ConfigError, Loaded, OrNone, Origin};
use fellrec::report::{History, ReportError};
use fellrec::study::{Method, MethodError, select};
use thiserror::Error;

use super::CompareArgs;
use crate::folder::RunFolder;

/// Method that gains are over unless another one is named.
const BASELINE: &str = "fedavg";

/// Why there is no study.
#[derive(Debug, Error)]
pub enum PlanError {
    /// The methods are wrong.
    #[error(transparent)]
    Method(#[from] MethodError),
    /// A method's configuration is wrong.
    #[error("the configuration of method `{method}` was refused")]
    Config {
        /// Whose.
        method: String,
        /// What is wrong.
        source: Box<ConfigError>,
    },
    /// A seed would be run twice.
    #[error("seed {seed} is given twice, expected different seeds")]
    SeedTwice {
        /// The seed.
        seed: u64,
    },
    /// There is nothing to take gains over.
    #[error("--baseline {name} is not among the methods: {methods}")]
    NoBaseline {
        /// What was given.
        name: String,
        /// The study's methods.
        methods: String,
    },
    /// A run was begun with another configuration.
    #[error(
        "{path} was begun with another configuration: {differences}; nothing is overwritten: give \
         another --out, or remove that folder"
    )]
    Differs {
        /// The run folder.
        path: PathBuf,
        /// Keys with both values.
        differences: String,
    },
}

/// A study before it runs.
pub struct Plan {
    /// The methods, in the order given.
    pub methods: Vec<Method>,
    /// The seeds, in the order given.
    pub seeds: Vec<u64>,
    /// Method that gains are over.
    pub baseline: Option<String>,
    /// Seed by seed, so that an early look at a study compares all methods.
    pub cells: Vec<Cell>,
}

/// One method under one seed: a run.
pub struct Cell {
    /// Name of the method.
    pub method: String,
    /// Seed.
    pub seed: u64,
    /// Resolved configuration.
    pub config: Config,
    /// Where the run is kept.
    pub folder: RunFolder,
}

/// How far a cell has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CellState {
    /// There is no run yet.
    New,
    /// There is a run that goes on from its last commit.
    Begun,
    /// All rounds are done and tested.
    Finished,
}

impl fmt::Display for CellState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CellState::New => "new",
            CellState::Begun => "goes on from its last commit",
            CellState::Finished => "finished",
        })
    }
}

impl Plan {
    /// Resolves every cell's configuration; nothing is written.
    ///
    /// # Errors
    /// Any method, seed, key or value that is wrong.
    pub fn new(args: &CompareArgs, out: &Path) -> Result<Self, PlanError> {
        let methods = select(&args.methods)?;
        let baseline = baseline(args.baseline.as_deref(), &methods)?;
        let mut seen = BTreeSet::new();
        for &seed in &args.seeds {
            if !seen.insert(seed) {
                return Err(PlanError::SeedTwice { seed });
            }
        }
        let mut configs = Vec::new();
        for method in &methods {
            let refused = |source| PlanError::Config {
                method: method.name.clone(),
                source: Box::new(source),
            };
            let loaded = args.config.load_with(Some(method.layer.clone())).map_err(refused)?;
            configs.push((method, cell_config(loaded)));
        }
        let cell = |seed: u64, (method, config): &(&Method, Config)| {
            let mut config = config.clone();
            config.run.seed = seed;
            let path = out.join("runs").join(method.folder()).join(format!("seed-{seed}"));
            Cell { method: method.name.clone(), seed, config, folder: RunFolder::new(path) }
        };
        let of_seed = |&seed: &u64| configs.iter().map(move |method| cell(seed, method));
        let cells = args.seeds.iter().flat_map(of_seed).collect();
        Ok(Self { methods, seeds: args.seeds.clone(), baseline, cells })
    }
}

/// What all cells have in common, whatever is configured: a thread each and the ranks of their users.
/// Only the newest commit is kept and no write waits for the disk, unless the user says otherwise: a
/// power cut costs a cell, which a study can begin anew.
fn cell_config(loaded: Loaded) -> Config {
    let Loaded { mut config, origins } = loaded;
    let is_default = |key: &str| origins.get(key) == Some(&Origin::Default);
    config.runtime.compute_threads = OrNone::Some(NonZeroU32::MIN);
    config.evaluation.keep_ranks = true;
    if is_default("checkpoint.keep") {
        config.checkpoint.keep = NonZeroU64::MIN;
    }
    if is_default("checkpoint.fsync") {
        config.checkpoint.fsync = false;
    }
    config
}

fn baseline(asked: Option<&str>, methods: &[Method]) -> Result<Option<String>, PlanError> {
    let name = asked.unwrap_or(BASELINE);
    let is_there = methods.iter().any(|method| method.name == name);
    if asked.is_some() && !is_there {
        let methods = methods.iter().map(|method| method.name.as_str()).collect::<Vec<_>>();
        return Err(PlanError::NoBaseline { name: name.to_owned(), methods: methods.join(", ") });
    }
    Ok(is_there.then(|| name.to_owned()))
}

impl Cell {
    /// Name for messages.
    pub fn name(&self) -> String {
        format!("{} seed {}", self.method, self.seed)
    }

    /// How far the cell has come.
    ///
    /// # Errors
    /// A run with another configuration, or one whose files cannot be read.
    pub fn state(&self) -> Result<CellState> {
        let path = self.folder.config();
        if !path.exists() {
            return Ok(CellState::New);
        }
        let text = fs::read_to_string(&path)
            .with_context(|| format!("failed to read {}", path.display()))?;
        let stored = Config::from_toml(&text, &path)?;
        let differences = stored.differences(&self.config)?;
        if !differences.is_empty() {
            let (path, differences) = (self.folder.root().to_owned(), differences.join(", "));
            return Err(PlanError::Differs { path, differences }.into());
        }
        let history = self.history()?;
        let is_finished = history
            .and_then(|history| history.finish)
            .is_some_and(|finish| finish.outcome.is_complete());
        Ok(if is_finished { CellState::Finished } else { CellState::Begun })
    }

    /// What the run wrote so far; `None` before its first event.
    ///
    /// # Errors
    /// A broken event log.
    pub fn history(&self) -> Result<Option<History>, ReportError> {
        let path = self.folder.events();
        if !path.exists() {
            return Ok(None);
        }
        match History::read(&path) {
            Err(ReportError::NoStart { .. }) => Ok(None),
            history => history.map(Some),
        }
    }
}
