//! Puts users on clients.
//!
//! Clients are dense from 0. K-means and `uniform` clients come largest first, named ones (`file`,
//! `attribute`) in the order of their names (as numbers where all are), `per-user` in user order. With
//! `clients.pooled` all of them are one client in the end.

mod factors;
mod kmeans;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use rand::seq::SliceRandom;

use super::error::DataError;
use super::notes::ReadNotes;
use super::{ClientData, Dataset, UserSplit, files, text};
use crate::config::{AssignmentKind, ClientsConfig};
use crate::ids::ClientId;
use crate::seed;

/// Who holds whom. K-means over a central factorisation is a device of simulations and no part of the
/// protocol; it sees training interactions only.
///
/// `users` is what [`split`](super::split()) made of `dataset`.
///
/// # Errors
/// More clients than users, a missing file, attribute or column, or a user whom the file leaves out.
pub fn assign(
    dataset: &Dataset,
    users: &[UserSplit],
    config: &ClientsConfig,
    run_seed: u64,
) -> Result<Vec<ClientData>, DataError> {
    let count = config.count.get() as usize;
    let groups = match config.assignment {
        AssignmentKind::KMeans => {
            check_count(count, users.len())?;
            let items = dataset.catalogue.items.len();
            let (width, epochs) = (config.factors.get() as usize, config.factor_epochs.get());
            let vectors = factors::user_vectors(users, items, width, epochs, run_seed);
            largest_first(group(users.len(), kmeans::cluster(&vectors, width, count, run_seed)))
        }
        AssignmentKind::Uniform => {
            check_count(count, users.len())?;
            let mut order: Vec<usize> = (0..users.len()).collect();
            order.shuffle(&mut seed::rng(run_seed, "uniform clients", &[]));
            largest_first((0..count).map(|c| sorted(order[c..].iter().step_by(count))).collect())
        }
        AssignmentKind::PerUser => (0..users.len()).map(|user| vec![user]).collect(),
        AssignmentKind::File => by_name(file_names(dataset, users, required_file(config)?)?),
        AssignmentKind::Attribute => by_name(attribute_names(dataset, users, config)?),
        // Nothing to put: see `prepare`.
        AssignmentKind::Silos => vec![(0..users.len()).collect()],
    };
    let client = |(id, members): (u32, Vec<usize>)| ClientData {
        client: ClientId(id),
        users: members.into_iter().map(|user| users[user].clone()).collect(),
    };
    let groups = if config.pooled { vec![groups.concat()] } else { groups };
    Ok((0..).zip(groups).map(client).collect())
}

fn check_count(count: usize, users: usize) -> Result<(), DataError> {
    if count <= users {
        return Ok(());
    }
    Err(DataError::Setting {
        key: "clients.count",
        got: count.to_string(),
        expected: format!("at most {users}, the number of users"),
    })
}

/// Positions of the users of each label; labels are dense.
fn group(users: usize, labels: Vec<usize>) -> Vec<Vec<usize>> {
    let clients = labels.iter().max().map_or(0, |&label| label + 1);
    let mut groups = vec![Vec::new(); clients];
    for (user, label) in (0..users).zip(labels) {
        groups[label].push(user);
    }
    groups
}

fn sorted<'a>(members: impl Iterator<Item = &'a usize>) -> Vec<usize> {
    let mut members: Vec<usize> = members.copied().collect();
    members.sort_unstable();
    members
}

fn largest_first(mut groups: Vec<Vec<usize>>) -> Vec<Vec<usize>> {
    groups.sort_by_key(|members| (std::cmp::Reverse(members.len()), members.first().copied()));
    groups
}

/// Groups by name, in the order of the names: as numbers where all are numbers.
fn by_name(names: Vec<String>) -> Vec<Vec<usize>> {
    let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (user, name) in names.iter().enumerate() {
        groups.entry(name).or_default().push(user);
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    let numbers: Option<HashMap<&str, i64>> =
        groups.iter().map(|&(name, _)| Some((name, name.parse().ok()?))).collect();
    if let Some(numbers) = numbers {
        groups.sort_by_key(|(name, _)| numbers[name]);
    }
    groups.into_iter().map(|(_, members)| members).collect()
}

fn required_file(config: &ClientsConfig) -> Result<&Path, DataError> {
    config.file.as_option().map(|file| file.as_path()).ok_or_else(|| DataError::Setting {
        key: "clients.file",
        got: "\"none\"".to_owned(),
        expected: "a file of user,client rows".to_owned(),
    })
}

/// The client's name of every user; the file's first line may be the header `user,client`.
fn file_names(
    dataset: &Dataset,
    users: &[UserSplit],
    file: &Path,
) -> Result<Vec<String>, DataError> {
    let mut notes = ReadNotes::default();
    let bytes = files::read(file, &mut notes)?;
    let mut client_of: HashMap<String, String> = HashMap::new();
    for (line, row) in files::lines(&bytes) {
        let Some(comma) = row.iter().rposition(|&byte| byte == b',') else {
            let expected = "user,client".to_owned();
            return Err(DataError::FieldCount { file: file.to_owned(), line, got: 1, expected });
        };
        let user = text::label(&row[..comma], &mut notes);
        let client = text::label(&row[comma + 1..], &mut notes);
        if line == 1 && (user.as_str(), client.as_str()) == ("user", "client") {
            continue;
        }
        if client_of.insert(user, client.clone()).is_some_and(|earlier| earlier != client) {
            let expected = "one client for each user, an earlier line names another";
            return Err(DataError::field(file, line, row, expected));
        }
    }
    let name = |split: &UserSplit| {
        let user = &dataset.users[split.user.0 as usize].key;
        client_of
            .get(user)
            .cloned()
            .ok_or_else(|| DataError::UnassignedUser { file: file.to_owned(), user: user.clone() })
    };
    users.iter().map(name).collect()
}

fn attribute_names(
    dataset: &Dataset,
    users: &[UserSplit],
    config: &ClientsConfig,
) -> Result<Vec<String>, DataError> {
    let refuse = |got: &str, expected: String| DataError::Setting {
        key: "clients.attribute",
        got: format!("{got:?}"),
        expected,
    };
    let attribute = config
        .attribute
        .as_option()
        .ok_or_else(|| refuse("none", "the name of a user attribute".to_owned()))?;
    let name = |split: &UserSplit| {
        let user = &dataset.users[split.user.0 as usize];
        user.attributes.get(attribute).cloned().ok_or_else(|| {
            let known: Vec<&str> = user.attributes.keys().map(String::as_str).collect();
            refuse(attribute, format!("one of {known:?}, which user {:?} has", user.key))
        })
    };
    users.iter().map(name).collect()
}
