//! The run in one breath, as numbers.

use std::collections::BTreeMap;

use serde::Serialize;

use super::History;
use super::series::ndcg10;
use crate::federation::round::Outcome;
use crate::ids::{ClientId, Round};
use crate::ranking::{Balance, ClientValue, Metrics};

/// Where a run stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "outcome")]
pub enum RunState {
    /// It runs, or it was killed: the log cannot tell.
    Unfinished,
    /// It ended.
    Finished(Outcome),
}

/// What a result was measured on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Test targets, each client's best state, full ranking.
    Test,
    /// Validation targets of the newest state: all there is before the end.
    Validation,
}

/// Head of a report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Where the run stands.
    pub run: RunState,
    /// Name of the data set.
    pub dataset: String,
    /// Items that are ranked.
    pub items: u64,
    /// Clients.
    pub clients: usize,
    /// Their users, if all are known.
    pub users: Option<u64>,
    /// Committed rounds.
    pub rounds: u64,
    /// Wall time of rounds and evaluations.
    pub seconds: f64,
    /// NDCG@10, if it was measured.
    pub ndcg10: Option<KeyFigure>,
}

/// NDCG@10 over the full catalogue, unweighted means over clients.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KeyFigure {
    /// What it was measured on.
    pub protocol: Protocol,
    /// Ranking by popularity; known at the end.
    pub popularity: Option<f64>,
    /// The untrained model; unknown where the start was not evaluated.
    pub before: Option<f64>,
    /// The trained model and its spread over clients.
    pub after: Balance,
}

impl History {
    /// The run in one breath.
    pub fn summary(&self) -> Summary {
        let run = match &self.finish {
            None => RunState::Unfinished,
            Some(finish) => RunState::Finished(finish.outcome.clone()),
        };
        Summary {
            run,
            dataset: self.dataset.clone(),
            items: self.items,
            clients: self.clients.len(),
            users: self.users(),
            rounds: self.completed_rounds(),
            seconds: self.seconds(),
            ndcg10: self.tested().or_else(|| self.validated()),
        }
    }

    fn tested(&self) -> Option<KeyFigure> {
        let test = &self.finish.as_ref()?.test;
        let of = |metrics: fn(&crate::history::TestResult) -> &Metrics| {
            balance(test.iter().map(|(client, result)| (client, metrics(result))))
        };
        Some(KeyFigure {
            protocol: Protocol::Test,
            popularity: of(|result| &result.popularity).map(|popularity| popularity.mean),
            before: of(|result| &result.before).map(|before| before.mean),
            after: of(|result| &result.after)?,
        })
    }

    fn validated(&self) -> Option<KeyFigure> {
        let (_, newest) = self.evaluations.last_key_value()?;
        let start = self.evaluations.get(&Round(0)).and_then(|start| balance(&start.clients));
        Some(KeyFigure {
            protocol: Protocol::Validation,
            popularity: None,
            before: start.map(|start| start.mean),
            after: balance(&newest.clients)?,
        })
    }

    /// Balance of validation NDCG@10, by state.
    pub fn balance(&self) -> BTreeMap<Round, Balance> {
        let evaluated = self.evaluations.iter();
        evaluated.filter_map(|(state, e)| Some((*state, balance(&e.clients)?))).collect()
    }
}

fn balance<'a>(clients: impl IntoIterator<Item = (&'a ClientId, &'a Metrics)>) -> Option<Balance> {
    let values = clients.into_iter().filter_map(|(client, m)| Some((*client, ndcg10(m)?)));
    balance_of(values)
}

/// The balance of one value a client; `None` without any, or if one is no metric.
pub(super) fn balance_of(values: impl Iterator<Item = (ClientId, f64)>) -> Option<Balance> {
    let value = |(client, value)| ClientValue { client, value, local_only: None, central: None };
    Balance::of(&values.map(value).collect::<Vec<_>>()).ok()
}
