//! The numbers of a study: of each cell, and of each method over its seeds.

use std::collections::BTreeMap;

use super::bootstrap::{Gain, Paired, relative_gain};
use super::cell::{CellResult, Quality};
use crate::ids::{ClientId, Round, UserId};
use crate::ranking::{Balance, ClientRatios, ClientValue};
use crate::seed;

/// Methods whose results the others' are divided by, client by client (method.md 7).
pub(super) const LOCAL: &str = "local";
const CENTRAL: &str = "central";

/// The finished cells of a study.
#[derive(Clone, Debug)]
pub struct Study {
    /// Name of the data set.
    pub dataset: String,
    /// Names of the methods, in the order of the table.
    pub methods: Vec<String>,
    /// Method that gains are over, if there is one.
    pub baseline: Option<String>,
    cells: Vec<CellResult>,
}

/// One cell in numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct CellSummary {
    /// Name of the method.
    pub method: String,
    /// Seed.
    pub seed: u64,
    /// Over all test users.
    pub users: Quality,
    /// One a client with test users, in client-id order.
    pub clients: Vec<ClientSummary>,
    /// NDCG@5 over clients.
    pub balance: Balance,
}

/// One client of a cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClientSummary {
    /// The client.
    pub client: ClientId,
    /// Over its test users.
    pub quality: Quality,
    /// State that was tested.
    pub best_round: Round,
    /// NDCG@5 over the client's own local-only and central one, where they were run and have the same users.
    pub ratios: ClientRatios,
}

/// Mean and spread over seeds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeanSd {
    /// Mean.
    pub mean: f64,
    /// Standard deviation of a sample, divided by n - 1; `None` with one seed.
    pub sd: Option<f64>,
}

/// One method over its seeds. Every number of a cell is taken first, then averaged over seeds.
#[derive(Clone, Debug, PartialEq)]
pub struct MethodSummary {
    /// Name of the method.
    pub method: String,
    /// Seeds that are finished.
    pub seeds: usize,
    /// NDCG@5 over all test users.
    pub ndcg5: MeanSd,
    /// NDCG@10 over all test users.
    pub ndcg10: MeanSd,
    /// Recall@10 over all test users.
    pub recall10: MeanSd,
    /// Gain of NDCG@5 over the baseline, over the seeds that both have; `None` for the baseline itself.
    pub gain: Option<Gain>,
    /// NDCG@5 as the unweighted mean over clients.
    pub client_mean: MeanSd,
    /// NDCG@5 of the worst client.
    pub worst: MeanSd,
    /// NDCG@5 of the best client minus that of the worst.
    pub range: MeanSd,
    /// Standard deviation of NDCG@5 over clients.
    pub client_sd: MeanSd,
    /// Mean and smallest ratio of a client's NDCG@5 to its local-only one.
    pub to_local: Option<(f64, f64)>,
    /// Mean and smallest ratio of a client's NDCG@5 to its central one.
    pub to_central: Option<(f64, f64)>,
    /// Labels trained on by a cell.
    pub labels: MeanSd,
}

impl MeanSd {
    /// Of one value a seed; `None` without any.
    pub fn of(values: &[f64]) -> Option<Self> {
        let count = values.len() as f64;
        let mean = (!values.is_empty()).then(|| values.iter().sum::<f64>() / count)?;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let sd = (values.len() > 1).then(|| (squares / (count - 1.0)).sqrt());
        Some(Self { mean, sd })
    }
}

impl Study {
    /// The study of these cells, each of one of `methods`.
    ///
    /// A cell with a single client (central training) has its users grouped as they are in the first
    /// method of the same seed that has more.
    pub fn new(
        dataset: String,
        methods: Vec<String>,
        baseline: Option<String>,
        cells: Vec<CellResult>,
    ) -> Self {
        let place = |cell: &CellResult| methods.iter().position(|method| *method == cell.method);
        let mut ordered = cells;
        ordered.sort_by_key(|cell| (place(cell), cell.seed));
        let federated =
            |seed| ordered.iter().find(|other| other.seed == seed && other.clients.len() > 1);
        let grouped = ordered.iter().map(|cell| match federated(cell.seed) {
            Some(other) if cell.clients.len() == 1 => cell.grouped_as(other),
            _ => cell.clone(),
        });
        let cells = grouped.collect();
        Self { dataset, methods, baseline, cells }
    }

    /// Finished cells by method, then seed.
    pub fn cells(&self) -> &[CellResult] {
        &self.cells
    }

    pub(super) fn of_method<'a>(&'a self, method: &'a str) -> impl Iterator<Item = &'a CellResult> {
        self.cells.iter().filter(move |cell| cell.method == method)
    }

    /// Every cell with test users in numbers, by method, then seed.
    pub fn cell_summaries(&self) -> Vec<CellSummary> {
        self.cells.iter().filter_map(|cell| self.cell_summary(cell)).collect()
    }

    fn cell_summary(&self, cell: &CellResult) -> Option<CellSummary> {
        let result = |(client, result): (&ClientId, &super::ClientResult)| {
            Some((*client, Quality::of(&result.users)?, result.best_round))
        };
        let results: Vec<_> = cell.clients.iter().filter_map(result).collect();
        let value = |(client, quality, _): &(ClientId, Quality, Round)| ClientValue {
            client: *client,
            value: quality.ndcg5,
            local_only: self.reference(LOCAL, cell, *client),
            central: self.reference(CENTRAL, cell, *client),
        };
        // NDCG is in 0..1, so there is a balance as soon as there is a client.
        let balance = Balance::of(&results.iter().map(value).collect::<Vec<_>>()).ok()?;
        let clients = results.iter().zip(&balance.ratios);
        let clients = clients.map(|(&(client, quality, best_round), &ratios)| ClientSummary {
            client,
            quality,
            best_round,
            ratios,
        });
        Some(CellSummary {
            method: cell.method.clone(),
            seed: cell.seed,
            users: Quality::of(cell.users())?,
            clients: clients.collect(),
            balance,
        })
    }

    /// NDCG@5 that `client` of `cell` has under `method` and the same seed.
    fn reference(&self, method: &str, cell: &CellResult, client: ClientId) -> Option<f64> {
        let other = self.of_method(method).find(|other| other.seed == cell.seed)?;
        let same = other.shares_users(cell, client);
        let users = other.clients.get(&client).filter(|_| same)?;
        Some(Quality::of(&users.users)?.ndcg5)
    }

    /// Every method with a finished cell in numbers, in the order of the methods.
    pub fn method_summaries(&self) -> Vec<MethodSummary> {
        let cells = self.cell_summaries();
        self.methods.iter().filter_map(|method| self.method_summary(method, &cells)).collect()
    }

    fn method_summary(&self, method: &str, cells: &[CellSummary]) -> Option<MethodSummary> {
        let cells: Vec<&CellSummary> = cells.iter().filter(|cell| cell.method == method).collect();
        let over_seeds = |value: fn(&CellSummary) -> f64| {
            MeanSd::of(&cells.iter().map(|cell| value(cell)).collect::<Vec<_>>())
        };
        let labels: Vec<f64> = self.of_method(method).map(|cell| cell.labels as f64).collect();
        Some(MethodSummary {
            method: method.to_owned(),
            seeds: cells.len(),
            ndcg5: over_seeds(|cell| cell.users.ndcg5)?,
            ndcg10: over_seeds(|cell| cell.users.ndcg10)?,
            recall10: over_seeds(|cell| cell.users.recall10)?,
            gain: self.gain(method),
            client_mean: over_seeds(|cell| cell.balance.mean)?,
            worst: over_seeds(|cell| cell.balance.worst.value)?,
            range: over_seeds(|cell| cell.balance.range)?,
            client_sd: over_seeds(|cell| cell.balance.standard_deviation)?,
            to_local: mean_and_smallest(&cells, |ratios| ratios.to_local_only),
            to_central: mean_and_smallest(&cells, |ratios| ratios.to_central),
            labels: MeanSd::of(&labels)?,
        })
    }

    /// The gain of `method` over the baseline, paired by user.
    fn gain(&self, method: &str) -> Option<Gain> {
        let baseline = self.baseline.as_deref().filter(|baseline| *baseline != method)?;
        let users = self.paired(method, baseline);
        // One stream for all methods: where they share users, they share the resamples.
        relative_gain(&users, &mut seed::rng(0, "bootstrap over users", &[]))
    }

    /// NDCG@5 of every user under both methods, the mean over the seeds that have both.
    fn paired(&self, method: &str, baseline: &str) -> Vec<Paired> {
        let mut sums: BTreeMap<UserId, (Paired, f64)> = BTreeMap::new();
        for cell in self.of_method(method) {
            let Some(other) = self.of_method(baseline).find(|other| other.seed == cell.seed) else {
                continue;
            };
            let others = other.ndcg5_by_user();
            for (user, value) in cell.ndcg5_by_user() {
                let Some(other) = others.get(&user) else { continue };
                let nothing = (Paired { method: 0.0, baseline: 0.0 }, 0.0);
                let (sum, seeds) = sums.entry(user).or_insert(nothing);
                sum.method += value;
                sum.baseline += other;
                *seeds += 1.0;
            }
        }
        let mean = |(sum, seeds): (Paired, f64)| Paired {
            method: sum.method / seeds,
            baseline: sum.baseline / seeds,
        };
        sums.into_values().map(mean).collect()
    }
}

/// Over the clients of a cell that have the ratio, then the mean over such cells.
fn mean_and_smallest(
    cells: &[&CellSummary],
    ratio: fn(&ClientRatios) -> Option<f64>,
) -> Option<(f64, f64)> {
    let of_cell = |cell: &&CellSummary| {
        let ratios: Vec<f64> = cell.clients.iter().filter_map(|c| ratio(&c.ratios)).collect();
        let smallest = ratios.iter().copied().reduce(f64::min)?;
        Some((MeanSd::of(&ratios)?.mean, smallest))
    };
    let (means, smallest): (Vec<f64>, Vec<f64>) = cells.iter().filter_map(of_cell).unzip();
    Some((MeanSd::of(&means)?.mean, MeanSd::of(&smallest)?.mean))
}
