//! What one cell came to: the ranks of its test users, by client.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{ClientId, Round, UserId};
use crate::ranking::{MetricSums, UserRanks};
use crate::report::History;

/// One method under one seed.
#[derive(Clone, Debug, PartialEq)]
pub struct CellResult {
    /// Name of the method.
    pub method: String,
    /// Seed of the run.
    pub seed: u64,
    /// Test results of clients that have test users.
    pub clients: BTreeMap<ClientId, ClientResult>,
    /// (completed rounds, validation NDCG@10 as the mean over validated users), rounds ascending.
    pub curve: Vec<(u64, f64)>,
    /// Labels that all clients trained on, in all rounds: the budget.
    pub labels: u64,
}

/// Test of one client.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientResult {
    /// State that was tested.
    pub best_round: Round,
    /// Ranks in the full catalogue, in user order.
    pub users: Vec<UserRanks>,
}

/// Means over users of the metrics that a study compares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quality {
    /// Users the means are over.
    pub users: u64,
    /// Mean NDCG@5: what gains, balance and ratios are of.
    pub ndcg5: f64,
    /// Mean NDCG@10.
    pub ndcg10: f64,
    /// Mean Recall@10.
    pub recall10: f64,
}

impl Quality {
    /// The means over `users`; `None` without any.
    pub fn of<'a>(users: impl IntoIterator<Item = &'a UserRanks>) -> Option<Self> {
        let mut sums = MetricSums::new(&[5, 10]);
        users.into_iter().for_each(|user| sums.add(&user.ranks));
        let means = sums.means()?;
        Some(Self {
            users: means.users,
            ndcg5: means.ndcg[&5],
            ndcg10: means.ndcg[&10],
            recall10: means.recall[&10],
        })
    }
}

impl CellResult {
    /// The cell of a run that ended, from its history and the ranks that its clients kept.
    pub fn new(
        method: &str,
        seed: u64,
        history: &History,
        mut ranks: BTreeMap<ClientId, Vec<UserRanks>>,
    ) -> Self {
        let tested = history.finish.iter().flat_map(|finish| &finish.test);
        let clients = tested.filter_map(|(client, test)| {
            let users = ranks.remove(client)?;
            Some((*client, ClientResult { best_round: test.best_round, users }))
        });
        let rounds = history.rounds.values().flat_map(|round| round.clients.values());
        Self {
            method: method.to_owned(),
            seed,
            clients: clients.collect(),
            curve: curve(history),
            labels: rounds.map(|part| part.report.labels).sum(),
        }
    }

    /// All test users with their ranks, client by client.
    pub fn users(&self) -> impl Iterator<Item = &UserRanks> {
        self.clients.values().flat_map(|client| &client.users)
    }

    /// NDCG@5 of every test user.
    pub fn ndcg5_by_user(&self) -> BTreeMap<UserId, f64> {
        self.users().filter_map(|user| Some((user.user, Quality::of([user])?.ndcg5))).collect()
    }

    /// Whether `client` has the same test users here and there; otherwise its results do not compare.
    pub fn shares_users(&self, other: &Self, client: ClientId) -> bool {
        let users = |cell: &Self| -> Option<BTreeSet<UserId>> {
            Some(cell.clients.get(&client)?.users.iter().map(|user| user.user).collect())
        };
        users(self).is_some_and(|own| Some(own) == users(other))
    }

    /// The users of a cell with a single client, grouped as the clients of `other` are: one that trains
    /// on everybody's data has no clients of its own. As it is, if `other` lacks one of its users.
    pub fn grouped_as(&self, other: &Self) -> Self {
        let home: BTreeMap<UserId, ClientId> = other
            .clients
            .iter()
            .flat_map(|(client, result)| result.users.iter().map(|user| (user.user, *client)))
            .collect();
        let mut grouped = self.clone();
        let [only] = &Vec::from_iter(self.clients.values())[..] else { return grouped };
        if only.users.iter().any(|user| !home.contains_key(&user.user)) {
            return grouped;
        }
        grouped.clients.clear();
        for user in &only.users {
            let own = ClientResult { best_round: only.best_round, users: Vec::new() };
            let client = grouped.clients.entry(home[&user.user]).or_insert(own);
            client.users.push(user.clone());
        }
        grouped
    }
}

/// Clients weigh by their users here, so that one client with all users compares.
fn curve(history: &History) -> Vec<(u64, f64)> {
    let points = history.evaluations.iter().filter_map(|(state, evaluation)| {
        let mut sums = (0.0, 0);
        for metrics in evaluation.clients.values() {
            sums.0 += metrics.users as f64 * metrics.ndcg.get(&10)?;
            sums.1 += metrics.users;
        }
        (sums.1 > 0).then(|| (state.0, sums.0 / sums.1 as f64))
    });
    points.collect()
}
