//! Events as JSON lines on standard output, written by a thread of their own: whoever reads them slowly, or not at
//! all, does not hold up the run.

use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread;
use std::time::{Duration, Instant};

use fellrec::history::RunEvent;

use super::{print, say};

/// Lines that may wait for the reader.
const WAITING: usize = 1024;
/// How long the end of a run waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Takes events for standard output.
#[derive(Debug)]
pub struct JsonLines {
    lines: SyncSender<Option<String>>,
    missed: bool,
}

/// Waits for the last line.
#[derive(Debug)]
pub struct LastLine {
    lines: SyncSender<Option<String>>,
    written: Receiver<()>,
}

/// Starts the thread that writes.
pub fn json_lines() -> (JsonLines, LastLine) {
    let (lines, waiting) = mpsc::sync_channel::<Option<String>>(WAITING);
    let (tell, written) = mpsc::channel();
    thread::spawn(move || {
        while let Ok(Some(line)) = waiting.recv() {
            // A reader that went away does not stop the training.
            let _ = print(&line);
        }
        // Nobody waits for it where the process ends otherwise.
        let _ = tell.send(());
    });
    (JsonLines { lines: lines.clone(), missed: false }, LastLine { lines, written })
}

impl JsonLines {
    /// Writes an event when its turn comes; one too many is left out, which is said once.
    pub fn write(&mut self, event: &RunEvent) {
        let line = serde_json::to_string(event).expect("events are plain data");
        if let Err(TrySendError::Full(_)) = self.lines.try_send(Some(line))
            && !self.missed
        {
            self.missed = true;
            say("warning: nobody reads the JSON lines; what is left out stands in events.jsonl");
        }
    }
}

impl LastLine {
    /// Returns when all is written, or when the reader has not taken it for a while.
    pub fn wait(self) {
        let started = Instant::now();
        while let Err(TrySendError::Full(_)) = self.lines.try_send(None) {
            if started.elapsed() > PATIENCE {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        // Too late is told by what the reader did not get.
        let _ = self.written.recv_timeout(PATIENCE.saturating_sub(started.elapsed()));
    }
}
