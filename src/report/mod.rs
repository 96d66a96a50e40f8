//! What a run shows, from its folder alone: tables, plots and one self-contained page.
//!
//! The event log is folded into a [`History`]; the tables and the page are functions of it. A run
//! that failed or still runs has a report, too. Knows no actor and no terminal.
//!
//! Rounds are counted as people do: "round k" is the k-th, whose commit makes state k, and state 0
//! is the start. In the event log the same round has the number k - 1.

pub(crate) mod format;
mod history;
mod page;
pub mod plots;
mod read;
mod series;
mod summary;
pub mod tables;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

pub use history::{CommittedRound, Evaluation, Finish, History, Incident};
pub use page::html;
pub(crate) use series::quantile;
pub use series::{Quantity, Series, Spread, spread};
pub use summary::{KeyFigure, Protocol, RunState, Summary};

/// The event log within a run folder.
pub const EVENTS_FILE: &str = "events.jsonl";
/// The resolved configuration within a run folder.
pub const CONFIG_FILE: &str = "config.toml";
/// The page within a run folder.
pub const PAGE_FILE: &str = "report.html";

/// Why there is no report.
#[derive(Debug, Error)]
pub enum ReportError {
    /// The file system refused.
    #[error("failed to access {path}")]
    Io {
        /// File.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line of the event log is no event.
    #[error("{path}, line {line}: expected an event")]
    Line {
        /// The event log.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// The log is empty or begins with another event.
    #[error("{path}, line 1: expected the event run_started")]
    NoStart {
        /// The event log.
        path: PathBuf,
    },
    /// A plot failed.
    #[error(transparent)]
    Plot(#[from] plots::PlotError),
}

/// Writes `report.html` of a run folder, from its event log and its resolved configuration.
///
/// # Errors
/// Files that cannot be read or written, or a broken event log.
pub fn write(run_folder: &Path) -> Result<PathBuf, ReportError> {
    write_page(&History::read(&run_folder.join(EVENTS_FILE))?, run_folder)
}

/// Writes `report.html` for a log that was read already.
///
/// A page that is there already is replaced at once: whoever has it open never sees half of one.
///
/// # Errors
/// Files that cannot be read or written.
pub fn write_page(history: &History, run_folder: &Path) -> Result<PathBuf, ReportError> {
    let config_path = run_folder.join(CONFIG_FILE);
    let config = fs::read_to_string(&config_path).map_err(io_error(&config_path))?;
    let page = html(history, &config)?;

    let path = run_folder.join(PAGE_FILE);
    let partial = path.with_extension("html.partial");
    fs::write(&partial, page).map_err(io_error(&partial))?;
    fs::rename(&partial, &path).map_err(io_error(&path))?;
    Ok(path)
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> ReportError {
    let path = path.to_owned();
    move |source| ReportError::Io { path, source }
}
