//! What is in a data set and how clients would be cut: `fellrec data inspect`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Catalogue, ClientData, Loaded, ReadNotes, Splits, UserSplit};
use crate::ids::{ClientId, ItemId};

/// Categories listed for each client.
const TOP_CATEGORIES: usize = 5;

/// A data set in numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inspection {
    /// Name of the data set.
    pub name: String,
    /// Users with a history.
    pub users: usize,
    /// Items of the catalogue.
    pub items: usize,
    /// Items that somebody interacted with.
    pub rated_items: usize,
    /// Interactions of all users.
    pub interactions: usize,
    /// Lengths of the histories.
    pub history: HistoryLengths,
    /// Users who are trained on and not tested.
    pub untested_users: usize,
    /// What the reader met.
    pub notes: ReadNotes,
    /// One a client, in client order.
    pub clients: Vec<ClientSummary>,
}

/// Quantiles of history lengths (nearest rank). Unit: interactions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct HistoryLengths {
    pub min: usize,
    pub p25: usize,
    pub median: usize,
    pub p75: usize,
    pub p95: usize,
    pub max: usize,
    pub mean: f64,
}

/// A category and its share of the interactions; an item of several categories counts a part for each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CategoryShare {
    /// The category.
    pub category: String,
    /// Unit: fraction.
    pub share: f64,
}

/// What one client would hold and how far it is from the whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientSummary {
    /// The client.
    pub client: ClientId,
    /// Its users.
    pub users: usize,
    /// Their interactions.
    pub interactions: usize,
    /// Lengths of their histories.
    pub history: HistoryLengths,
    /// Its most frequent categories.
    pub top_categories: Vec<CategoryShare>,
    /// Jensen-Shannon divergence of its items from all clients' items, base 2, in 0..1. Small clients
    /// look more different than they are: they cannot hold every item.
    pub item_divergence: f64,
    /// The same over categories, which small clients do fill.
    pub category_divergence: f64,
}

/// Describes a data set, its split and its clients.
pub fn inspect(loaded: &Loaded, splits: &Splits, clients: &[ClientData]) -> Inspection {
    let dataset = &loaded.dataset;
    let catalogue = &dataset.catalogue;
    let whole = ItemCounts::of(&splits.users, catalogue);
    let whole_categories = whole.categories(catalogue);
    let summary = |client: &ClientData| {
        let counts = ItemCounts::of(&client.users, catalogue);
        let categories = counts.categories(catalogue);
        ClientSummary {
            client: client.client,
            users: client.users.len(),
            interactions: counts.total(),
            history: HistoryLengths::of(client.users.iter().map(history_length).collect()),
            item_divergence: divergence(counts.shares().into_iter().zip(whole.shares())),
            // Every category of a client is one of the whole.
            category_divergence: divergence(whole_categories.iter().map(|(category, &whole)| {
                (categories.get(category).copied().unwrap_or(0.0), whole)
            })),
            top_categories: top(categories),
        }
    };
    Inspection {
        name: dataset.name.clone(),
        users: dataset.users.len(),
        items: catalogue.items.len(),
        rated_items: whole.0.iter().filter(|&&count| count > 0).count(),
        interactions: whole.total(),
        history: HistoryLengths::of(splits.users.iter().map(history_length).collect()),
        untested_users: splits.untested,
        notes: loaded.notes.clone(),
        clients: clients.iter().map(summary).collect(),
    }
}

impl HistoryLengths {
    fn of(mut lengths: Vec<usize>) -> Self {
        lengths.sort_unstable();
        let last = lengths.len().saturating_sub(1);
        let quantile = |q: f64| lengths.get((q * last as f64).round() as usize).copied();
        let quantile = |q| quantile(q).unwrap_or(0);
        let mean = lengths.iter().sum::<usize>() as f64 / lengths.len().max(1) as f64;
        Self {
            min: quantile(0.0),
            p25: quantile(0.25),
            median: quantile(0.5),
            p75: quantile(0.75),
            p95: quantile(0.95),
            max: quantile(1.0),
            mean,
        }
    }
}

/// Interactions of each catalogue item.
struct ItemCounts(Vec<usize>);

impl ItemCounts {
    fn of(users: &[UserSplit], catalogue: &Catalogue) -> Self {
        let mut counts = vec![0; catalogue.items.len()];
        for item in users.iter().flat_map(interactions) {
            counts[item.index()] += 1;
        }
        Self(counts)
    }

    fn total(&self) -> usize {
        self.0.iter().sum()
    }

    fn shares(&self) -> Vec<f64> {
        let total = self.total().max(1) as f64;
        self.0.iter().map(|&count| count as f64 / total).collect()
    }

    fn categories<'a>(&self, catalogue: &'a Catalogue) -> BTreeMap<&'a str, f64> {
        let mut shares = BTreeMap::new();
        for (item, share) in catalogue.items.iter().zip(self.shares()) {
            let part = share / item.category.split('|').count() as f64;
            for category in item.category.split('|') {
                *shares.entry(category).or_insert(0.0) += part;
            }
        }
        shares
    }
}

fn interactions(user: &UserSplit) -> impl Iterator<Item = ItemId> {
    [&user.train, &user.validation, &user.test].into_iter().flatten().copied()
}

fn history_length(user: &UserSplit) -> usize {
    user.train.len() + user.validation.len() + user.test.len()
}

/// Jensen-Shannon divergence, base 2, of two distributions given pair by pair.
fn divergence(pairs: impl Iterator<Item = (f64, f64)>) -> f64 {
    let term = |p: f64, middle: f64| if p > 0.0 { p * (p / middle).log2() } else { 0.0 };
    let sum: f64 = pairs
        .map(|(p, q)| {
            let middle = (p + q) / 2.0;
            (term(p, middle) + term(q, middle)) / 2.0
        })
        .sum();
    // Equal distributions may end a rounding below 0.
    sum.clamp(0.0, 1.0)
}

fn top(categories: BTreeMap<&str, f64>) -> Vec<CategoryShare> {
    let mut shares: Vec<CategoryShare> = categories
        .into_iter()
        .filter(|&(category, share)| !category.is_empty() && share > 0.0)
        .map(|(category, share)| CategoryShare { category: category.to_owned(), share })
        .collect();
    shares.sort_by(|a, b| b.share.total_cmp(&a.share));
    shares.truncate(TOP_CATEGORIES);
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_is_zero_for_equal_one_for_disjoint_and_symmetric() {
        let of = |p: &[f64], q: &[f64]| divergence(p.iter().copied().zip(q.iter().copied()));
        assert_eq!(of(&[0.3, 0.7], &[0.3, 0.7]), 0.0);
        assert_eq!(of(&[1.0, 0.0], &[0.0, 1.0]), 1.0);
        let (p, q) = ([0.5, 0.5, 0.0], [0.1, 0.2, 0.7]);
        assert!((of(&p, &q) - of(&q, &p)).abs() < 1e-15);
    }

    #[test]
    fn quantiles_are_lengths_that_occur() {
        let lengths = HistoryLengths::of(vec![9, 1, 3, 5, 7]);
        assert_eq!((lengths.min, lengths.p25, lengths.median, lengths.max), (1, 3, 5, 9));
        assert_eq!(HistoryLengths::of(Vec::new()).max, 0);
    }
}
