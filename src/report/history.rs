//! A run as its events tell it: what was superseded is gone, what is left is by round.

use std::collections::BTreeMap;

use crate::checkpoint::Fingerprint;
use crate::cost::CostPlan;
use crate::federation::matrix::Matrix;
use crate::federation::mixing::MixingWeights;
use crate::federation::round::{Absence, Attempt, Outcome};
use crate::history::{ClientRound, ClientSummary, EventKind, RunEvent, SCHEMA, TestResult};
use crate::ids::{ClientId, Round};
use crate::ranking::Metrics;

/// Everything of a run that tables and plots need.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// Version of the log's schema.
    pub schema: u32,
    /// What the run's bits depend on.
    pub fingerprint: Fingerprint,
    /// Name of the data set.
    pub dataset: String,
    /// Items that are ranked.
    pub items: u64,
    /// The clients.
    pub clients: BTreeMap<ClientId, Option<ClientSummary>>,
    /// What a client needs under the split and what it would need alone.
    pub plan: CostPlan,
    /// Committed rounds, by the number the log gives them, from 0.
    pub rounds: BTreeMap<Round, CommittedRound>,
    /// Validation, by state: 0 is the start.
    pub evaluations: BTreeMap<Round, Evaluation>,
    /// Mixing weights of the newest round. Earlier ones are not kept: a thousand clients have a million.
    pub mixing: Option<(Round, MixingWeights)>,
    /// Rounds opened again, restarts, resumes and changed settings, in the order they happened.
    pub incidents: Vec<Incident>,
    /// The run's end, if it came to one.
    pub finish: Option<Finish>,
    /// Lines at the end that were no event.
    pub torn_lines: u64,
    /// Lines of a newer schema that this build cannot read.
    pub unread_lines: u64,
    /// Round under way, or the next one.
    open: Round,
}

/// A round that is durable.
#[derive(Clone, Debug, PartialEq)]
pub struct CommittedRound {
    /// Attempt that succeeded, from 0.
    pub attempt: u32,
    /// Wall time since the round was opened.
    pub seconds: f64,
    /// Clients whose update was mixed.
    pub clients: BTreeMap<ClientId, ClientRound>,
    /// Clients without a part, and why.
    pub absent: BTreeMap<ClientId, Absence>,
    /// What each client's new tensors keep of its own: the diagonal of the mixing matrix, the mean of
    /// the three where front, body and back have one each.
    pub self_weight: BTreeMap<ClientId, f64>,
    /// Highest resident memory of the process so far.
    pub peak_memory_bytes: u64,
}

/// A state, ranked on validation rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Metrics of clients that have validation rows.
    pub clients: BTreeMap<ClientId, Metrics>,
    /// Wall time.
    pub seconds: f64,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Finish {
    /// Why.
    pub outcome: Outcome,
    /// Test metrics; empty if the run did not complete.
    pub test: BTreeMap<ClientId, TestResult>,
}

/// Something out of the ordinary.
#[derive(Clone, Debug, PartialEq)]
pub struct Incident {
    /// Milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// Round under way, by the number the log gives it.
    pub round: Round,
    /// What happened: a round opened again, a restart, a resume, a changed heating.
    pub event: EventKind,
}

impl History {
    /// A run that just started; `None` if `event` is another than [`EventKind::RunStarted`].
    pub fn start(event: RunEvent) -> Option<Self> {
        let EventKind::RunStarted { schema, fingerprint, dataset, items, clients, plan } =
            event.kind
        else {
            return None;
        };
        Some(Self {
            schema,
            fingerprint,
            dataset,
            items,
            clients,
            plan,
            rounds: BTreeMap::new(),
            evaluations: BTreeMap::new(),
            mixing: None,
            incidents: Vec::new(),
            finish: None,
            torn_lines: 0,
            unread_lines: 0,
            open: Round(0),
        })
    }

    /// Takes in the next event of the log.
    ///
    /// A resume drops what came after the commit it goes on from, a repeated round or evaluation
    /// replaces the one before, and a second start begins anew. Incidents stay: they happened.
    pub fn apply(&mut self, event: RunEvent) {
        let RunEvent { time_ms, kind } = event;
        match kind {
            EventKind::RunStarted { .. } => {
                let incidents = std::mem::take(&mut self.incidents);
                let again = Self::start(RunEvent { time_ms, kind });
                *self = Self { incidents, ..again.expect("the event is a start") };
            }
            EventKind::Resumed { round, .. } => {
                self.go_back_to(round);
                self.note(time_ms, kind);
            }
            EventKind::RoundOpened { attempt: Attempt { round, attempt }, .. } => {
                self.open = round;
                if attempt > 0 {
                    self.note(time_ms, kind);
                }
            }
            EventKind::MemberRestarted { .. } | EventKind::HeatingChanged { .. } => {
                self.note(time_ms, kind);
            }
            EventKind::RoundCommitted {
                attempt,
                seconds,
                clients,
                absent,
                mixing,
                peak_memory_bytes,
                ..
            } => {
                let Attempt { round, attempt } = attempt;
                let self_weight = self_weights(&mixing);
                let committed = CommittedRound {
                    attempt,
                    seconds,
                    clients,
                    absent,
                    self_weight,
                    peak_memory_bytes,
                };
                self.rounds.insert(round, committed);
                self.mixing = Some((round, mixing));
                self.open = round.next();
            }
            EventKind::RoundEvaluated { round, clients, seconds } => {
                self.evaluations.insert(round, Evaluation { clients, seconds });
            }
            EventKind::RunFinished { outcome, test, .. } => {
                self.finish = Some(Finish { outcome, test });
            }
        }
    }

    /// What a reader of the report must know about the log.
    pub fn warnings(&self) -> Vec<String> {
        let newer = (self.schema > SCHEMA).then(|| {
            format!(
                "the event log has schema {}, this build reads {SCHEMA}: {} lines could not be read, \
                 and fields that are new are left out",
                self.schema, self.unread_lines
            )
        });
        let torn = (self.torn_lines > 0)
            .then(|| "the last line of the event log is torn and was dropped".to_owned());
        newer.into_iter().chain(torn).collect()
    }

    /// Wall time of the rounds and evaluations that count.
    pub fn seconds(&self) -> f64 {
        let rounds = self.rounds.values().map(|round| round.seconds);
        rounds.chain(self.evaluations.values().map(|evaluation| evaluation.seconds)).sum()
    }

    /// Users of all clients, if they are known.
    pub fn users(&self) -> Option<u64> {
        self.clients.values().map(|client| Some(client.as_ref()?.users)).sum()
    }

    /// Rounds that are done.
    pub fn completed_rounds(&self) -> u64 {
        self.rounds.keys().next_back().map_or(0, |round| round.next().0)
    }

    /// State `committed` holds again, and nothing that came of it.
    fn go_back_to(&mut self, committed: Round) {
        self.rounds.retain(|round, _| *round < committed);
        self.evaluations.retain(|state, _| *state <= committed);
        self.mixing.take_if(|(round, _)| *round >= committed);
        self.finish = None;
        self.open = committed;
    }

    fn note(&mut self, time_ms: u64, event: EventKind) {
        self.incidents.push(Incident { time_ms, round: self.open, event });
    }
}

fn self_weights(mixing: &MixingWeights) -> BTreeMap<ClientId, f64> {
    let matrices: Vec<&Matrix> = mixing.matrices().iter().map(|(_, matrix)| matrix).collect();
    let mean = |place| {
        let own = matrices.iter().map(|matrix| matrix.get(place, place));
        own.sum::<f64>() / matrices.len() as f64
    };
    mixing.clients().iter().enumerate().map(|(place, client)| (*client, mean(place))).collect()
}
