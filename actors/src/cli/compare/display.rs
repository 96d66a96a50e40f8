//! What a person sees of a study: a line for each run under way on a terminal, a line for each that ended.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::time::Duration;

use fellrec::federation::round::Outcome;
use fellrec::history::EventKind;
use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::plan::{Cell, CellState};
use super::runner::{News, Report};
use super::say;
use crate::cli::Verbosity;
use crate::cli::progress::{AboveBar, mean_ndcg};

/// Writes progress to standard error, so that standard output stays the results'.
pub struct Display {
    bars: MultiProgress,
    overall: ProgressBar,
    running: BTreeMap<usize, Line>,
    /// Name and rounds of every cell that is due.
    cells: Vec<(String, u64)>,
    done: usize,
    of: usize,
    quiet: bool,
}

/// A cell that runs.
struct Line {
    bar: ProgressBar,
    loss: String,
    ndcg10: String,
}

impl Display {
    /// A display of the cells that are due, `finished` others being done already.
    pub fn new(due: &[(&Cell, CellState)], finished: usize, verbosity: &Verbosity) -> Self {
        let quiet = verbosity.is_quiet();
        let target = match !quiet && io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bars = MultiProgress::with_draw_target(target);
        let of = finished + due.len();
        let overall = bars.add(
            ProgressBar::new(of as u64)
                .with_style(style("{prefix:30} [{bar:20}] {pos}/{len} runs   {elapsed}")),
        );
        overall.set_prefix("all");
        overall.set_position(finished as u64);
        overall.enable_steady_tick(Duration::from_secs(1));
        let cells = due.iter().map(|(cell, _)| (cell.name(), cell.config.federation.rounds));
        let cells = cells.collect();
        if finished > 0 && !quiet {
            say(&format!("{finished} of {of} runs are finished already"));
        }
        Self { bars, overall, running: BTreeMap::new(), cells, done: finished, of, quiet }
    }

    /// Where log lines go, so that they and the bars do not run into each other.
    pub fn above(&self) -> AboveBar {
        AboveBar::new(self.overall.clone())
    }

    /// A line for people.
    pub fn line(&self, text: &str) {
        if !self.quiet {
            self.bars.suspend(|| say(text));
        }
    }

    /// Takes news of a cell in.
    pub fn take(&mut self, (place, news): Report) {
        match news {
            News::Begun => {
                let (name, rounds) = &self.cells[place];
                let bar = ProgressBar::new(*rounds)
                    .with_style(style("{prefix:30} [{bar:20}] round {pos}/{len}   {msg}"));
                let bar = self.bars.insert_before(&self.overall, bar);
                bar.set_prefix(name.clone());
                let (loss, ndcg10) = ("-".to_owned(), "-".to_owned());
                self.running.insert(place, Line { bar, loss, ndcg10 });
            }
            News::Event(event) => {
                if let Some(line) = self.running.get_mut(&place) {
                    line.take(&event);
                }
            }
            News::Ended(ended) => self.ended(place, ended),
        }
    }

    fn ended(&mut self, place: usize, ended: Result<Outcome, String>) {
        let Some(line) = self.running.remove(&place) else { return };
        line.bar.finish_and_clear();
        let (name, _) = &self.cells[place];
        let failed = match ended {
            Ok(Outcome::Stopped) => return,
            Ok(Outcome::RoundFailed(reason)) | Err(reason) => Some(reason),
            Ok(Outcome::RoundsDone | Outcome::PatienceSpent) => None,
        };
        if let Some(reason) = failed {
            // Said even to the quiet: it is an error.
            self.bars.suspend(|| say(&format!("error: {name}: {reason}")));
            return;
        }
        self.done += 1;
        self.overall.inc(1);
        self.line(&format!(
            "{name}: done, {} rounds, validation NDCG@10 {}, {} ({} of {} runs)",
            line.bar.position(),
            line.ndcg10,
            HumanDuration(line.bar.elapsed()),
            self.done,
            self.of
        ));
    }
}

impl Line {
    fn take(&mut self, event: &EventKind) {
        match event {
            EventKind::Resumed { round, .. } => self.bar.set_position(round.0),
            EventKind::RoundCommitted { attempt, clients, .. } => {
                self.bar.set_position(attempt.round.next().0);
                let losses = clients.values().map(|part| part.report.loss);
                self.loss = format!("{:.3}", losses.sum::<f64>() / clients.len() as f64);
            }
            EventKind::RoundEvaluated { clients, .. } => self.ndcg10 = mean_ndcg(clients),
            _ => return,
        }
        self.bar.set_message(format!("loss {}   NDCG@10 {}", self.loss, self.ndcg10));
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template);
    style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}
