//! What a person sees of a run: a bar of the round's steps on a terminal, and a line a round.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use fellrec::history::{ClientRound, EventKind, RunEvent};
use fellrec::ids::{ClientId, Round};
use fellrec::ranking::Metrics;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::journal::Notice;

const HEADER: &str =
    "round     loss  NDCG@10    worst client        w_c   seconds   up/client  down/client";

/// Writes progress to standard error, so that standard output stays the results'.
pub struct Progress {
    bar: ProgressBar,
    shown: bool,
    header_due: bool,
    steps: BTreeMap<ClientId, (u64, u64)>,
    committed: Option<Committed>,
}

/// A committed round that waits for its evaluation.
struct Committed {
    round: Round,
    clients: BTreeMap<ClientId, ClientRound>,
    absent: usize,
    seconds: f64,
}

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
        Self { bar, shown, header_due: true, steps: BTreeMap::new(), committed: None }
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
                let users: u64 = clients.values().map(|client| client.users).sum();
                self.line(&format!(
                    "{dataset}: {} clients, {users} users, {items} items",
                    clients.len()
                ));
                self.stage("ranking the start");
            }
            EventKind::Resumed { round, skipped } => {
                for (broken, reason) in skipped {
                    self.line(&format!("commit of round {broken} passed over: {reason}"));
                }
                self.line(&format!("going on from the commit of round {round}"));
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
            EventKind::RoundCommitted { attempt, seconds, clients, absent, .. } => {
                self.row(None);
                let (clients, absent) = (clients.clone(), absent.len());
                let round = attempt.round.next();
                self.committed = Some(Committed { round, clients, absent, seconds: *seconds });
                self.stage("ranking");
            }
            EventKind::RoundEvaluated { round, clients, .. } => {
                if self.committed.as_ref().is_none_or(|committed| committed.round != *round) {
                    let empty = Committed {
                        round: *round,
                        clients: BTreeMap::new(),
                        absent: 0,
                        seconds: 0.0,
                    };
                    self.committed = Some(empty);
                }
                self.row(Some(clients));
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
                self.bar.finish_and_clear();
            }
        }
    }

    /// The line of the round that was committed last, once.
    fn row(&mut self, metrics: Option<&BTreeMap<ClientId, Metrics>>) {
        let Some(Committed { round, clients, absent, seconds }) = self.committed.take() else {
            return;
        };
        if std::mem::take(&mut self.header_due) {
            self.line(HEADER);
        }
        let (ndcg, worst) = metrics.map_or(("-".into(), "-".into()), |m| quality(m));
        let line = if clients.is_empty() {
            format!("{round:>5} {:>8} {ndcg:>8} {worst:>15}", "-")
        } else {
            let count = clients.len() as f64;
            let labels: f64 = clients.values().map(|c| c.report.labels as f64).sum();
            let loss: f64 =
                clients.values().map(|c| c.report.loss * c.report.labels as f64).sum::<f64>();
            let openness = clients.values().map(|c| c.openness);
            let low = openness.clone().fold(f64::INFINITY, f64::min);
            let high = openness.fold(f64::NEG_INFINITY, f64::max);
            let mean = |select: fn(&ClientRound) -> u64| {
                mebibytes(clients.values().map(select).sum::<u64>() as f64 / count)
            };
            format!(
                "{round:>5} {:>8.4} {ndcg:>8} {worst:>15} {:>10} {seconds:>9.1} {:>11} {:>12}{}",
                loss / labels.max(1.0),
                format!("{low:.2}-{high:.2}"),
                mean(|c| c.cost.bytes_up),
                mean(|c| c.cost.bytes_down),
                if absent > 0 { format!("  {absent} absent") } else { String::new() },
            )
        };
        self.line(&line);
    }

    fn stage(&self, what: &str) {
        self.bar.set_message(what.to_owned());
        self.bar.enable_steady_tick(Duration::from_millis(200));
    }

    fn line(&self, text: &str) {
        if self.shown {
            self.bar.suspend(|| eprintln!("{text}"));
        }
    }
}

/// Mean NDCG@10 over clients, and the worst client's.
fn quality(clients: &BTreeMap<ClientId, Metrics>) -> (String, String) {
    let values: Vec<(ClientId, f64)> =
        clients.iter().filter_map(|(c, m)| Some((*c, *m.ndcg.get(&10)?))).collect();
    let Some((worst, value)) = values.iter().min_by(|a, b| a.1.total_cmp(&b.1)) else {
        return ("-".into(), "-".into());
    };
    let mean = values.iter().map(|(_, value)| value).sum::<f64>() / values.len() as f64;
    (format!("{mean:.4}"), format!("{value:.4} ({})", worst.0))
}

fn mebibytes(bytes: f64) -> String {
    format!("{:.1} MiB", bytes / (1 << 20) as f64)
}
