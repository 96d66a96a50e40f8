//! What each client got out of the run.

use std::collections::{BTreeMap, BTreeSet};

use super::{Column, Table};
use crate::history::TestResult;
use crate::ids::{ClientId, Round};
use crate::ranking::{Balance, Metrics};
use crate::report::History;
use crate::report::format::{count, metric, or_nothing};
use crate::report::series::ndcg10;
use crate::report::summary::balance_of;

/// With more clients than this, a short table shows the extremes.
pub const MANY_CLIENTS: usize = 20;

/// Which clients have a row. Means and balance are over all of them either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// Every one.
    All,
    /// Of more than [`MANY_CLIENTS`] the ten with the lowest and the ten with the highest NDCG@10.
    Extremes,
}

/// One column of metrics: where they come from, and by client.
type Stage<'a> = (&'static str, BTreeMap<ClientId, &'a Metrics>);

/// Ranking quality by client, with mean and balance.
///
/// Of a run that came to its end: test metrics of popularity, the untrained model and each client's
/// best state. Before: validation metrics of the first and the newest state.
pub fn final_table(history: &History, clients: Clients) -> Table {
    let (protocol, stages, best) = stages(history);
    let shown = shown_clients(history, stages.last(), clients);
    let omitted = history.clients.len() - shown.len();
    let few = match omitted {
        0 => String::new(),
        _ => format!(
            "; the {0} clients with the lowest NDCG@10 and the {0} with the highest",
            MANY_CLIENTS / 2
        ),
    };

    let mut columns = vec![Column::words("client"), Column::numbers("users")];
    for (group, _) in METRICS {
        columns.extend(stages.iter().map(|(stage, _)| Column::numbers(stage).of(group)));
    }
    if !best.is_empty() {
        columns.push(Column::numbers("best round"));
    }

    let row = |client: &ClientId| {
        let mut row = vec![
            client.to_string(),
            or_nothing(history.clients[client].as_ref(), |own| count(own.users)),
        ];
        for (_, value) in METRICS {
            let cell = |(_, metrics): &Stage<'_>| {
                or_nothing(metrics.get(client).and_then(|metrics| value(metrics)), metric)
            };
            row.extend(stages.iter().map(cell));
        }
        if !best.is_empty() {
            row.push(or_nothing(best.get(client), Round::to_string));
        }
        row
    };
    let rows = shown.iter().map(row).collect();
    let foot = foot(history, &stages, columns.len());
    let caption = format!("{protocol}, ranked over the full catalogue{few}");
    Table { caption, columns, rows, foot }
}

type MetricOf = fn(&Metrics) -> Option<f64>;

const METRICS: [(&str, MetricOf); 3] = [
    ("NDCG@5", |metrics| metrics.ndcg.get(&5).copied()),
    ("NDCG@10", ndcg10),
    ("Recall@10", |metrics| metrics.recall.get(&10).copied()),
];

fn stages(history: &History) -> (&'static str, Vec<Stage<'_>>, BTreeMap<ClientId, Round>) {
    if let Some(finish) = history.finish.as_ref().filter(|finish| !finish.test.is_empty()) {
        let of = |metrics: fn(&TestResult) -> &Metrics| {
            finish.test.iter().map(|(client, result)| (*client, metrics(result))).collect()
        };
        let stages = vec![
            ("popularity", of(|result| &result.popularity)),
            ("before", of(|result| &result.before)),
            ("after", of(|result| &result.after)),
        ];
        let best = finish.test.iter().map(|(client, result)| (*client, result.best_round));
        return ("Test", stages, best.collect());
    }
    let of = |state: Option<&Round>| {
        let evaluation = state.and_then(|state| history.evaluations.get(state));
        let clients = evaluation.into_iter().flat_map(|evaluation| &evaluation.clients);
        clients.map(|(client, metrics)| (*client, metrics)).collect()
    };
    let newest = history.evaluations.keys().next_back();
    let stages = vec![("start", of(Some(&Round(0)))), ("newest", of(newest))];
    ("Validation, since there is no final test", stages, BTreeMap::new())
}

/// Clients that get a row: all by number, or the extremes from the lowest NDCG@10 up.
fn shown_clients(history: &History, stage: Option<&Stage<'_>>, clients: Clients) -> Vec<ClientId> {
    let extremes = clients == Clients::Extremes && history.clients.len() > MANY_CLIENTS;
    let Some((_, metrics)) = stage.filter(|_| extremes) else {
        return history.clients.keys().copied().collect();
    };
    let values = metrics.iter().filter_map(|(client, metrics)| Some((ndcg10(metrics)?, *client)));
    let mut ascending: Vec<(f64, ClientId)> = values.collect();
    ascending.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let half = MANY_CLIENTS / 2;
    if ascending.len() > MANY_CLIENTS {
        ascending.drain(half..ascending.len() - half);
    }
    ascending.into_iter().map(|(_, client)| client).collect()
}

/// Mean and balance of every column of metrics.
fn foot(history: &History, stages: &[Stage<'_>], columns: usize) -> Vec<Vec<String>> {
    let balances: Vec<Option<Balance>> = METRICS
        .iter()
        .flat_map(|(_, value)| stages.iter().map(move |(_, metrics)| (value, metrics)))
        .map(|(value, metrics)| {
            balance_of(metrics.iter().filter_map(|(client, m)| Some((*client, value(m)?))))
        })
        .collect();
    let users = history.users();
    let row = |name: &str, users: String, shown: fn(&Balance) -> String| {
        let mut row = vec![name.to_owned(), users];
        row.extend(balances.iter().map(|balance| or_nothing(balance.as_ref(), shown)));
        row.resize(columns, String::new());
        row
    };
    vec![
        row("mean", or_nothing(users, count), |balance| metric(balance.mean)),
        row("std. deviation", String::new(), |balance| metric(balance.standard_deviation)),
        row("max - min", String::new(), |balance| metric(balance.range)),
        row("worst client", String::new(), |balance| balance.worst.client.to_string()),
        row("worst / best", String::new(), |balance| {
            or_nothing(balance.worst_to_best, |ratio| format!("{ratio:.2}"))
        }),
        row("Gini", String::new(), |balance| format!("{:.3}", balance.gini)),
    ]
}

/// Results under sampled negatives, if the run was asked for any. Never to be compared with full ranking.
pub fn sampled_table(history: &History) -> Option<Table> {
    let test = &history.finish.as_ref()?.test;
    let sampled = || {
        let results = test.iter();
        results.filter_map(|(client, result)| Some((client, result.sampled.as_ref()?)))
    };
    let protocols: BTreeSet<&str> = sampled().map(|(_, result)| result.protocol.as_str()).collect();
    if protocols.is_empty() {
        return None;
    }
    let mut columns = vec![Column::words("client")];
    columns.extend(METRICS.iter().map(|(name, _)| Column::numbers(name)));
    let rows = sampled().take(MANY_CLIENTS).map(|(client, result)| {
        let cells = METRICS.iter().map(|(_, value)| or_nothing(value(&result.metrics), metric));
        std::iter::once(client.to_string()).chain(cells).collect()
    });
    let mean = METRICS.iter().map(|(_, value)| {
        let values = sampled().filter_map(|(client, r)| Some((*client, value(&r.metrics)?)));
        or_nothing(balance_of(values), |balance| metric(balance.mean))
    });
    let protocols = Vec::from_iter(protocols).join(", ");
    Some(Table {
        caption: format!("Test against {protocols}; not to be compared with full ranking"),
        columns,
        rows: rows.collect(),
        foot: vec![std::iter::once("mean".to_owned()).chain(mean).collect()],
    })
}
