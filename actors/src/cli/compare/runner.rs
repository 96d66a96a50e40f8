//! Runs cells side by side: a thread each with an actix system of its own, as many as asked for.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result};
use fellrec::blueprint::Blueprint;
use fellrec::federation::round::Outcome;
use fellrec::history::EventKind;
use fellrec::report;
use tokio::sync::{mpsc, watch};

use super::display::Display;
use super::plan::{Cell, CellState};
use crate::cli::ExitStatus;
use crate::cli::run::{STOPPING, StopSignals, drive, leave};
use crate::journal::{Notice, Observer};
use crate::system::{Federation, Launch};

/// How the cells of a study ended, taken together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Each came to its end, be it a failure.
    AllRun,
    /// A signal stopped them.
    Interrupted,
}

/// What a cell's thread tells the main thread.
pub enum News {
    /// The cell is being worked on.
    Begun,
    /// Something happened in its run.
    Event(Box<EventKind>),
    /// Its end: done, stopped, or why it failed.
    Ended(Result<Outcome, String>),
}

/// News of the cell at a place in the list.
pub type Report = (usize, News);

/// The cells' threads share this.
struct Work<'a> {
    cells: &'a [(&'a Cell, CellState)],
    next: AtomicUsize,
    keep_states: bool,
    stop: watch::Receiver<bool>,
}

/// Runs the cells, `jobs` at a time. A signal once asks all of them to stop, twice leaves at once.
///
/// # Errors
/// Signals cannot be received.
pub fn run_cells(
    cells: &[(&Cell, CellState)],
    jobs: usize,
    keep_states: bool,
    mut display: Display,
) -> Result<Ended> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _context = runtime.enter();
        StopSignals::listen().context("failed to listen for signals")?
    };
    let (reports, mut inbox) = mpsc::unbounded_channel();
    let (stop, stopped) = watch::channel(false);
    let work = Work { cells, next: AtomicUsize::new(0), keep_states, stop: stopped };
    thread::scope(|scope| {
        for _ in 0..jobs.min(cells.len()) {
            let (work, reports) = (&work, reports.clone());
            scope.spawn(move || work.run(&reports));
        }
        drop(reports);
        Ok(runtime.block_on(async {
            let mut ended = Ended::AllRun;
            loop {
                tokio::select! {
                    report = inbox.recv() => match report {
                        Some(report) => display.take(report),
                        None => return ended,
                    },
                    () = signals.next() => {
                        if ended == Ended::Interrupted {
                            leave(ExitStatus::INTERRUPTED_CODE);
                        }
                        ended = Ended::Interrupted;
                        display.line(STOPPING);
                        stop.send_replace(true);
                    }
                }
            }
        }))
    })
}

impl Work<'_> {
    /// Takes one cell after the other until none is left or all are asked to stop.
    fn run(&self, reports: &mpsc::UnboundedSender<Report>) {
        // OpenMP keeps the number for each thread; the compute threads set their own.
        tch::set_num_threads(1);
        while !*self.stop.borrow() {
            let place = self.next.fetch_add(1, Ordering::Relaxed);
            let Some((cell, state)) = self.cells.get(place) else { return };
            // The main thread listens as long as there are threads.
            let _ = reports.send((place, News::Begun));
            let run = AssertUnwindSafe(|| self.run_cell(cell, *state, place, reports));
            let ended = match catch_unwind(run) {
                Ok(ended) => ended.map_err(|error| format!("{error:#}")),
                Err(_) => Err("its thread panicked by a defect".to_owned()),
            };
            let _ = reports.send((place, News::Ended(ended)));
        }
    }

    fn run_cell(
        &self,
        cell: &Cell,
        state: CellState,
        place: usize,
        reports: &mpsc::UnboundedSender<Report>,
    ) -> Result<Outcome> {
        let launch = Launch {
            blueprint: Arc::new(Blueprint::new(cell.config.clone())?),
            folder: cell.folder.clone(),
            observer: observer(place, reports.clone()),
            rule: None,
        };
        let start = match state {
            CellState::New => Federation::start,
            CellState::Begun | CellState::Finished => Federation::resume,
        };
        let mut stop = self.stop.clone();
        let stop = async move {
            // The sender outlives every thread.
            let _ = stop.wait_for(|stop| *stop).await;
        };
        let outcome = drive(launch, async |launch| start(launch), || Ok(stop))?;
        if outcome.is_complete() {
            report::write(cell.folder.root())?;
            if !self.keep_states {
                cell.folder.remove_states().context("failed to remove the states of the run")?;
            }
        }
        Ok(outcome)
    }
}

fn observer(place: usize, reports: mpsc::UnboundedSender<Report>) -> Observer {
    Box::new(move |notice| {
        if let Notice::Event(event) = notice {
            let _ = reports.send((place, News::Event(Box::new(event.kind.clone()))));
        }
    })
}
