//! The events of a run: one JSON object a line in `events.jsonl`, schema version [`SCHEMA`].
//!
//! Everything a report, a plot or another program needs of a run is in them. Maps by client are
//! keyed by the client's number. Losses are in nats, times in seconds, sizes in bytes unless the
//! name says otherwise.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::{Deserializer, Error as _};
use serde::ser::{Error as _, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::checkpoint::Fingerprint;
use crate::config::HeatingConfig;
use crate::cost::{ClientCost, CostPlan};
use crate::federation::mixing::MixingWeights;
use crate::federation::round::{Absence, Attempt, LocalRoundReport, Outcome, Source};
use crate::ids::{ClientId, Round};
use crate::model::slice::Digest;
use crate::ranking::Metrics;

/// Version of this schema; it changes when a field changes its meaning or goes.
pub const SCHEMA: u32 = 1;

/// One line of the event log: `{"time_ms": …, "event": NAME, …}`, the event's fields beside its name.
#[derive(Clone, Debug, PartialEq)]
pub struct RunEvent {
    /// Milliseconds since the Unix epoch. The only field that differs between equal runs, with the
    /// seconds and memory inside [`ClientCost`] and [`EventKind::RoundCommitted`].
    pub time_ms: u64,
    /// What happened.
    pub kind: EventKind,
}

// By hand, since serde's own `flatten` and `tag` forget that the keys of a map are numbers: what they
// write with a client's number as key they cannot read.
impl Serialize for RunEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let kind = serde_json::to_value(&self.kind).map_err(S::Error::custom)?;
        let Value::Object(kind) = kind else {
            return Err(S::Error::custom("an event without fields has no place on a line"));
        };
        let mut line = Map::from_iter([("time_ms".to_owned(), self.time_ms.into())]);
        for (name, fields) in kind {
            line.insert("event".to_owned(), name.into());
            if let Value::Object(fields) = fields {
                line.extend(fields);
            }
        }
        line.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RunEvent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut line = Map::deserialize(deserializer)?;
        let mut take = |name| line.shift_remove(name).ok_or_else(|| D::Error::missing_field(name));
        let time_ms = serde_json::from_value(take("time_ms")?).map_err(D::Error::custom)?;
        let Value::String(event) = take("event")? else {
            return Err(D::Error::custom("field `event` is no text"));
        };
        let kind = Value::Object(Map::from_iter([(event, Value::Object(line))]));
        let kind = serde_path_to_error::deserialize(kind).map_err(D::Error::custom)?;
        Ok(Self { time_ms, kind })
    }
}

/// What can happen in a run. Written as part of a [`RunEvent`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// First line of every run.
    RunStarted {
        /// Version of the schema.
        schema: u32,
        /// What the run's bits depend on.
        fingerprint: Fingerprint,
        /// Name of the data set.
        dataset: String,
        /// Items that are ranked.
        items: u64,
        /// The clients; `None` for those whose data the supervisor has not seen.
        clients: BTreeMap<ClientId, Option<ClientSummary>>,
        /// What a client needs under the split and what it would need alone.
        plan: CostPlan,
    },
    /// The run goes on from a commit.
    Resumed {
        /// Committed round.
        round: Round,
        /// Commits that were broken and passed over, with the reason.
        skipped: BTreeMap<Round, String>,
    },
    /// Clients were asked to train.
    RoundOpened {
        /// Round and attempt.
        #[serde(flatten)]
        attempt: Attempt,
        /// Who was asked.
        clients: BTreeSet<ClientId>,
    },
    /// An actor ended and was started again.
    MemberRestarted {
        /// Its name, as in `client-3`, `shard-0-1`, `aggregator`.
        member: String,
        /// Why it ended.
        cause: String,
        /// Restarts of all members so far.
        restarts: u32,
    },
    /// A round is durable; its successor starts from what it made.
    RoundCommitted {
        /// Round and attempt that were closed.
        #[serde(flatten)]
        attempt: Attempt,
        /// Wall time since the round was opened.
        seconds: f64,
        /// Clients whose update was mixed.
        clients: BTreeMap<ClientId, ClientRound>,
        /// Clients without a part, and why.
        absent: BTreeMap<ClientId, Absence>,
        /// Clients without a part that go on from the mean of the mixed models: newcomers, and under
        /// a rule that makes one model for all everyone.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        adopted: BTreeSet<ClientId>,
        /// Mixing matrices and what they compared; one, or one each for front, body and back.
        mixing: MixingWeights,
        /// Digest over the new slices of all participants.
        slices: Digest,
        /// Highest resident memory of the process so far.
        peak_memory_bytes: u64,
    },
    /// A state was ranked on validation rows.
    RoundEvaluated {
        /// The state's round: 0 is the start, t + 1 what round t made.
        round: Round,
        /// Metrics of clients that have validation rows.
        clients: BTreeMap<ClientId, Metrics>,
        /// Wall time.
        seconds: f64,
    },
    /// An operator changed the heating; it is in force from the next mix on.
    HeatingChanged {
        /// Open round at the time.
        round: Round,
        /// New values.
        heating: HeatingConfig,
    },
    /// The run's end: final test on every client's best state.
    RunFinished {
        /// How it ended.
        outcome: Outcome,
        /// Test metrics by client; empty if the run did not complete.
        test: BTreeMap<ClientId, TestResult>,
        /// Wall time of this process.
        seconds: f64,
    },
}

/// One client, for the first line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientSummary {
    /// Users on it.
    pub users: u64,
    /// Training interactions.
    pub interactions: u64,
    /// Users with test targets.
    pub tested_users: u64,
}

/// One client's part in a committed round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientRound {
    /// What it reported.
    #[serde(flatten)]
    pub report: LocalRoundReport,
    /// Openness w_c.
    pub openness: f64,
    /// Time and traffic.
    pub cost: ClientCost,
}

/// Final test of one client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TestResult {
    /// Ranking by the popularity in the client's own training rows.
    pub popularity: Metrics,
    /// The untrained model.
    pub before: Metrics,
    /// The client's best state.
    pub after: Metrics,
    /// Round of that state.
    pub best_round: Round,
    /// Whose state it is; said only where it is the mean of the mixed models.
    #[serde(default)]
    pub best_source: Source,
    /// The best state under sampled negatives, labelled with its protocol, if configured.
    pub sampled: Option<SampledResult>,
}

/// Metrics under a sampled protocol; never to be compared with full ranking.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampledResult {
    /// Name of the protocol, as in `99 uniform negatives`.
    pub protocol: String,
    /// The metrics.
    pub metrics: Metrics,
}
