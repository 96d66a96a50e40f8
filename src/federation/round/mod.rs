//! The supervisor's state machine: what happens next in a round, and why.
//!
//! No clock, thread or message of its own: events and the time go in, commands come out, and the
//! driver (an actor, or the simulated network of the tests) carries them out. A round goes
//! open, train, screen, mix and stage, commit, evaluate (protocol.md 2).

mod adoption;
mod machine;
mod state;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use adoption::Adoption;
pub use machine::{RoundMachine, RoundRules};
pub use state::{Best, FederationState, FrozenTables, Source, StateId, TabledState};

use crate::config::MOST_REOPENINGS;
use crate::ids::{ClientId, Round};

/// One try at a round: a round opened again keeps its number and counts its attempts.
///
/// The later one is the greater one. A supervisor that takes another's place may have to go back a round, and is later
/// all the same, by its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Attempt {
    /// The round.
    pub round: Round,
    /// From 0, or from a multiple of [`Attempt::PER_SUPERVISOR`] of who took another supervisor's place.
    pub attempt: u32,
}

impl Attempt {
    /// Numbers that one supervisor has for the attempts of a round.
    pub const PER_SUPERVISOR: u32 = MOST_REOPENINGS + 1;
}

impl Ord for Attempt {
    fn cmp(&self, other: &Self) -> Ordering {
        let place = |a: &Self| (a.attempt / Self::PER_SUPERVISOR, a.round, a.attempt);
        place(self).cmp(&place(other))
    }
}

impl PartialOrd for Attempt {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What a client says of its local round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LocalRoundReport {
    /// Sum of the loss over the trained labels divided by their number, in nats; L_c of method.md 1.
    /// 0 without any label, as at a client without rows: it says nothing then, and heating does not
    /// look at it.
    pub loss: f64,
    /// Labels trained on.
    pub labels: u64,
    /// Optimiser steps made.
    pub steps: u64,
    /// Rows that the client trains on, few-shot only those drawn: its data size.
    pub rows: u64,
}

impl LocalRoundReport {
    /// L_c, if anything was trained on.
    pub fn measured_loss(&self) -> Option<f64> {
        (self.labels > 0).then_some(self.loss)
    }
}

/// Why a client has no part in a round's mix. It keeps its own state and joins the next round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "detail")]
pub enum Absence {
    /// It declined to take part.
    Refused(String),
    /// It made no progress within the deadline.
    Silent,
    /// It failed and its restart budget is spent, or it cannot be started again.
    Lost(String),
    /// Its update or loss did not pass the screening.
    Screened(String),
}

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Absence::Refused(reason) => write!(f, "refused: {reason}"),
            Absence::Silent => write!(f, "no progress within the deadline"),
            Absence::Lost(reason) => write!(f, "lost: {reason}"),
            Absence::Screened(reason) => write!(f, "screened out: {reason}"),
        }
    }
}

/// Each reason once with the first client and the number of others: there may be thousands of clients.
fn summary(absent: &BTreeMap<ClientId, Absence>) -> String {
    let mut reasons: BTreeMap<String, Vec<ClientId>> = BTreeMap::new();
    for (client, absence) in absent {
        reasons.entry(absence.to_string()).or_default().push(*client);
    }
    let named = |(reason, clients): (String, Vec<ClientId>)| match clients.len() - 1 {
        0 => format!("{}: {reason}", clients[0]),
        others => format!("{} and {others} more: {reason}", clients[0]),
    };
    reasons.into_iter().map(named).collect::<Vec<_>>().join("; ")
}

/// What the driver tells the machine. Events of another attempt are ignored.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Begin, or go on after a resume; once a machine.
    Start,
    /// A client refused the round.
    Refused {
        /// Attempt it was asked for.
        attempt: Attempt,
        /// Who.
        client: ClientId,
        /// Why.
        reason: String,
    },
    /// A client made progress on its local round.
    Progress {
        /// Attempt it works on.
        attempt: Attempt,
        /// Who.
        client: ClientId,
    },
    /// A client finished its local round, and its slices have receipts.
    LocalRoundDone {
        /// Attempt it worked on.
        attempt: Attempt,
        /// Who.
        client: ClientId,
        /// Its summary.
        report: LocalRoundReport,
    },
    /// A client cannot finish this attempt.
    ClientLost {
        /// Attempt it worked on.
        attempt: Attempt,
        /// Who.
        client: ClientId,
        /// Why.
        reason: String,
    },
    /// The aggregator checked every submitted update.
    Screened {
        /// Attempt it belongs to.
        attempt: Attempt,
        /// Clients whose update was refused, with the reason.
        refused: BTreeMap<ClientId, String>,
    },
    /// The mix is done and staged with every member.
    Staged {
        /// Attempt it belongs to.
        attempt: Attempt,
    },
    /// Screening, mixing or staging failed: the round has to be opened again.
    MixFailed {
        /// Attempt it belongs to.
        attempt: Attempt,
        /// Why.
        reason: String,
    },
    /// The commit is durable and every member has been told.
    Committed {
        /// Attempt it belongs to.
        attempt: Attempt,
    },
    /// Validation of the committed state is complete.
    Evaluated {
        /// State that was evaluated.
        round: Round,
        /// NDCG@10 on each client's validation rows; `None` for a client without any.
        ndcg: BTreeMap<ClientId, Option<f64>>,
    },
    /// Time passed.
    Tick,
    /// The operator asks to stop after what is under way.
    StopRequested,
}

/// What the machine asks of the driver.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Ask these clients to train from their state of the last commit.
    OpenRound {
        /// The attempt.
        attempt: Attempt,
        /// Whom.
        clients: Vec<ClientId>,
    },
    /// Tell these clients to drop what they hold of the attempt.
    Abandon {
        /// The attempt.
        attempt: Attempt,
        /// Whom.
        clients: Vec<ClientId>,
    },
    /// Have the aggregator check the updates of these clients.
    Screen {
        /// The attempt.
        attempt: Attempt,
        /// Participants in client-id order.
        participants: Vec<ClientId>,
    },
    /// Have the aggregator mix and stage.
    Mix {
        /// The attempt.
        attempt: Attempt,
        /// Participants in client-id order with openness w_c and report.
        participants: BTreeMap<ClientId, Participant>,
        /// Whether somebody without a part goes on from the mean of the mixed models, which then has
        /// to be staged as well.
        shared: bool,
    },
    /// Make the round durable, then tell every member.
    Commit {
        /// The attempt.
        attempt: Attempt,
        /// State after the commit; its `committed` round is the new one.
        state: Box<FederationState>,
        /// Who had no part, and why.
        absent: BTreeMap<ClientId, Absence>,
    },
    /// Evaluate the committed state of every client on its validation rows.
    Evaluate {
        /// State to evaluate.
        round: Round,
    },
    /// Nothing more to do.
    Finish(Outcome),
}

/// A client whose update goes into the mix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Participant {
    /// Openness w_c in `[0, 1]` (method.md 4).
    pub openness: f64,
    /// What it reported.
    pub report: LocalRoundReport,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All rounds are done.
    RoundsDone,
    /// The mean validation NDCG@10 stopped rising.
    PatienceSpent,
    /// The operator stopped it; it can be resumed.
    Stopped,
    /// A round failed more often than the budget allows; it can be resumed from the last commit.
    RoundFailed(String),
}

impl Outcome {
    /// Tells whether the run did what it was asked to do.
    pub fn is_complete(&self) -> bool {
        matches!(self, Outcome::RoundsDone | Outcome::PatienceSpent)
    }
}
