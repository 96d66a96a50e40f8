//! One line a round, as a run prints it while it goes.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Column, Table};
use crate::federation::round::{Absence, Attempt};
use crate::history::{ClientRound, EventKind};
use crate::ids::{ClientId, Round};
use crate::ranking::Metrics;
use crate::report::History;
use crate::report::format::{bytes, metric, or_nothing, seconds};
use crate::report::series::ndcg10;
use crate::report::summary::balance_of;

/// A committed round and what validation said of the state it made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RoundRow {
    /// Rounds completed with this one.
    pub round: String,
    /// Mean training loss of the participants.
    pub loss: String,
    /// Mean validation NDCG@10; a dash in a round without evaluation.
    pub ndcg10: String,
    /// Lowest validation NDCG@10 and whose it is.
    pub worst: String,
    /// Smallest and largest openness w_c.
    pub openness: String,
    /// Wall time, evaluation included.
    pub seconds: String,
    /// Traffic of all clients, both ways.
    pub bytes: String,
    /// What was not as usual: absent clients, repeated attempts. Mostly empty.
    pub notes: String,
}

/// The parts of a committed round that a row needs.
struct Committed<'a> {
    attempt: Attempt,
    seconds: f64,
    clients: &'a BTreeMap<ClientId, ClientRound>,
    absent: &'a BTreeMap<ClientId, Absence>,
}

impl RoundRow {
    /// The columns, in the order of [`RoundRow::cells`].
    pub fn columns() -> Vec<Column> {
        let [words, numbers] = [Column::words, Column::numbers];
        vec![
            numbers("round"),
            numbers("loss"),
            numbers("NDCG@10"),
            numbers("worst client"),
            numbers("openness"),
            numbers("time"),
            numbers("traffic"),
            words("notes"),
        ]
    }

    /// The row of a [`EventKind::RoundCommitted`] and the [`EventKind::RoundEvaluated`] after it, if
    /// the round was evaluated. `None` for other events.
    pub fn from_events(committed: &EventKind, evaluated: Option<&EventKind>) -> Option<Self> {
        let EventKind::RoundCommitted { attempt, seconds, clients, absent, .. } = committed else {
            return None;
        };
        let evaluation = match evaluated {
            None => None,
            Some(EventKind::RoundEvaluated { clients, seconds, .. }) => Some((clients, *seconds)),
            Some(_) => return None,
        };
        let committed = Committed { attempt: *attempt, seconds: *seconds, clients, absent };
        Some(Self::new(&committed, evaluation))
    }

    fn new(
        committed: &Committed<'_>,
        evaluation: Option<(&BTreeMap<ClientId, Metrics>, f64)>,
    ) -> Self {
        let Committed { attempt, clients, absent, .. } = committed;
        let measured = |(client, part): (&ClientId, &ClientRound)| {
            Some((*client, part.report.measured_loss()?))
        };
        let losses = clients.iter().filter_map(measured);
        let metrics = evaluation.into_iter().flat_map(|(clients, _)| clients);
        let ndcg = balance_of(metrics.filter_map(|(client, m)| Some((*client, ndcg10(m)?))));
        let traffic = clients.values().map(|part| part.cost.bytes_up + part.cost.bytes_down);
        let evaluation_seconds = evaluation.map_or(0.0, |(_, seconds)| seconds);
        let mut notes = Vec::new();
        if attempt.attempt > 0 {
            notes.push(format!("attempt {}", attempt.attempt + 1));
        }
        if !absent.is_empty() {
            notes.push(format!("{} absent", absent.len()));
        }
        Self {
            round: attempt.round.next().to_string(),
            loss: or_nothing(balance_of(losses), |loss| metric(loss.mean)),
            ndcg10: or_nothing(ndcg.as_ref(), |ndcg| metric(ndcg.mean)),
            worst: or_nothing(ndcg.as_ref(), |ndcg| {
                format!("{} {}", metric(ndcg.worst.value), ndcg.worst.client)
            }),
            openness: openness(clients),
            seconds: seconds(committed.seconds + evaluation_seconds),
            bytes: bytes(traffic.sum()),
            notes: notes.join(", "),
        }
    }

    /// The cells, one a column.
    pub fn cells(self) -> Vec<String> {
        let Self { round, loss, ndcg10, worst, openness, seconds, bytes, notes } = self;
        vec![round, loss, ndcg10, worst, openness, seconds, bytes, notes]
    }
}

impl History {
    /// The rows of all committed rounds.
    pub fn round_table(&self) -> Table {
        let row = |(round, committed): (&Round, &crate::report::CommittedRound)| {
            let evaluation = self.evaluations.get(&round.next());
            let parts = Committed {
                attempt: Attempt { round: *round, attempt: committed.attempt },
                seconds: committed.seconds,
                clients: &committed.clients,
                absent: &committed.absent,
            };
            RoundRow::new(&parts, evaluation.map(|e| (&e.clients, e.seconds))).cells()
        };
        Table {
            caption: "Rounds: mean training loss, validation NDCG@10".to_owned(),
            columns: RoundRow::columns(),
            rows: self.rounds.iter().map(row).collect(),
            foot: Vec::new(),
        }
    }
}

fn openness(clients: &BTreeMap<ClientId, ClientRound>) -> String {
    let values = || clients.values().map(|part| part.openness);
    let smallest = values().min_by(f64::total_cmp);
    let range = smallest.zip(values().max_by(f64::total_cmp));
    or_nothing(range, |(low, high)| format!("{low:.2} to {high:.2}"))
}
