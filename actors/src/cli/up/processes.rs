//! The processes of `fellrec up`: started, watched, started again.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus as ChildStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use fellrec::config::Config;
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use super::UpArgs;
use crate::cli::run::{STOPPING, StopSignals};
use crate::cli::{ExitStatus, Verbosity, say};
use crate::provision::{MAIN_FILE, Provision};
use crate::registry::MemberName;

/// Longest wait for the broker to take connections.
const BROKER_START: Duration = Duration::from_secs(20);
/// Longest wait for processes to end on their own.
const GOODBYE: Duration = Duration::from_secs(5);
/// Pause before a process is started again.
const AGAIN: Duration = Duration::from_millis(200);

/// A process by what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Broker,
    Member(MemberName),
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Who::Broker => f.write_str("broker"),
            Who::Member(member) => member.fmt(f),
        }
    }
}

/// All processes of a federation on this machine.
pub struct Processes {
    program: PathBuf,
    nats_server: PathBuf,
    broker_folder: PathBuf,
    broker: String,
    kits: BTreeMap<MemberName, PathBuf>,
    nodes: PathBuf,
    logs: PathBuf,
    pids: PathBuf,
    data: Option<PathBuf>,
    flags: Vec<OsString>,
    json: bool,
    budget: u32,
    starts: BTreeMap<Who, u32>,
    running: BTreeMap<Who, Pid>,
    waiting: JoinSet<(Who, ChildStatus)>,
}

impl Processes {
    /// None runs yet.
    ///
    /// # Errors
    /// This program cannot be found, or a folder not be made.
    pub fn new(
        provision: &Provision,
        args: &UpArgs,
        verbosity: &Verbosity,
        config: &Config,
    ) -> Result<Self> {
        let folder = |name: &str| {
            let folder = args.out.join(name);
            fs::create_dir_all(&folder)
                .with_context(|| format!("failed to create the folder {}", folder.display()))?;
            Ok::<_, anyhow::Error>(folder)
        };
        let kits = provision.plan().members().into_iter();
        let kits = kits
            .filter(|member| *member != MemberName::Operator)
            .filter(|member| !args.leave_out.contains(&member.to_string()))
            .map(|member| (member, provision.kit(member)));
        Ok(Self {
            program: std::env::current_exe().context("this program cannot be found")?,
            nats_server: args.nats_server.clone(),
            broker_folder: provision.broker(),
            broker: provision.plan().broker.clone(),
            kits: kits.collect(),
            nodes: args.out.join("nodes"),
            logs: folder("logs")?,
            pids: folder("pids")?,
            data: args.config.data.clone(),
            flags: verbosity.flags().into_iter().map(OsString::from).collect(),
            json: args.json,
            budget: config.federation.restart_budget,
            starts: BTreeMap::new(),
            running: BTreeMap::new(),
            waiting: JoinSet::new(),
        })
    }

    /// Members of the federation.
    pub fn members(&self) -> usize {
        self.kits.len()
    }

    /// Where what the processes say is kept.
    pub fn logs(&self) -> &Path {
        &self.logs
    }

    /// Starts the broker, and everybody once it takes connections.
    ///
    /// # Errors
    /// There is no broker, or it does not start.
    pub async fn start_all(&mut self) -> Result<()> {
        self.start(Who::Broker)?;
        let started = Instant::now();
        while TcpStream::connect(self.broker.as_str()).await.is_err() {
            if let Some(Ok((who, status))) = self.waiting.try_join_next() {
                bail!("the {who} ended with {status}, see {}", self.log(who).display());
            }
            if started.elapsed() > BROKER_START {
                bail!(
                    "the broker does not take connections, see {}",
                    self.log(Who::Broker).display()
                );
            }
            sleep(Duration::from_millis(20)).await;
        }
        for member in self.kits.keys().copied().collect::<Vec<_>>() {
            self.start(Who::Member(member))?;
        }
        Ok(())
    }

    /// Starts what dies, until the supervisor has ended as it should.
    ///
    /// # Errors
    /// A process that does not stay up.
    pub async fn watch(&mut self, signals: &mut StopSignals) -> Result<ExitStatus> {
        let supervisor = Who::Member(MemberName::Supervisor);
        let mut stops = 0;
        loop {
            let (who, status) = tokio::select! {
                Some(ended) = self.waiting.join_next() => ended.context("a process was lost")?,
                () = signals.next() => {
                    stops += 1;
                    if stops > 1 || !self.kits.contains_key(&MemberName::Supervisor) {
                        return Ok(ExitStatus::Interrupted);
                    }
                    say(STOPPING);
                    self.signal(supervisor, Signal::INT);
                    continue;
                }
            };
            self.running.remove(&who);
            debug!(%who, %status, "ended");
            match (who, status.code()) {
                (_, Some(code)) if who == supervisor => return Ok(exit_status(code)),
                // All but the broker have ended well: a supervisor that runs elsewhere has said so.
                (Who::Member(_), Some(0)) if self.running.len() == 1 => {
                    if !self.kits.contains_key(&MemberName::Supervisor) {
                        return Ok(ExitStatus::Success);
                    }
                    continue;
                }
                (Who::Member(_), Some(0)) => continue,
                _ => {}
            }
            if self.starts.get(&who).copied().unwrap_or(0) > self.budget {
                let log = self.log(who);
                bail!("{who} does not stay up ({status}), see {}", log.display());
            }
            say(&format!("{who} ended ({status}), starting it again"));
            sleep(AGAIN).await;
            self.start(who)?;
        }
    }

    /// Ends whoever has not ended.
    pub async fn stop_all(&mut self) {
        for signal in [Signal::TERM, Signal::KILL] {
            // The broker last: the others say goodbye over it.
            let members = self.running.keys().copied().filter(|who| *who != Who::Broker);
            let all = members.chain([Who::Broker]).collect::<Vec<_>>();
            all.into_iter().for_each(|who| self.signal(who, signal));
            let gone = async {
                while let Some(ended) = self.waiting.join_next().await {
                    if let Ok((who, _)) = ended {
                        self.running.remove(&who);
                    }
                }
            };
            if timeout(GOODBYE, gone).await.is_ok() {
                return;
            }
        }
    }

    fn signal(&self, who: Who, signal: Signal) {
        if let Some(pid) = self.running.get(&who)
            && let Err(error) = kill_process(*pid, signal)
        {
            debug!(%who, %error, "not signalled: it has ended");
        }
    }

    fn log(&self, who: Who) -> PathBuf {
        self.logs.join(format!("{who}.log"))
    }

    fn start(&mut self, who: Who) -> Result<()> {
        let mut command = match who {
            Who::Broker => self.broker_command(),
            Who::Member(member) => self.node(member),
        };
        let heard = who == Who::Member(MemberName::Supervisor);
        if !heard {
            let path = self.log(who);
            let log = File::options().create(true).append(true).open(&path);
            let log = log.with_context(|| format!("failed to write {}", path.display()))?;
            command.stdout(log.try_clone()?).stderr(log);
        }
        // Ctrl-C is for us: we tell the supervisor, which needs the others for its last step.
        command.stdin(Stdio::null()).process_group(0).kill_on_drop(true);
        let mut child: Child = command.spawn().with_context(|| match who {
            Who::Broker => format!(
                "no broker: failed to start {}; `scripts/nats.sh` brings one, --nats-server names it",
                self.nats_server.display()
            ),
            Who::Member(member) => format!("failed to start {member}"),
        })?;
        *self.starts.entry(who).or_default() += 1;
        if let Some(pid) = child.id().and_then(|pid| Pid::from_raw(pid as i32)) {
            self.running.insert(who, pid);
            let path = self.pids.join(who.to_string());
            fs::write(&path, pid.as_raw_nonzero().to_string())
                .with_context(|| format!("failed to write {}", path.display()))?;
        }
        self.waiting.spawn(async move {
            let status = child.wait().await;
            (who, status.expect("a child of this process can be waited for"))
        });
        Ok(())
    }

    fn broker_command(&self) -> Command {
        // A name on the search path stays one, a path is ours and not the folder's.
        let named = self.nats_server.components().count() == 1;
        let program = match named {
            true => self.nats_server.clone(),
            false => std::path::absolute(&self.nats_server).unwrap_or(self.nats_server.clone()),
        };
        let mut command = Command::new(program);
        command.current_dir(&self.broker_folder).args(["-c", MAIN_FILE]);
        command
    }

    fn node(&self, member: MemberName) -> Command {
        let store = match member {
            MemberName::Shard(_) => "shards".to_owned(),
            other => other.to_string(),
        };
        let mut command = Command::new(&self.program);
        command.arg("node").arg("--kit").arg(&self.kits[&member]);
        command.arg("--out").arg(self.nodes.join(store)).args(&self.flags);
        if let Some(data) = &self.data {
            command.arg("--data").arg(data);
        }
        if self.json && member == MemberName::Supervisor {
            command.arg("--json");
        }
        command
    }
}

/// As the supervisor's own.
fn exit_status(code: i32) -> ExitStatus {
    match code {
        0 => ExitStatus::Success,
        2 => ExitStatus::Usage,
        130 => ExitStatus::Interrupted,
        _ => ExitStatus::Failure,
    }
}
