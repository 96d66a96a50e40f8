//! All that a process has of the data: the users of every client, of one, or of none.
//!
//! A federation's clients have a data folder each (`clients.assignment = "silos"`), of which nobody sees two but a
//! simulation. Every other assignment cuts one data set, so whoever has to do with it reads all of it.

use std::path::Path;

use super::error::DataError;
use super::readers::Folders;
use super::{ClientData, Dataset, Loaded, Splits, TrainingRows, assign, folder, load, read, split};
use crate::config::{AssignmentKind, Config};
use crate::ids::{ClientId, UserId};

/// Whose data a process is to have, where they are apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holdings {
    /// Every client's: a simulation.
    All,
    /// One client's.
    Of(ClientId),
    /// Nobody's: the public catalogue.
    Catalogue,
}

/// Data that are read, split and on their clients.
#[derive(Debug)]
pub struct Prepared {
    /// As they were read; users client by client where every client has its own.
    pub loaded: Loaded,
    /// Every user's history in parts.
    pub splits: Splits,
    /// Clients whose users are known here, in id order.
    pub clients: Vec<ClientData>,
    /// All clients of the run.
    pub count: u32,
}

/// Reads the data of a run.
///
/// Of silos the catalogue is in `data.path`. A simulation finds the rest in `data.path/client-0`,
/// `data.path/client-1` and so on; one client finds it there as well, or else beside its catalogue.
///
/// # Errors
/// Those of [`load`], [`split`](super::split()) and [`assign`](super::assign()).
pub fn prepare(config: &Config, holdings: Holdings) -> Result<Prepared, DataError> {
    if config.clients.assignment == AssignmentKind::Silos {
        return silos(config, holdings);
    }
    let seed = config.run.seed;
    let loaded = load(&config.data, seed)?;
    let splits = split(&loaded.dataset, config.data.split)?;
    let clients = assign(&loaded.dataset, &splits.users, &config.clients, seed)?;
    let count = clients.len() as u32;
    Ok(Prepared { loaded, splits, clients, count })
}

impl Prepared {
    /// The rows that are trained on.
    ///
    /// # Errors
    /// More rows are asked for than there are.
    pub fn rows(&self, config: &Config) -> Result<TrainingRows, DataError> {
        let count = config.training.rows.get().map(|rows| rows.get());
        TrainingRows::draw(&self.splits.users, count, config.run.seed)
    }
}

fn silos(config: &Config, holdings: Holdings) -> Result<Prepared, DataError> {
    let (root, count) = (folder(&config.data)?, config.clients.count.get());
    let held: Vec<ClientId> = match holdings {
        Holdings::All => (0..count).map(ClientId).collect(),
        Holdings::Of(client) => vec![client],
        Holdings::Catalogue => Vec::new(),
    };
    let mut all = read(&config.data, Folders { catalogue: root, histories: None })?;
    let mut splits = Splits { users: Vec::new(), untested: 0 };
    let mut clients = Vec::with_capacity(held.len());
    for client in held {
        let silo = root.join(client.to_string());
        let histories: &Path = match holdings {
            _ if silo.is_dir() => &silo,
            Holdings::Of(_) => root,
            Holdings::All | Holdings::Catalogue => {
                let expected = format!(
                    "folder {client}, as clients.assignment = \"silos\" with clients.count = {count} needs"
                );
                return Err(DataError::MissingFile { folder: root.to_owned(), expected });
            }
        };
        let own = read(&config.data, Folders { catalogue: root, histories: Some(histories) })?;
        let mut cut = split(&own.dataset, config.data.split)?;
        for (position, user) in (0..).zip(&mut cut.users) {
            user.user = UserId::on(client, position);
        }
        splits.untested += cut.untested;
        splits.users.extend(cut.users.iter().cloned());
        clients.push(ClientData { client, users: cut.users });
        let Dataset { users, .. } = own.dataset;
        all.dataset.users.extend(users);
        all.notes.add_histories(&own.notes);
    }
    Ok(Prepared { loaded: all, splits, clients, count })
}
