//! What the supervisor must remember from one commit to the next: all of it, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::config::HeatingConfig;
use crate::ids::{ClientId, Round};

/// Names a state that a client goes on from, is evaluated with or is tested with.
///
/// Of one round both kinds may be on disk: what a client staged in an attempt that was given up
/// stays there beside the mean. So which of them counts is said with the round, by the supervisor,
/// and never concluded from what a folder holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StateId {
    /// Round whose commit produced it; 0 is the start that all clients share.
    pub round: Round,
    /// Whose it is.
    pub source: Source,
}

/// Whose a client's state is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The client's own: staged by its members, with moments.
    #[default]
    Own,
    /// The mean of the models that the round mixed: staged once for all who follow it.
    Shared,
}

impl StateId {
    /// The state before the first round.
    pub const START: Self = Self::own(Round(0));

    /// What a client's own members staged for `round`.
    pub const fn own(round: Round) -> Self {
        Self { round, source: Source::Own }
    }

    /// The mean of the mix that made `round`.
    pub const fn shared(round: Round) -> Self {
        Self { round, source: Source::Shared }
    }
}

impl Source {
    /// Whether it is the client's own.
    pub fn is_own(&self) -> bool {
        *self == Self::Own
    }
}

/// The best state a client has had, by its own validation rows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Round whose state it is.
    pub round: Round,
    /// Whose it is; in a manifest only where it is the mean.
    #[serde(default, skip_serializing_if = "Source::is_own")]
    pub source: Source,
    /// NDCG@10 on the client's validation rows.
    pub ndcg: f64,
}

/// The supervisor's part of a commit. With the members' files it is all a resumed run needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FederationState {
    /// The round that starts from this state; 0 before the first commit.
    pub committed: Round,
    /// Round whose commit produced each client's current slices, its own or the shared mean; behind
    /// `committed` where the client had no part in the newest mixes and kept what it had.
    pub slices: BTreeMap<ClientId, Round>,
    /// Clients whose current slices are the shared mean of that round and not their own.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub following: BTreeSet<ClientId>,
    /// Best state of every client that has validation rows.
    pub best: BTreeMap<ClientId, Best>,
    /// Highest mean validation NDCG@10 so far.
    pub best_mean: Option<f64>,
    /// Evaluations since then.
    pub without_gain: u32,
    /// Newest state that was evaluated.
    pub evaluated: Option<Round>,
    /// Heating in force; an operator may change it between rounds.
    pub heating: HeatingConfig,
    /// Item tables that stay, once they are frozen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables: Option<FrozenTables>,
}

/// Where every client's item table comes from, from a round on (method.md 6.2).
///
/// What is frozen is a state and not a table: the table is encoded from it again wherever it is not
/// at hand, with the same bits, and no message or checkpoint carries it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrozenTables {
    /// First round that trains with them.
    pub since: Round,
    /// The best state each client had by then.
    pub states: BTreeMap<ClientId, StateId>,
}

/// A state and where the item table comes from that it is trained or ranked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TabledState {
    /// Tensors of the model.
    pub state: StateId,
    /// State that the frozen table is encoded from; `None` encodes it from the model itself.
    /// Backbones without a table do not look at it.
    pub table: Option<StateId>,
}

impl FederationState {
    /// The state before the first round.
    pub fn initial(clients: &[ClientId], heating: HeatingConfig) -> Self {
        Self {
            committed: Round(0),
            slices: clients.iter().map(|client| (*client, Round(0))).collect(),
            following: BTreeSet::new(),
            best: BTreeMap::new(),
            best_mean: None,
            without_gain: 0,
            evaluated: None,
            heating,
            tables: None,
        }
    }

    /// Takes in the validation of the committed state. A tie keeps the earlier state, but for a tie at
    /// 0, which says nothing (a client of one user mostly has it): the state that learnt longer stays.
    ///
    /// Clients that are not of the federation and values that are not finite do not count: a NaN
    /// would be the best for ever, and no manifest could hold it.
    pub fn record_evaluation(&mut self, ndcg: &BTreeMap<ClientId, Option<f64>>) {
        self.evaluated = Some(self.committed);
        let known = ndcg.iter().filter(|(client, _)| self.slices.contains_key(client));
        let finite = |(client, value): (&ClientId, &Option<f64>)| {
            value.filter(|value| value.is_finite()).map(|value| (*client, value))
        };
        let measured: Vec<(ClientId, f64)> = known.filter_map(finite).collect();
        for (client, value) in &measured {
            let StateId { round, source } = self.current(*client);
            let better =
                self.best.get(client).is_none_or(|best| *value > best.ndcg || best.ndcg == 0.0);
            if better {
                self.best.insert(*client, Best { round, source, ndcg: *value });
            }
        }
        if measured.is_empty() {
            return;
        }
        let mean = measured.iter().map(|(_, value)| value).sum::<f64>() / measured.len() as f64;
        if self.best_mean.is_none_or(|best| mean > best) {
            self.best_mean = Some(mean);
            self.without_gain = 0;
        } else {
            self.without_gain += 1;
        }
    }

    /// Clients without a part in the newest mix that go on from its mean.
    pub fn adopted(&self) -> BTreeSet<ClientId> {
        let newest = |client: &&ClientId| self.slices[client] == self.committed;
        self.following.iter().filter(newest).copied().collect()
    }

    /// Whether a client has nothing of its own: no part in any mix yet, or a state that is the mean.
    pub fn is_newcomer(&self, client: ClientId) -> bool {
        self.slices[&client] == Round(0) || self.following.contains(&client)
    }

    /// The state a client goes on from.
    pub fn current(&self, client: ClientId) -> StateId {
        let source = if self.following.contains(&client) { Source::Shared } else { Source::Own };
        StateId { round: self.slices[&client], source }
    }

    /// What every client goes on from.
    pub fn all_current(&self) -> BTreeMap<ClientId, StateId> {
        self.slices.keys().map(|client| (*client, self.current(*client))).collect()
    }

    /// The state to use for a client's final test: its best, or its newest where it never validated.
    pub fn best_state(&self, client: ClientId) -> StateId {
        let of_best = |best: &Best| StateId { round: best.round, source: best.source };
        self.best.get(&client).map_or_else(|| self.current(client), of_best)
    }

    /// Freezes every client's item table as of now, if the round about to be opened is not before
    /// `from` and they are not frozen yet. Opened again, or after a resume, it freezes the same.
    pub fn freeze_tables(&mut self, from: Option<Round>) {
        let due = from.is_some_and(|from| self.committed >= from);
        if due && self.tables.is_none() {
            let best = |client: &ClientId| (*client, self.best_state(*client));
            let states = self.slices.keys().map(best).collect();
            self.tables = Some(FrozenTables { since: self.committed, states });
        }
    }

    /// What a client goes on from, with the table that it trains with.
    pub fn training(&self, client: ClientId) -> TabledState {
        let table = self.tables.as_ref().map(|tables| tables.states[&client]);
        TabledState { state: self.current(client), table }
    }

    /// A state of a client as it ranks: with the frozen table if it was trained with it.
    pub fn ranked(&self, client: ClientId, state: StateId) -> TabledState {
        let frozen = self.tables.as_ref().filter(|tables| state.round > tables.since);
        TabledState { state, table: frozen.map(|tables| tables.states[&client]) }
    }

    /// Whether the mean of `round` is what somebody goes on from.
    pub fn is_followed(&self, round: Round) -> bool {
        self.following.iter().any(|client| self.slices[client] == round)
    }
}
