//! The run's history as it happens: to `events.jsonl` and to whoever watches.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use fellrec::history::{EventKind, RunEvent};
use fellrec::ids::ClientId;
use thiserror::Error;

/// What a watcher of a run is told.
#[derive(Debug)]
pub enum Notice<'a> {
    /// An event that is part of the history.
    Event(&'a RunEvent),
    /// A client finished a step.
    Step {
        /// Who.
        client: ClientId,
        /// Steps done in this local round.
        done: u64,
        /// Steps of the local round.
        of: u64,
    },
}

/// Called on the supervisor's thread; must not block.
pub type Observer = Box<dyn FnMut(Notice<'_>)>;

/// Why the history could not be written.
#[derive(Debug, Error)]
#[error("failed to write {path}")]
pub struct JournalError {
    /// The event log.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// Appends events to the log and passes them on.
pub struct Journal {
    path: PathBuf,
    file: File,
    bytes: u64,
    observer: Observer,
}

impl Journal {
    /// Opens the log at `path` and drops what lies behind its first `keep` bytes: events of a round
    /// that was not committed happen again.
    pub fn open(path: &Path, keep: u64, observer: Observer) -> Result<Self, JournalError> {
        let failed = |source| JournalError { path: path.to_owned(), source };
        let options = OpenOptions::new().create(true).append(true).open(path);
        let file = options.map_err(failed)?;
        file.set_len(keep).map_err(failed)?;
        Ok(Self { path: path.to_owned(), file, bytes: keep, observer })
    }

    /// Writes an event and tells the observer.
    pub fn record(&mut self, kind: EventKind) -> Result<(), JournalError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let event = RunEvent { time_ms: now.as_millis() as u64, kind };
        let mut line = serde_json::to_vec(&event).expect("events are plain data");
        line.push(b'\n');
        self.file
            .write_all(&line)
            .map_err(|source| JournalError { path: self.path.clone(), source })?;
        self.bytes += line.len() as u64;
        (self.observer)(Notice::Event(&event));
        Ok(())
    }

    /// Waits until everything is on the disk; returns the length of the log.
    pub fn sync(&mut self) -> Result<u64, JournalError> {
        self.file.sync_data().map_err(|source| JournalError { path: self.path.clone(), source })?;
        Ok(self.bytes)
    }

    /// Tells the observer of a step; steps are not part of the history.
    pub fn step(&mut self, client: ClientId, done: u64, of: u64) {
        (self.observer)(Notice::Step { client, done, of });
    }
}
