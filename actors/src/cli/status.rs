//! `fellrec status`: how a run over nodes stands.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use fellrec::config::{Layers, Loaded};
use rand::TryRngCore;
use rand::rngs::OsRng;

use super::output::print_json;
use super::{ExitStatus, print};
use crate::messages::RunStatus;
use crate::node::{Kit, status};

const EXAMPLES: &str = "\
Examples:
  fellrec status --kit fed/kits/operator
  fellrec status --kit runs/up/federation/kits/operator --json";

/// Show how a run over nodes stands, and who is there
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct StatusArgs {
    /// The operator's kit
    #[arg(short, long, value_name = "DIR")]
    pub kit: PathBuf,
    /// Writes JSON
    #[arg(long)]
    pub json: bool,
}

/// Asks the supervisor.
///
/// # Errors
/// A wrong kit, no broker, no supervisor.
pub fn run(args: &StatusArgs) -> Result<ExitStatus> {
    let kit = Kit::read(&args.kit)?;
    let config = Loaded::load(&Layers::default())?.config;
    let life = OsRng.try_next_u64().context("the system gives no random numbers")?;
    let status =
        actix::System::new().block_on(async { status(&kit, &config.nodes, life).await })?;
    match args.json {
        true => print_json(&status)?,
        false => print(&text(&kit, &status))?,
    }
    Ok(ExitStatus::Success)
}

fn text(kit: &Kit, status: &RunStatus) -> String {
    let RunStatus { committed, rounds, phase, working, heard_secs, restarts } = status;
    let working: Vec<String> = working.iter().map(|client| client.to_string()).collect();
    let working = if working.is_empty() { "nobody".to_owned() } else { working.join(", ") };
    let mut text = format!(
        "run         {}: {committed} of {rounds} rounds committed, {phase}\n\
         at work     {working}\nrestarts    {restarts}\nmembers     ",
        kit.run
    );
    let lines: Vec<String> =
        heard_secs.iter().map(|(name, ago)| format!("{name:<14}{ago:.1} s ago")).collect();
    text.push_str(&lines.join("\n            "));
    text
}
