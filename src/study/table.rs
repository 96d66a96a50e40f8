//! The table of a study, one row a method.

use super::results::{MeanSd, MethodSummary, Study};
use super::{DRAWS, Gain};
use crate::report::format::{NOTHING, count, metric, or_nothing};
use crate::report::tables::{Column, Table};

/// The table: what every user gets, what every client gets, and the budget.
pub fn table(study: &Study) -> Table {
    let gain_over = match &study.baseline {
        Some(baseline) => format!("vs {baseline}"),
        None => "vs baseline".to_owned(),
    };
    const USERS: &str = "all users";
    const CLIENTS: &str = "clients, NDCG@5";
    let columns = vec![
        Column::words("method"),
        Column::numbers("seeds"),
        Column::numbers("NDCG@5").of(USERS),
        Column::numbers("NDCG@10").of(USERS),
        Column::numbers("Recall@10").of(USERS),
        Column::numbers(&gain_over).of(USERS),
        Column::numbers("mean").of(CLIENTS),
        Column::numbers("worst").of(CLIENTS),
        Column::numbers("max - min").of(CLIENTS),
        Column::numbers("sd").of(CLIENTS),
        Column::numbers("mean").of("to local"),
        Column::numbers("min").of("to local"),
        Column::numbers("mean").of("to central"),
        Column::numbers("min").of("to central"),
        Column::numbers("labels").of("budget"),
    ];
    let rows = study.method_summaries().iter().map(row).collect();
    let caption = format!(
        "{}: test, ranked over the full catalogue, mean ± sd over seeds; gain of NDCG@5 with a 95 % \
         interval of {} resamples of the users",
        study.dataset,
        count(DRAWS.into())
    );
    Table { caption, columns, rows, foot: Vec::new() }
}

fn row(method: &MethodSummary) -> Vec<String> {
    let ratio = |pair: Option<(f64, f64)>| {
        let shown = |value| format!("{value:.3}");
        [or_nothing(pair.map(|(mean, _)| mean), shown), or_nothing(pair.map(|(_, min)| min), shown)]
    };
    let mut row = vec![method.method.clone(), method.seeds.to_string()];
    row.extend([method.ndcg5, method.ndcg10, method.recall10].map(mean_sd));
    row.push(or_nothing(method.gain, gain));
    let clients = [method.client_mean, method.worst, method.range, method.client_sd];
    row.extend(clients.map(|value| metric(value.mean)));
    row.extend(ratio(method.to_local));
    row.extend(ratio(method.to_central));
    row.push(count(method.labels.mean.round() as u64));
    row
}

fn mean_sd(value: MeanSd) -> String {
    let sd = value.sd.map_or_else(|| NOTHING.to_owned(), metric);
    format!("{} ± {sd}", metric(value.mean))
}

/// In percent, as `+12.3 % [8.1, 16.4]`.
fn gain(gain: Gain) -> String {
    let Gain { relative, low, high } = gain;
    format!("{:+.1} % [{:+.1}, {:+.1}]", 100.0 * relative, 100.0 * low, 100.0 * high)
}
