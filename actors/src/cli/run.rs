//! What `simulate` and `resume` share: logging, Ctrl-C, the actix system, the ending.

use std::fs::File;
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail};
use fellrec::blueprint::Blueprint;
use fellrec::config::{Config, DeviceName};
use fellrec::federation::round::Outcome;
use fellrec::report::tables::{Clients, final_table};
use fellrec::report::{self, History};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use super::progress::Progress;
use super::{ExitStatus, Verbosity, print, table};
use crate::cuda::{CudaStatus, load_cuda_backend};
use crate::folder::RunFolder;
use crate::journal::{Notice, Observer};
use crate::system::{Federation, Launch, SystemError};

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
pub fn start_logging(config: &Config, verbosity: &Verbosity, log: &Path) -> Result<()> {
    let file = File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("failed to open the log {}", log.display()))?;
    let terminal = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_filter(EnvFilter::new(verbosity.filter(&config.logging)));
    let json = tracing_subscriber::fmt::layer()
        .json()
        .with_writer(Mutex::new(file))
        .with_filter(EnvFilter::new(&config.logging.file));
    tracing_subscriber::registry().with(terminal).with(json).try_init()?;
    Ok(())
}

/// Runs a federation to its end, its display and its files included.
///
/// # Errors
/// The run could not start or could not go on.
pub fn run_federation(
    blueprint: Blueprint,
    folder: RunFolder,
    start: impl FnOnce(Launch) -> Result<Federation, SystemError>,
    json: bool,
    quiet: bool,
) -> Result<ExitStatus> {
    let launch = Launch {
        blueprint: Arc::new(blueprint),
        folder: folder.clone(),
        observer: observer(json, !quiet && !json),
        rule: None,
    };
    let outcome = actix::System::new().block_on(async {
        let mut federation = start(launch)?;
        wait_or_stop(&mut federation, quiet || json).await
    });
    finish(outcome?, &folder, json)
}

/// Waits for the end; Ctrl-C once asks the run to stop, twice leaves at once.
async fn wait_or_stop(federation: &mut Federation, quiet: bool) -> Result<Outcome, SystemError> {
    let mut done = pin!(federation.done());
    tokio::select! {
        outcome = &mut done => return outcome,
        _ = tokio::signal::ctrl_c() => {}
    }
    if !quiet {
        eprintln!("stopping after this step (Ctrl-C again stops now)");
    }
    federation.stop();
    tokio::select! {
        outcome = &mut done => outcome,
        _ = tokio::signal::ctrl_c() => std::process::exit(130),
    }
}

fn observer(json: bool, shown: bool) -> Observer {
    let mut progress = Progress::new(shown);
    Box::new(move |notice| {
        progress.notice(&notice);
        if let (true, Notice::Event(event)) = (json, &notice) {
            let line = serde_json::to_string(event).expect("events are plain data");
            // A reader that went away does not stop the training.
            let _ = print(&line);
        }
    })
}

fn finish(outcome: Outcome, folder: &RunFolder, json: bool) -> Result<ExitStatus> {
    let path = folder.root().display();
    let resume = format!("go on with: fellrec resume {path}");
    match outcome {
        Outcome::RoundsDone | Outcome::PatienceSpent => {
            let history = History::read(&folder.events())?;
            let report = report::write_page(&history, folder.root())?;
            if !json {
                print(&table::render(&final_table(&history, Clients::Extremes)))?;
                eprintln!(
                    "\nrun folder  {path}\nreport      {}\nnext        fellrec config keys mixing \
                     (what to turn), fellrec report {path}",
                    report.display()
                );
            }
            Ok(ExitStatus::Success)
        }
        Outcome::Stopped => {
            eprintln!("stopped; everything up to the last commit is kept\n{resume}");
            Ok(ExitStatus::Interrupted)
        }
        Outcome::RoundFailed(reason) => {
            eprintln!("error: {reason}\nthe last commit is kept; {resume}");
            Ok(ExitStatus::Failure)
        }
    }
}
