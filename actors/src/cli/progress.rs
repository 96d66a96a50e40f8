//! What a person sees of a run: a bar of the round's steps on a terminal, and a line a round.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use fellrec::history::{EventKind, RunEvent};
use fellrec::ids::{ClientId, Round};
use fellrec::ranking::Metrics;
use fellrec::report::tables::RoundRow;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::say;
use crate::journal::Notice;

/// Writes progress to standard error, so that standard output stays the results'.
pub struct Progress {
    bar: ProgressBar,
    shown: bool,
    header_due: bool,
    steps: BTreeMap<ClientId, (u64, u64)>,
    /// A committed round that waits for its evaluation.
    committed: Option<EventKind>,
    /// Round that a resumed process goes on from.
    resumed: Option<Round>,
    /// Users of all evaluations so far, and the seconds that took.
    ranked_users: u64,
    ranked_seconds: f64,
}

/// Standard error, written above the bar where there is one.
#[derive(Clone)]
pub struct AboveBar(ProgressBar);

impl AboveBar {
    /// Above this bar, and all others that it is drawn with.
    pub fn new(bar: ProgressBar) -> Self {
        Self(bar)
    }
}

impl Write for AboveBar {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Widths of the columns of [`RoundRow`], the last one open; the others fit 80 characters.
const WIDTHS: [usize; 8] = [5, 7, 7, 17, 12, 9, 10, 0];

impl Progress {
    /// A display, or none if it is not wanted.
    pub fn new(shown: bool) -> Self {
        let terminal = shown && std::io::stderr().is_terminal();
        let bar = ProgressBar::new(0);
        bar.set_draw_target(if terminal {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        });
        let style = ProgressStyle::with_template("{msg:24} [{bar:30}] {pos}/{len} steps {elapsed}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        Self {
            bar,
            shown,
            header_due: true,
            steps: BTreeMap::new(),
            committed: None,
            resumed: None,
            ranked_users: 0,
            ranked_seconds: 0.0,
        }
    }

    /// Where log lines go, so that they and the bar do not run into each other.
    pub fn above(&self) -> AboveBar {
        AboveBar::new(self.bar.clone())
    }

    /// Takes a notice in.
    pub fn notice(&mut self, notice: &Notice<'_>) {
        match notice {
            Notice::Step { client, done, of } => {
                self.steps.insert(*client, (*done, *of));
                self.bar.set_length(self.steps.values().map(|(_, of)| of).sum());
                self.bar.set_position(self.steps.values().map(|(done, _)| done).sum());
            }
            Notice::Event(event) => self.event(event),
        }
    }

    fn event(&mut self, event: &RunEvent) {
        match &event.kind {
            EventKind::RunStarted { dataset, items, clients, .. } => {
                let users = clients.values().map(|client| Some(client.as_ref()?.users));
                let users = users.sum::<Option<u64>>();
                let users = users.map_or(String::new(), |users| format!("{users} users, "));
                let clients = clients.len();
                self.line(&format!("{dataset}: {clients} clients, {users}{items} items"));
                self.stage("ranking the start");
            }
            EventKind::Resumed { round, skipped } => {
                for (broken, reason) in skipped {
                    self.line(&format!("commit of round {broken} passed over: {reason}"));
                }
                self.line(&format!("going on from the commit of round {round}"));
                self.resumed = Some(*round);
                self.stage("ranking");
            }
            EventKind::RoundOpened { attempt, clients } => {
                self.steps.clear();
                self.bar.reset();
                if attempt.attempt > 0 {
                    self.line(&format!("round {} opened again", attempt.round));
                }
                self.stage(&format!("round {}: {} clients", attempt.round, clients.len()));
            }
            EventKind::MemberRestarted { member, cause, .. } => {
                self.line(&format!("{member} started again: {cause}"));
            }
            EventKind::RoundCommitted { .. } => {
                self.row(None);
                self.committed = Some(event.kind.clone());
                self.stage("ranking");
            }
            EventKind::RoundEvaluated { clients, seconds, .. } => {
                self.ranked_users += clients.values().map(|metrics| metrics.users).sum::<u64>();
                self.ranked_seconds += seconds;
                if self.committed.is_none() {
                    let mean = mean_ndcg(clients);
                    let state = self.resumed.map_or("start".to_owned(), |r| format!("round {r}"));
                    self.line(&format!("{state}: mean validation NDCG@10 {mean}"));
                }
                self.row(Some(&event.kind));
                self.stage("");
            }
            EventKind::HeatingChanged { round, heating } => {
                self.line(&format!(
                    "heating from round {round} on: alpha {}, beta {}",
                    heating.alpha, heating.beta
                ));
            }
            EventKind::RunFinished { .. } => {
                self.row(None);
                if self.ranked_users > 0 {
                    let speed = self.ranked_users as f64 / self.ranked_seconds;
                    let users = self.ranked_users;
                    self.line(&format!("ranked {users} validation users, {speed:.0} users/s"));
                }
                self.bar.finish_and_clear();
            }
        }
    }

    /// The line of the round that was committed last, once.
    fn row(&mut self, evaluated: Option<&EventKind>) {
        let Some(committed) = self.committed.take() else { return };
        let Some(row) = RoundRow::from_events(&committed, evaluated) else { return };
        if std::mem::take(&mut self.header_due) {
            let titles: Vec<String> = RoundRow::columns().into_iter().map(|c| c.name).collect();
            self.line(&aligned(&titles));
        }
        self.line(&aligned(&row.cells()));
    }

    fn stage(&self, what: &str) {
        self.bar.set_message(what.to_owned());
        self.bar.enable_steady_tick(Duration::from_millis(200));
    }

    fn line(&self, text: &str) {
        if self.shown {
            self.bar.suspend(|| say(text));
        }
    }
}

/// Cells right-aligned under each other.
fn aligned(cells: &[String]) -> String {
    let padded = cells.iter().zip(WIDTHS).map(|(cell, width)| format!("{cell:>width$}"));
    padded.collect::<Vec<_>>().join(" ").trim_end().to_owned()
}

/// Mean NDCG@10 over clients, as text.
pub fn mean_ndcg(clients: &BTreeMap<ClientId, Metrics>) -> String {
    let values: Vec<f64> = clients.values().filter_map(|m| m.ndcg.get(&10).copied()).collect();
    if values.is_empty() {
        return "-".to_owned();
    }
    format!("{:.4}", values.iter().sum::<f64>() / values.len() as f64)
}
