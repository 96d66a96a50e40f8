//! `fellrec up`: a broker and all nodes of a federation as processes of this machine.

mod processes;

use std::fs;
use std::net::TcpListener;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use fellrec::config::Config;

use super::run::StopSignals;
use super::{ConfigArgs, ExitStatus, Verbosity, say};
use crate::provision::{Plan, Provision};
use crate::supervisor::BEAT;
use processes::Processes;

const EXAMPLES: &str = "\
Examples:
  fellrec up --clients 5 --shards 2 --config demo
  fellrec up --config demo --out runs/nodes       run it again to go on with a run that was stopped

Everything is in the folder: federation/ (certificates, kits, broker), nodes/ (what each member keeps), logs/, pids/.
A process that dies is started again. Ctrl-C once keeps the last commit; twice stops now.";

/// Run a federation over nodes: a broker and every member as processes of this machine
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct UpArgs {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Clients; short for --set clients.count=N
    #[arg(long, value_name = "N")]
    pub clients: Option<NonZeroU32>,
    /// Shards of each stage
    #[arg(long, value_name = "N", default_value = "2")]
    pub shards: NonZeroU32,
    /// The folder of everything
    #[arg(short, long, value_name = "DIR", default_value = "runs/up")]
    pub out: PathBuf,
    /// Seals payloads between members: the broker carries what it cannot read
    #[arg(long)]
    pub seal: bool,
    /// A member that is started by hand, or later; may be given several times
    #[arg(long, value_name = "MEMBER")]
    pub leave_out: Vec<String>,
    /// The broker's binary, 2.12 or newer; `scripts/nats.sh` brings one
    #[arg(long, value_name = "FILE", env = "FELLREC_NATS_SERVER", default_value = "nats-server")]
    pub nats_server: PathBuf,
    /// Writes the run's events as JSON lines on standard output, and nothing else there
    #[arg(long)]
    pub json: bool,
}

/// Runs the federation.
///
/// # Errors
/// A wrong configuration, no broker, or a run that failed.
pub fn run(args: UpArgs, verbosity: &Verbosity) -> Result<ExitStatus> {
    let mut from = args.config.clone();
    if let Some(clients) = args.clients {
        from.set.push(format!("clients.count={clients}"));
    }
    let config = from.load()?.config;
    let federation = args.out.join("federation");
    let provision = match federation.exists() {
        true => Provision::open(&federation)?,
        false => provision(&config, &args, &federation)?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = StopSignals::listen().context("failed to listen for signals")?;
        let mut processes = Processes::new(&provision, &args, verbosity, &config)?;
        processes.start_all().await?;
        if !verbosity.is_quiet() {
            say(&format!(
                "{} members and a broker on {}, logs in {}",
                processes.members(),
                provision.plan().broker,
                processes.logs().display()
            ));
        }
        let ended = processes.watch(&mut signals).await;
        if !args.leave_out.is_empty() && matches!(ended, Ok(ExitStatus::Success)) {
            // Members that were started elsewhere hear of the end over the same broker.
            tokio::time::sleep(3 * BEAT).await;
        }
        processes.stop_all().await;
        ended
    })
}

/// A federation on a free port of this machine, with the configuration as it was resolved.
fn provision(config: &Config, args: &UpArgs, root: &Path) -> Result<Provision> {
    let stages = match config.split.stages.as_option() {
        Some(stages) => stages.len() as u32,
        None => 1,
    };
    fs::create_dir_all(&args.out)
        .with_context(|| format!("failed to create the folder {}", args.out.display()))?;
    let path = args.out.join("config.toml");
    fs::write(&path, config.to_toml()?)
        .with_context(|| format!("failed to write {}", path.display()))?;
    let port = free_port().context("no port of this machine is free")?;
    let plan = Plan {
        run: "up".parse()?,
        broker: format!("127.0.0.1:{port}"),
        clients: clients(config)?,
        stages,
        replicas: args.shards.get(),
        days: 365,
        seal: args.seal,
        config: Some(path),
    };
    Ok(Provision::create(plan, root)?)
}

/// How many clients there will be, where the configuration says it.
fn clients(config: &Config) -> Result<u32> {
    use fellrec::config::AssignmentKind::{KMeans, Silos, Uniform};
    match config.clients.assignment {
        _ if config.clients.pooled => Ok(1),
        KMeans | Uniform | Silos => Ok(config.clients.count.get()),
        other => bail!(
            "clients.assignment: got {other:?}; with it only the data say how many clients there are: \
             expected k-means, uniform or silos, or a description for `fellrec provision`"
        ),
    }
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
