//! `fellrec config`: what is configured, from where, and what every key means.

use anyhow::Result;
use clap::{Args, Subcommand};
use fellrec::config::{KeyDoc, Origin, keys};

use super::output::{print, print_json, table};
use super::{ConfigArgs, ExitStatus};

/// Show, check and explain the configuration
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print every resolved value and where it came from
    Show(ShowArgs),
    /// Check the configuration without running anything
    Check(CheckArgs),
    /// Print every key with its meaning and default
    Keys(KeysArgs),
}

/// Arguments of `config show`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fellrec config show --config ml-1m --changed
  FELLREC__RUN__SEED=7 fellrec config show --json")]
pub struct ShowArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Shows only what differs from the defaults' layer
    #[arg(long)]
    changed: bool,
    /// Writes JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of `config check`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fellrec config check --config my.toml
  fellrec config check --config ml-1m --set split.k_front=2")]
pub struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Arguments of `config keys`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fellrec config keys
  fellrec config keys heating
  fellrec config keys split.k_front --json")]
pub struct KeysArgs {
    /// A section or a key [default: all]
    prefix: Option<String>,
    /// Writes JSON
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// A wrong configuration, or standard output cannot be written.
pub fn run(command: ConfigCommand) -> Result<ExitStatus> {
    match command {
        ConfigCommand::Show(args) => show(&args),
        ConfigCommand::Check(args) => check(&args),
        ConfigCommand::Keys(args) => explain(&args),
    }
}

fn show(args: &ShowArgs) -> Result<ExitStatus> {
    let mut entries = args.config.load()?.entries()?;
    entries.retain(|entry| !args.changed || entry.origin != Origin::Default);
    if args.json {
        print_json(&entries)?;
        return Ok(ExitStatus::Success);
    }
    let mut table = table(["key", "value", "from"]);
    for entry in &entries {
        table.add_row([entry.key.clone(), entry.value.to_string(), entry.origin.to_string()]);
    }
    print(&table.trim_fmt())?;
    Ok(ExitStatus::Success)
}

fn check(args: &CheckArgs) -> Result<ExitStatus> {
    let loaded = args.config.load()?;
    let changed = loaded.origins.values().filter(|origin| **origin != Origin::Default).count();
    let (keys, hash) = (loaded.origins.len(), loaded.config.hash()?);
    let source = args.config.source();
    print(&format!("ok: {source}, {changed} of {keys} keys set, configuration {}", &hash[..12]))?;
    Ok(ExitStatus::Success)
}

fn explain(args: &KeysArgs) -> Result<ExitStatus> {
    let wanted = |key: &KeyDoc| match &args.prefix {
        None => true,
        Some(prefix) => key.key == *prefix || key.key.starts_with(&format!("{prefix}.")),
    };
    let keys: Vec<_> = keys().into_iter().filter(wanted).collect();
    if keys.is_empty() {
        let prefix = args.prefix.as_deref().unwrap_or_default();
        eprintln!("error: no section and no key `{prefix}`, `fellrec config keys` lists all");
        return Ok(ExitStatus::Usage);
    }
    if args.json {
        print_json(&keys)?;
        return Ok(ExitStatus::Success);
    }
    let mut table = table(["key", "default", "meaning"]);
    for key in &keys {
        table.add_row([&key.key, &key.default, &key.doc]);
    }
    print(&table.trim_fmt())?;
    Ok(ExitStatus::Success)
}
