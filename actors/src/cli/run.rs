//! What `simulate` and `resume` share: logging, signals, the actix system, the ending.

use std::error::Error;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail};
use fellrec::blueprint::Blueprint;
use fellrec::config::{Config, DeviceName, LoggingConfig};
use fellrec::federation::round::Outcome;
use fellrec::report::tables::{Clients, final_table};
use fellrec::report::{self, History};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use super::json_lines::{JsonLines, json_lines};
use super::progress::{AboveBar, Progress};
use super::{ExitStatus, Verbosity, print, say, table};
use crate::cuda::{CudaStatus, load_cuda_backend};
use crate::folder::RunFolder;
use crate::journal::{Notice, Observer};
use crate::system::{Federation, Launch, SystemError};

/// What a first signal is answered with.
pub const STOPPING: &str = "stopping after this step (Ctrl-C again stops now)";

/// Opens libtorch's CUDA backend if a role wants it; to be called before anything asks for devices.
///
/// # Errors
/// A CUDA device is configured and there is none.
pub fn prepare_devices(config: &Config) -> Result<()> {
    let runtime = &config.runtime;
    let wanted = [runtime.client_device, runtime.shard_device]
        .iter()
        .any(|device| matches!(device, DeviceName::Cuda(_)));
    if !wanted {
        return Ok(());
    }
    match load_cuda_backend() {
        CudaStatus::Ready { .. } => Ok(()),
        missing => bail!("a CUDA device is configured, but {missing}; run `fellrec doctor`"),
    }
}

/// Log lines for people on standard error, JSON for programs in the run folder.
///
/// # Errors
/// The log file cannot be written.
pub fn start_logging(
    logging: &LoggingConfig,
    verbosity: &Verbosity,
    log: &Path,
    terminal: AboveBar,
) -> Result<()> {
    let file = File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("failed to open the log {}", log.display()))?;
    let terminal = tracing_subscriber::fmt::layer()
        .with_writer(move || terminal.clone())
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        // It would say so on standard error, which is what cannot be written.
        .log_internal_errors(false)
        .with_filter(EnvFilter::new(verbosity.filter(logging)));
    let json = tracing_subscriber::fmt::layer()
        .json()
        .with_writer(Mutex::new(file))
        .log_internal_errors(false)
        .with_filter(EnvFilter::new(&logging.file));
    tracing_subscriber::registry().with(terminal).with(json).try_init()?;
    Ok(())
}

/// How one goes on with the run of a folder.
pub fn resume_with(folder: &RunFolder) -> String {
    format!("go on with: fellrec resume {}", folder.root().display())
}

/// Runs a federation to its end, its log, its display and its files included. `again` says how one goes on with it
/// if it is stopped.
///
/// # Errors
/// The run could not start or could not go on.
pub fn run_federation<E: Error + Send + Sync + 'static>(
    blueprint: Arc<Blueprint>,
    folder: RunFolder,
    start: impl AsyncFnOnce(Launch) -> Result<Federation, E>,
    again: &str,
    json: bool,
    verbosity: &Verbosity,
) -> Result<ExitStatus> {
    let progress = Progress::new(!json && !verbosity.is_quiet());
    start_logging(&blueprint.config.logging, verbosity, &folder.log(), progress.above())?;
    let (lines, last_line) = json.then(json_lines).unzip();
    let launch = Launch {
        blueprint,
        folder: folder.clone(),
        observer: observer(lines, progress),
        rule: None,
    };
    let quiet = verbosity.is_quiet();
    let outcome = drive(launch, start, || {
        let signals = StopSignals::listen().context("failed to listen for signals")?;
        Ok(stop_asked(signals, quiet))
    });
    let status = outcome.and_then(|outcome| finish(outcome, &folder, again, json));
    if let Some(last_line) = last_line {
        last_line.wait();
    }
    status
}

/// Runs a federation to its end in an actix system of this thread. It is asked to stop when what
/// `stop` gives comes; `stop` is called within the system, before the federation starts.
///
/// # Errors
/// The run could not start or could not go on, or `stop` failed.
pub fn drive<S: Future<Output = ()>, E: Error + Send + Sync + 'static>(
    launch: Launch,
    start: impl AsyncFnOnce(Launch) -> Result<Federation, E>,
    stop: impl FnOnce() -> Result<S>,
) -> Result<Outcome> {
    let folder = launch.folder.clone();
    actix::System::new().block_on(async {
        let stop = stop()?;
        let mut federation = start(launch).await?;
        let outcome = wait_or_stop(&mut federation, stop).await;
        outcome.with_context(|| {
            format!(
                "the run stopped after its last commit; `fellrec resume {}` goes on once this is put right",
                folder.root().display()
            )
        })
    })
}

/// The two ways to ask a process to end: Ctrl-C, and what service managers and batch systems send.
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// To be called within a tokio runtime.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Waits for the end, and asks the run to stop once `stop` is there.
async fn wait_or_stop(
    federation: &mut Federation,
    stop: impl Future<Output = ()>,
) -> Result<Outcome, SystemError> {
    let mut done = pin!(federation.done());
    tokio::select! {
        outcome = &mut done => return outcome,
        () = stop => {}
    }
    federation.stop();
    done.await
}

/// Comes with the first signal; the second one leaves at once.
async fn stop_asked(mut signals: StopSignals, quiet: bool) {
    signals.next().await;
    if !quiet {
        say(STOPPING);
    }
    actix::spawn(async move {
        signals.next().await;
        leave(ExitStatus::INTERRUPTED_CODE)
    });
}

/// Ends the process in the middle of everything.
pub fn leave(code: u8) -> ! {
    // Not `std::process::exit`: it runs libtorch's destructors under the threads that compute, which crash.
    #[allow(unsafe_code, reason = "there is no safe way to leave without running destructors")]
    unsafe {
        libc::_exit(code.into())
    }
}

fn observer(mut lines: Option<JsonLines>, mut progress: Progress) -> Observer {
    Box::new(move |notice| {
        progress.notice(&notice);
        if let (Some(lines), Notice::Event(event)) = (&mut lines, &notice) {
            lines.write(event);
        }
    })
}

fn finish(outcome: Outcome, folder: &RunFolder, again: &str, json: bool) -> Result<ExitStatus> {
    let path = folder.root().display();
    match outcome {
        Outcome::RoundsDone | Outcome::PatienceSpent => {
            let history = History::read(&folder.events())?;
            let report = report::write_page(&history, folder.root())?;
            if !json {
                print(&table::render(&final_table(&history, Clients::Extremes)))?;
                say(&format!(
                    "\nrun folder  {path}\nreport      {}\nnext        fellrec config keys mixing \
                     (what to turn), fellrec report {path}",
                    report.display()
                ));
            }
            Ok(ExitStatus::Success)
        }
        Outcome::Stopped => {
            say(&format!("stopped; everything up to the last commit is kept\n{again}"));
            Ok(ExitStatus::Interrupted)
        }
        Outcome::RoundFailed(reason) => {
            say(&format!("error: {reason}\neverything up to the last commit is kept\n{again}"));
            Ok(ExitStatus::Failure)
        }
    }
}
