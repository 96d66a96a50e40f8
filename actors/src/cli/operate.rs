//! What an operator does with a run over nodes: `fellrec status`, `fellrec drain`, `fellrec tune`.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use fellrec::config::{Layers, Loaded};
use rand::TryRngCore;
use rand::rngs::OsRng;

use super::output::print_json;
use super::{ExitStatus, print, say};
use crate::link::carried::Carried;
use crate::messages::{AskStatus, Drain, RunStatus, TuneHeating};
use crate::node::{Kit, ask};
use crate::registry::MemberName;

/// Show how a run over nodes stands, and who is there
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fellrec status --kit fed/kits/operator
  fellrec status --kit runs/up/federation/kits/operator --json")]
pub struct StatusArgs {
    #[command(flatten)]
    kit: KitArgs,
    /// Writes JSON
    #[arg(long)]
    json: bool,
}

/// Send a member away: it finishes what the round needs of it, and its node ends
#[derive(Debug, Args)]
#[command(after_help = "\
A client has no part in the rounds that follow; a shard takes no new sessions and leaves once the next round trains elsewhere.
Started again, it is back.

Examples:
  fellrec drain shard-0-1 --kit fed/kits/operator
  fellrec drain client-3 --kit fed/kits/operator && fellrec status --kit fed/kits/operator")]
pub struct DrainArgs {
    /// client-N or shard-STAGE-REPLICA
    #[arg(value_name = "MEMBER")]
    member: String,
    #[command(flatten)]
    kit: KitArgs,
}

/// Change the heating of a run over nodes, from its next mix on
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fellrec tune --alpha 0.5 --beta 8 --kit fed/kits/operator")]
pub struct TuneArgs {
    /// Openness, as heating.alpha
    #[arg(long)]
    alpha: f64,
    /// Warm-up length, as heating.beta. Unit: rounds
    #[arg(long)]
    beta: f64,
    #[command(flatten)]
    kit: KitArgs,
}

/// Whose word it is.
#[derive(Debug, Args)]
struct KitArgs {
    /// The operator's kit
    #[arg(short, long, value_name = "DIR")]
    kit: PathBuf,
}

impl KitArgs {
    /// What the supervisor says, and the kit that it was asked with.
    fn ask<M: Carried>(&self, question: &M) -> Result<(Kit, M::Result)> {
        let kit = Kit::read(&self.kit)?;
        if kit.member != MemberName::Operator {
            return Err(anyhow!(
                "{}: the kit is {}'s, expected the operator's",
                self.kit.display(),
                kit.member
            ));
        }
        let config = Loaded::load(&Layers::default())?.config;
        let life = OsRng.try_next_u64().context("the system gives no random numbers")?;
        let asked = async { ask(&kit, &config.nodes, life, question).await };
        let answer = actix::System::new().block_on(asked)?;
        Ok((kit, answer))
    }

    /// Has the supervisor do something.
    fn order<M: Carried<Result = Result<(), String>>>(&self, order: &M) -> Result<()> {
        let (_, answer) = self.ask(order)?;
        answer.map_err(|reason| anyhow!(reason))
    }
}

/// Asks the supervisor how its run stands.
///
/// # Errors
/// A wrong kit, no broker, no supervisor.
pub fn status(args: &StatusArgs) -> Result<ExitStatus> {
    let (kit, status) = args.kit.ask(&AskStatus)?;
    match args.json {
        true => print_json(&status)?,
        false => print(&text(&kit, &status))?,
    }
    Ok(ExitStatus::Success)
}

/// Sends a member away.
///
/// # Errors
/// As [`status`]; a member that is not there, or that nobody can stand in for.
pub fn drain(args: &DrainArgs) -> Result<ExitStatus> {
    let expected = "client-N or shard-STAGE-REPLICA";
    let member: MemberName =
        args.member.parse().map_err(|_| anyhow!("got {:?}, expected {expected}", args.member))?;
    args.kit.order(&Drain { member })?;
    say(&format!("{member} leaves when the round no longer needs it"));
    Ok(ExitStatus::Success)
}

/// Changes the heating.
///
/// # Errors
/// As [`status`]; values that make no curve.
pub fn tune(args: &TuneArgs) -> Result<ExitStatus> {
    let TuneArgs { alpha, beta, kit } = args;
    kit.order(&TuneHeating { alpha: *alpha, beta: *beta })?;
    say(&format!("heating.alpha = {alpha} and heating.beta = {beta} from the next mix on"));
    Ok(ExitStatus::Success)
}

fn text(kit: &Kit, status: &RunStatus) -> String {
    let RunStatus { committed, rounds, phase, working, heard_secs, leaving, restarts } = status;
    let working: Vec<String> = working.iter().map(|client| client.to_string()).collect();
    let working = if working.is_empty() { "nobody".to_owned() } else { working.join(", ") };
    let mut text = format!(
        "run         {}: {committed} of {rounds} rounds committed, {phase}\n\
         at work     {working}\nrestarts    {restarts}\nmembers     ",
        kit.run
    );
    let line = |(name, ago): (&String, &f64)| {
        let leaves = if leaving.contains(name) { ", leaves" } else { "" };
        format!("{name:<14}{ago:.1} s ago{leaves}")
    };
    let lines: Vec<String> = heard_secs.iter().map(line).collect();
    text.push_str(&lines.join("\n            "));
    text
}
