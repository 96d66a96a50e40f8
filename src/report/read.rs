//! From the lines of an event log to a [`History`].

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use super::{History, ReportError, io_error};
use crate::history::{RunEvent, SCHEMA};

impl History {
    /// Reads an event log.
    ///
    /// A last line that is no event, as a kill leaves it, is dropped and counted. Under a newer schema
    /// so is every line that this build cannot read; [`History::warnings`] tells.
    ///
    /// # Errors
    /// A file that cannot be read, a line that is no event, or a log that does not begin with `run_started`.
    pub fn read(path: &Path) -> Result<Self, ReportError> {
        let mut reader = BufReader::new(File::open(path).map_err(io_error(path))?);
        let mut history = None;
        let mut torn_lines = 0;
        let mut bytes = Vec::new();
        for line in 1.. {
            bytes.clear();
            if reader.read_until(b'\n', &mut bytes).map_err(io_error(path))? == 0 {
                break;
            }
            match serde_json::from_slice::<RunEvent>(&bytes) {
                Ok(event) => take(&mut history, event, path)?,
                Err(_) if reader.fill_buf().map_err(io_error(path))?.is_empty() => torn_lines += 1,
                Err(source) => match &mut history {
                    Some(history) if history.schema > SCHEMA => history.unread_lines += 1,
                    _ => return Err(ReportError::Line { path: path.to_owned(), line, source }),
                },
            }
        }
        let mut history = history.ok_or_else(|| ReportError::NoStart { path: path.to_owned() })?;
        history.torn_lines = torn_lines;
        Ok(history)
    }
}

fn take(history: &mut Option<History>, event: RunEvent, path: &Path) -> Result<(), ReportError> {
    match history {
        Some(history) => history.apply(event),
        None => {
            let no_start = || ReportError::NoStart { path: path.to_owned() };
            *history = Some(History::start(event).ok_or_else(no_start)?);
        }
    }
    Ok(())
}
