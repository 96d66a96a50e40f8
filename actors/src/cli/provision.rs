//! `fellrec provision`: identities and the broker's configuration of a federation over nodes.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};

use super::{ExitStatus, print, say};
use crate::provision::{MAIN_FILE, Plan, Provision, ProvisionError};

const EXAMPLES: &str = "\
fed.toml:
  run = \"shops\"                          part of every subject: A-Z, a-z, 0-9, - and _
  broker = \"broker.example.org:4222\"     as the members dial it
  clients = 5
  stages = 1                             as split.stages has; 1 where it is left out
  replicas = 2                           shards of each stage
  days = 365                             how long certificates hold
  config = \"fed-config.toml\"             the run's configuration, copied into every kit

Examples:
  fellrec provision fed.toml --out fed
  fellrec provision add fed client-5       the next client or replica, or one that was revoked
  fellrec provision renew fed client-3     a new key and certificate
  fellrec provision revoke fed client-3
  fellrec provision list fed
  cd fed/broker && nats-server -c nats.conf";

/// Make certificates, the broker's configuration and a kit for each member
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct ProvisionArgs {
    /// Description of the federation
    #[arg(value_name = "FED.TOML", required = true)]
    plan: Option<PathBuf>,
    /// A new folder for all that is made
    #[arg(short, long, value_name = "DIR", required = true)]
    out: Option<PathBuf>,
    #[command(subcommand)]
    change: Option<Change>,
}

/// Changes to a provisioned federation.
#[derive(Debug, Subcommand)]
enum Change {
    /// Add the next client or replica, or one that was revoked
    Add(Whom),
    /// Give a member a new key and certificate
    Renew(Whom),
    /// Take a member's rights
    Revoke(Whom),
    /// Show who has a certificate, and until when
    List {
        /// Folder that `fellrec provision` made
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// Writes JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
struct Whom {
    /// Folder that `fellrec provision` made
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The member, such as client-3 or shard-0-1
    #[arg(value_name = "MEMBER")]
    member: String,
}

/// Makes or changes a federation's folder.
///
/// # Errors
/// A wrong description, a folder that cannot be written, a member that is none.
pub fn run(args: ProvisionArgs) -> Result<ExitStatus> {
    match args.change {
        None => {
            let plan = args.plan.context("a description is needed")?;
            create(&plan, &args.out.context("--out is needed")?)?;
        }
        Some(Change::Add(whom)) => change(&whom, "added", Provision::add)?,
        Some(Change::Renew(whom)) => change(&whom, "renewed", Provision::renew)?,
        Some(Change::Revoke(whom)) => change(&whom, "revoked", Provision::revoke)?,
        Some(Change::List { folder, json }) => list(&Provision::open(&folder)?, json)?,
    }
    Ok(ExitStatus::Success)
}

fn create(path: &Path, out: &Path) -> Result<()> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("failed to read {}", path.display()))?;
    let provision = Provision::create(Plan::parse(&text, path)?, out)?;
    let members = provision.ledger().len();
    let broker = provision.broker();
    say(&format!(
        "kits        {} for {members} members: bring each to its own machine and nowhere else\n\
         broker      cd {} && nats-server -c {MAIN_FILE}\n\
         authority   {}: whoever has its key can be anybody, keep it off the network\n\
         next        fellrec node --kit KIT on each machine; START in a kit says it",
        out.join("kits").display(),
        broker.display(),
        out.join("ca").display(),
    ));
    Ok(())
}

fn change(
    whom: &Whom,
    done: &str,
    work: impl FnOnce(&mut Provision, &str) -> Result<(), ProvisionError>,
) -> Result<()> {
    let mut provision = Provision::open(&whom.folder)?;
    work(&mut provision, &whom.member)?;
    let member = &whom.member;
    say(&format!(
        "{member} {done}\nnext        nats-server --signal reload={}",
        provision.broker().join("nats.pid").display()
    ));
    if let (true, Ok(name)) = (done != "revoked", member.parse()) {
        say(&format!("kit         {}", provision.kit(name).display()));
    }
    Ok(())
}

fn list(provision: &Provision, json: bool) -> Result<()> {
    if json {
        print(&serde_json::to_string_pretty(provision.ledger())?)?;
        return Ok(());
    }
    for (member, entry) in provision.ledger() {
        let state = match entry.revoked {
            None => format!("until {}", entry.until),
            Some(day) => format!("revoked {day}"),
        };
        print(&format!("{member:<14}{state}"))?;
    }
    Ok(())
}
