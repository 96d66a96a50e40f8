//! Arguments that several subcommands share.

use std::path::PathBuf;

use clap::{ArgAction, Args};
use fellrec::config::{
    ConfigError, ENVIRONMENT_PREFIX, Layers, Loaded, LoggingConfig, MethodLayer, Preset, Violation,
};
use tracing_subscriber::EnvFilter;

/// Where the configuration comes from.
#[derive(Clone, Debug, Args)]
pub struct ConfigArgs {
    /// A configuration file, or an embedded one by its name.
    #[arg(short, long, value_name = "FILE|PRESET", help = config_help())]
    pub config: Option<String>,
    /// Sets one key; may be given several times, later ones win
    #[arg(short, long, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
    /// Folder with the data set; short for --set data.path=DIR
    #[arg(short, long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

impl ConfigArgs {
    /// The layers these arguments and the process environment stand for.
    pub fn layers(&self) -> Layers {
        let env = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX))
            .map(|(name, value)| (name, value.to_string_lossy().into_owned()))
            .collect();
        let mut sets = self.set.clone();
        if let Some(folder) = &self.data {
            // Quoted: a folder may be called `1` or `true`.
            let folder = toml::Value::String(folder.display().to_string());
            sets.push(format!("data.path={folder}"));
        }
        Layers { file: self.config.clone(), env, sets, method: None }
    }

    /// Resolves and validates the configuration, log filters included.
    ///
    /// # Errors
    /// See [`Loaded::load`].
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        self.load_with(None)
    }

    /// As [`ConfigArgs::load`], with what a method of a study sets above all layers.
    ///
    /// # Errors
    /// See [`Loaded::load`].
    pub fn load_with(&self, method: Option<MethodLayer>) -> Result<Loaded, ConfigError> {
        let loaded = Loaded::load(&Layers { method, ..self.layers() })?;
        check_filters(&loaded)?;
        Ok(loaded)
    }

    /// What `--config` named, for messages.
    pub fn source(&self) -> String {
        match &self.config {
            None => "default".to_owned(),
            Some(name) if Preset::find(name).is_some() => format!("preset {name}"),
            Some(file) => file.clone(),
        }
    }
}

fn config_help() -> String {
    format!("Configuration file, or the name of a preset: {}", Preset::names())
}

/// How much is logged on the terminal.
#[derive(Clone, Copy, Debug, Args)]
pub struct Verbosity {
    /// Logs more: -v info, -vv debug, -vvv trace
    #[arg(short, long, action = ArgAction::Count, global = true, conflicts_with = "quiet")]
    verbose: u8,
    /// Logs errors only and shows no progress
    #[arg(short, long, global = true)]
    quiet: bool,
}

impl Verbosity {
    /// Whether progress and tables are unwanted.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// The same as arguments, for another process.
    #[cfg(feature = "nodes")]
    pub fn flags(&self) -> Vec<String> {
        let verbose = (self.verbose > 0).then(|| format!("-{}", "v".repeat(self.verbose.into())));
        verbose.into_iter().chain(self.quiet.then(|| "--quiet".to_owned())).collect()
    }

    /// The terminal's log filter: the command line's word, or else the configured one.
    pub fn filter(&self, logging: &LoggingConfig) -> String {
        match (self.quiet, self.verbose) {
            (true, _) => "error".to_owned(),
            (false, 0) => logging.terminal.clone(),
            (false, 1) => "info".to_owned(),
            (false, 2) => "debug".to_owned(),
            (false, _) => "trace".to_owned(),
        }
    }
}

/// The domain crate does not know the filter syntax, so it is checked here, with the same kind of error.
fn check_filters(loaded: &Loaded) -> Result<(), ConfigError> {
    let logging = &loaded.config.logging;
    let filters = [("logging.terminal", &logging.terminal), ("logging.file", &logging.file)];
    let violations: Vec<_> = filters
        .into_iter()
        .filter_map(|(key, value)| {
            let error = EnvFilter::try_new(value).err()?;
            let origin = loaded.origins.get(key).cloned();
            let rule = format!("must be a tracing filter such as \"info\": {error}");
            Some(Violation { key: key.to_owned(), value: format!("{value:?}"), rule, origin })
        })
        .collect();
    if violations.is_empty() {
        return Ok(());
    }
    Err(ConfigError::Invalid { violations })
}
