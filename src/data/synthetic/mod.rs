//! The embedded data set: a film catalogue and users whose next item can be learnt.
//!
//! **Catalogue.** Every genre has series; the parts of a series share a name and are numbered, so that
//! titles tell what follows what. The series of a genre form a chain.
//! **Users.** Each belongs to a taste group with two main genres. A walk goes to the next part of the
//! series, or to the next series of the chain, or jumps to a genre by taste. No item comes twice.
//! **Odd group.** Its users have a third of the history, stay within two genres that nobody else
//! prefers, and walk backwards (sequel before original): what the others teach is wrong for them.
//!
//! Popularity says little: a series is hardly more popular than its neighbours. Groups differ in size.

mod catalogue;
mod walk;
mod words;

use std::collections::BTreeMap;

use rand::Rng;

use super::error::DataError;
use super::{Dataset, User};
use crate::config::SyntheticConfig;
use crate::seed;
use catalogue::Shop;
use walk::{Taste, walk};
use words::GENRES;

/// Attribute that names a user's taste group, from 0: `clients.attribute = "group"` cuts by it.
const GROUP_ATTRIBUTE: &str = "group";

/// Genres that a group prefers.
const GENRES_OF_A_GROUP: usize = 2;

/// The odd group's histories are shorter by this factor.
const ODD_HISTORY_DIVISOR: u32 = 3;

/// Draws the data set of `config`; equal seeds give equal data sets.
pub(super) fn generate(config: &SyntheticConfig, run_seed: u64) -> Result<Dataset, DataError> {
    let groups = config.groups.get() as usize;
    check(config)?;
    // With more groups than word lists, groups share genres.
    let genres = GENRES.len().min(groups * GENRES_OF_A_GROUP).min(config.items.get() as usize);
    let shop = Shop::draw(config.items.get() as usize, genres, run_seed);
    let tastes: Vec<Taste> = (0..groups).map(|group| taste(config, group, genres)).collect();
    let sizes = group_sizes(config.users.get() as usize, groups);
    let mut users = Vec::with_capacity(config.users.get() as usize);
    for (group, (taste, size)) in tastes.iter().zip(sizes).enumerate() {
        for _ in 0..size {
            let mut rng = seed::rng(run_seed, "synthetic user", &[users.len() as u64]);
            let (shortest, longest) = (taste.mean_history / 2, taste.mean_history * 3 / 2);
            let length = rng.random_range(shortest.max(1)..=longest.max(1)) as usize;
            users.push(User {
                key: format!("u{}", users.len() + 1),
                attributes: BTreeMap::from([(GROUP_ATTRIBUTE.to_owned(), group.to_string())]),
                history: walk(&shop, taste, length, &mut rng),
                parts: None,
            });
        }
    }
    Ok(Dataset { name: "synthetic".to_owned(), catalogue: shop.catalogue, users })
}

fn check(config: &SyntheticConfig) -> Result<(), DataError> {
    let refuse = |key, got: u32, expected: String| {
        Err(DataError::Setting { key, got: got.to_string(), expected })
    };
    let (items, groups, users) = (config.items.get(), config.groups.get(), config.users.get());
    if items > words::MAX_ITEMS {
        let expected = format!("at most {}: the generator's titles end there", words::MAX_ITEMS);
        return refuse("data.synthetic.items", items, expected);
    }
    if groups > users {
        let expected = format!("at most {users}, the number of users");
        return refuse("data.synthetic.groups", groups, expected);
    }
    // The odd group needs genres of its own.
    let odd_fits = (2..=GENRES.len() as u32 / GENRES_OF_A_GROUP as u32).contains(&groups);
    if config.odd_group && !odd_fits {
        let expected = "2 to 6 with data.synthetic.odd_group".to_owned();
        return refuse("data.synthetic.groups", groups, expected);
    }
    Ok(())
}

/// Group sizes fall evenly from the first to the last, which has about half as many users as the first.
fn group_sizes(users: usize, groups: usize) -> Vec<usize> {
    let weight = |group: usize| 2 * groups - group;
    let total: usize = (0..groups).map(weight).sum();
    let until = |group: usize| users * (0..group).map(weight).sum::<usize>() / total;
    (0..groups).map(|group| until(group + 1) - until(group)).collect()
}

fn taste(config: &SyntheticConfig, group: usize, genres: usize) -> Taste {
    let first = group * GENRES_OF_A_GROUP;
    let main = (first..first + GENRES_OF_A_GROUP).map(|genre| genre % genres).collect();
    let odd = config.odd_group && group + 1 == config.groups.get() as usize;
    let mean_history = config.mean_history.get();
    if odd {
        let mean_history = (mean_history / ODD_HISTORY_DIVISOR).max(1);
        return Taste { main, explores: 0.0, backwards: true, mean_history };
    }
    Taste { main, explores: walk::EXPLORING, backwards: false, mean_history }
}
