//! `fellrec node`: one member of a federation over nodes.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Args;
use fellrec::blueprint::Blueprint;
use fellrec::config::Config;
use fellrec::data::Holdings;
use futures::future::try_join_all;
use rand::TryRngCore;
use rand::rngs::OsRng;

use super::progress::Progress;
use super::run::{StopSignals, leave, prepare_devices, run_federation, start_logging};
use super::{ConfigArgs, ExitStatus, Verbosity, say};
use crate::folder::RunFolder;
use crate::node::{Farewell, Kit, Node, NodeError};
use crate::registry::MemberName;

const EXAMPLES: &str = "\
Examples:
  fellrec node --kit kits/supervisor
  fellrec node --kit kits/client-3 --data /srv/shop/interactions
  fellrec node --kit kits/shard-0-1 --store /mnt/shards     replicas of a stage share the store
  fellrec node --kit kits/aggregator --kit kits/shard-0-0 --out /var/lib/fellrec

Every node dials the broker; none has to be reachable. A node that is started again goes on from its last commit.";

/// Run a member of a federation over nodes, or several but the supervisor
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct NodeArgs {
    /// The member's kit, from `fellrec provision`; several run several members in one process
    #[arg(short, long, value_name = "DIR", required = true)]
    pub kit: Vec<PathBuf>,
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Folder of this member's states; the supervisor's is the run folder. Of several members the folder above theirs
    /// [default: nodes/MEMBER]
    #[arg(short, long, value_name = "DIR", alias = "store")]
    pub out: Option<PathBuf>,
    /// Writes the run's events as JSON lines on standard output, and nothing else there; the supervisor only
    #[arg(long)]
    pub json: bool,
}

/// Runs the members until the run is over.
///
/// # Errors
/// A wrong kit or configuration, no broker, or a member that is not let in.
pub fn run(args: NodeArgs, verbosity: &Verbosity) -> Result<ExitStatus> {
    let kits = args.kit.iter().map(|path| Kit::read(path)).collect::<Result<Vec<_>, _>>()?;
    if kits.len() > 1 && kits.iter().any(|kit| kit.member == MemberName::Supervisor) {
        bail!(
            "--kit: got the supervisor's among others, expected it alone: it ends when its run does"
        );
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = kits.iter().find(|kit| !seen.insert(kit.member)) {
        bail!("--kit: got that of {} twice", twice.member);
    }
    let nodes = kits.into_iter().map(|kit| node(kit, &args)).collect::<Result<Vec<_>>>()?;
    let first = nodes.first().expect("clap asks for a kit");
    let (blueprint, folder) = (Arc::clone(&first.blueprint), first.folder.clone());
    let member = first.kit.member;
    if member == MemberName::Supervisor {
        let supervise = async |launch| only(nodes).supervise(launch).await;
        let again = "go on with: the same command";
        return run_federation(blueprint, folder, supervise, again, args.json, verbosity);
    }
    let terminal = Progress::new(false).above();
    start_logging(&blueprint.config.logging, verbosity, &folder.log_of(member), terminal)?;
    let quiet = verbosity.is_quiet();
    let ended = actix::System::new().block_on(async {
        let mut signals = StopSignals::listen().context("failed to listen for signals")?;
        let run = |node: Node| async move {
            let member = node.kit.member;
            let farewell = node.run().await?;
            if !quiet {
                say(&format!("{member}: {}", text(farewell)));
            }
            Ok::<_, NodeError>(())
        };
        tokio::select! {
            ended = try_join_all(nodes.into_iter().map(run)) => Ok::<_, anyhow::Error>(Some(ended)),
            () = signals.next() => Ok(None),
        }
    })?;
    // Threads that are in the middle of a step end with the process.
    match ended {
        Some(Ok(_)) => leave(0),
        Some(Err(error)) => {
            say(&format!("error: {:#}", anyhow::Error::from(error)));
            leave(1)
        }
        None => leave(ExitStatus::INTERRUPTED_CODE),
    }
}

fn only(mut nodes: Vec<Node>) -> Node {
    nodes.pop().expect("a supervisor is alone")
}

fn text(farewell: Farewell) -> &'static str {
    match farewell {
        Farewell::Over => "the run is over",
        Farewell::SentAway => "sent away, and nothing is left to do",
    }
}

/// A member before it dials.
fn node(kit: Kit, args: &NodeArgs) -> Result<Node> {
    let alone = args.kit.len() == 1;
    let name = match kit.member {
        // Replicas of a stage share their folder.
        MemberName::Shard(_) if !alone => "shards".to_owned(),
        member => member.to_string(),
    };
    let folder = match &args.out {
        Some(out) if alone => out.clone(),
        Some(out) => out.join(name),
        None => PathBuf::from("nodes").join(name),
    };
    let folder = match kit.member {
        member @ (MemberName::Client(_) | MemberName::Shard(_)) => {
            RunFolder::new(folder).with_means_of(member)
        }
        _ => RunFolder::new(folder),
    };
    let mut from = args.config.clone();
    if from.config.is_none() && kit.config().exists() {
        from.config = Some(kit.config().display().to_string());
    }
    let config = from.load()?.config;
    prepare_devices(&config)?;
    let config = of_run(config, &kit, &folder)?;
    fs::create_dir_all(folder.root())
        .with_context(|| format!("failed to create the folder {}", folder.root().display()))?;
    let holdings = match kit.member {
        MemberName::Client(client) => Holdings::Of(client),
        _ => Holdings::Catalogue,
    };
    let blueprint = Arc::new(Blueprint::holding(config, holdings)?);
    let life = OsRng.try_next_u64().context("the system gives no random numbers")?;
    Ok(Node { kit, blueprint, folder, life })
}

/// A supervisor that goes on with a run does so with the run's own configuration.
fn of_run(config: Config, kit: &Kit, folder: &RunFolder) -> Result<Config> {
    let path = folder.config();
    if kit.member != MemberName::Supervisor || !path.exists() {
        return Ok(config);
    }
    let text =
        fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    let stored = Config::from_toml(&text, &path)?;
    Ok(Config { data: config.data, ..stored })
}
