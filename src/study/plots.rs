//! The plots of a study.

use std::collections::BTreeMap;

use super::results::{CellSummary, LOCAL, Study};
use crate::report::plots::{
    Band, BarSeries, Labels, LineSeries, PlotError, Stroke, grouped_bars, line_plot,
};
use crate::report::tables::MANY_CLIENTS;

/// Plots as SVG text.
#[derive(Clone, Debug)]
pub struct Plots {
    /// Validation NDCG@10 by round, one line a method, shaded from the lowest to the highest seed.
    pub curves: String,
    /// NDCG@5 of all users, of the mean client and of the worst, by method.
    pub ndcg5: String,
    /// Each client's NDCG@5 over its local-only one, by method; `None` without the method `local`, or
    /// with too many clients to tell apart.
    pub to_local: Option<String>,
}

/// Draws a study.
///
/// # Errors
/// The plotting library failed; never for the data.
pub fn plots(study: &Study) -> Result<Plots, PlotError> {
    Ok(Plots { curves: curves(study)?, ndcg5: ndcg5(study)?, to_local: to_local(study)? })
}

fn curves(study: &Study) -> Result<String, PlotError> {
    let labels = Labels {
        title: "Validation NDCG@10",
        x: "completed rounds",
        y: "NDCG@10, mean over users",
    };
    let (mut bands, mut lines) = (Vec::new(), Vec::new());
    for (place, method) in study.methods.iter().enumerate() {
        let by_round = rounds_of_all_seeds(study, method);
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let points = by_round.iter().map(|(round, values)| (*round, mean(values))).collect();
        lines.push(LineSeries { name: method.clone(), points, stroke: Stroke::Solid });
        if study.of_method(method).count() > 1 {
            let ends = |(round, values): (&u64, &Vec<f64>)| {
                let low = values.iter().copied().fold(f64::INFINITY, f64::min);
                (*round, low, values.iter().copied().fold(f64::NEG_INFINITY, f64::max))
            };
            bands.push(Band {
                name: None,
                line: place,
                points: by_round.iter().map(ends).collect(),
            });
        }
    }
    line_plot(&labels, &bands, &lines)
}

/// Values of the rounds that every seed has: a mean over fewer would jump where one ended early.
fn rounds_of_all_seeds(study: &Study, method: &str) -> BTreeMap<u64, Vec<f64>> {
    let mut by_round: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for (round, value) in study.of_method(method).flat_map(|cell| &cell.curve) {
        by_round.entry(*round).or_default().push(*value);
    }
    let seeds = study.of_method(method).count();
    by_round.retain(|_, values| values.len() == seeds);
    by_round
}

fn ndcg5(study: &Study) -> Result<String, PlotError> {
    let labels = Labels { title: "Test NDCG@5, mean over seeds", x: "", y: "NDCG@5" };
    let groups = ["all users", "mean client", "worst client"].map(str::to_owned);
    let bars = study.method_summaries().into_iter().map(|method| BarSeries {
        name: method.method,
        values: [method.ndcg5, method.client_mean, method.worst].map(|value| value.mean).to_vec(),
    });
    grouped_bars(&labels, &groups, &bars.collect::<Vec<_>>())
}

/// Clients of different seeds may be different groups of users, so they are lined up by how well they
/// do alone, and the mean over seeds is taken place by place.
fn to_local(study: &Study) -> Result<Option<String>, PlotError> {
    let cells = study.cell_summaries();
    let alone: BTreeMap<u64, Vec<_>> = cells
        .iter()
        .filter(|cell| cell.method == LOCAL)
        .map(|cell| (cell.seed, from_worst_to_best(cell)))
        .collect();
    let clients = alone.values().map(Vec::len).max().unwrap_or_default();
    if clients == 0 || clients > MANY_CLIENTS {
        return Ok(None);
    }
    let ratio = |cell: &CellSummary, place: usize| {
        let client = alone.get(&cell.seed)?.get(place)?;
        cell.clients.iter().find(|own| own.client == *client)?.ratios.to_local_only
    };
    let bars = study.methods.iter().map(|method| {
        let at = |place| {
            let own = cells.iter().filter(|cell| cell.method == *method);
            let values: Vec<f64> = own.filter_map(|cell| ratio(cell, place)).collect();
            values.iter().sum::<f64>() / values.len() as f64
        };
        BarSeries { name: method.clone(), values: (0..clients).map(at).collect() }
    });
    let labels = Labels {
        title: "NDCG@5 of a client over its local-only one",
        x: "clients, from the worst alone to the best",
        y: "ratio",
    };
    let groups: Vec<String> = (1..=clients).map(|place| place.to_string()).collect();
    grouped_bars(&labels, &groups, &bars.collect::<Vec<_>>()).map(Some)
}

fn from_worst_to_best(cell: &CellSummary) -> Vec<crate::ids::ClientId> {
    let mut clients = cell.clients.clone();
    clients
        .sort_by(|a, b| a.quality.ndcg5.total_cmp(&b.quality.ndcg5).then(a.client.cmp(&b.client)));
    clients.into_iter().map(|client| client.client).collect()
}
