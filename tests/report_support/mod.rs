//! Event logs of runs that never were, through the real types: learning clients, the last one odd.

use std::collections::{BTreeMap, BTreeSet};

use fellrec::checkpoint::Fingerprint;
use fellrec::config::{HeatingConfig, HeatingForm, OrNone};
use fellrec::cost::{ClientCost, ClientNeed, CostPlan};
use fellrec::federation::matrix::{Grouped, Matrix};
use fellrec::federation::mixing::MixingWeights;
use fellrec::federation::round::{Absence, Attempt, LocalRoundReport, Outcome, Source};
use fellrec::history::{
    ClientRound, ClientSummary, EventKind, RunEvent, SCHEMA, SampledResult, TestResult,
};
use fellrec::ids::{ClientId, Round};
use fellrec::model::slice::Digest;
use fellrec::ranking::Metrics;

/// 2026-01-02 03:04:05 UTC.
const START_MS: u64 = 1_767_323_045_000;

/// A number in 0..1 that looks random and depends on its arguments alone.
fn noise(client: u32, round: u64, purpose: u64) -> f64 {
    let mut bits = u64::from(client) << 40 ^ round << 8 ^ purpose;
    for _ in 0..3 {
        bits = (bits ^ bits >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// A run of `count` clients.
pub struct Run {
    pub dataset: &'static str,
    pub count: u32,
    pub rounds: u64,
}

impl Run {
    pub fn clients(&self) -> impl Iterator<Item = ClientId> + use<> {
        (0..self.count).map(ClientId)
    }

    /// How well the client's users can be served at all.
    fn ceiling(&self, client: ClientId) -> f64 {
        let odd = if client.0 + 1 == self.count { 0.5 } else { 1.0 };
        odd * (0.08 + 0.06 * noise(client.0, 0, 1))
    }

    fn metrics(&self, client: ClientId, state: u64, users: u64) -> Metrics {
        let learned = 1.0 - (-0.45 * state as f64).exp();
        let ndcg10 = self.ceiling(client) * (0.08 + 0.92 * learned)
            + 0.003 * (noise(client.0, state, 2) - 0.5);
        metrics(ndcg10.max(0.0), users)
    }

    pub fn started(&self) -> EventKind {
        let summary = |client: ClientId| {
            let users = 150 + (200.0 * noise(client.0, 0, 3)) as u64;
            ClientSummary { users, interactions: users * 23, tested_users: users - 4 }
        };
        EventKind::RunStarted {
            schema: SCHEMA,
            fingerprint: Fingerprint {
                base: None,
                adapter: None,
                product: "0.1.0".to_owned(),
                libtorch: "2.11.0+cpu".to_owned(),
                cpu: "AVX2".to_owned(),
                intra_op_threads: 1,
                devices: vec!["cpu".to_owned()],
                dtype: "f32".to_owned(),
                config: "4d2f9c1c66d0".to_owned(),
            },
            dataset: self.dataset.to_owned(),
            items: 400,
            clients: self.clients().map(|client| (client, Some(summary(client)))).collect(),
            plan: plan(),
        }
    }

    pub fn opened(&self, round: u64, attempt: u32) -> EventKind {
        let clients: BTreeSet<ClientId> = self.clients().collect();
        EventKind::RoundOpened { attempt: Attempt { round: Round(round), attempt }, clients }
    }

    /// The odd client is away in round 3, and so are a few of many.
    fn is_absent(&self, client: ClientId, round: u64) -> bool {
        round == 3 && (client.0 + 1 == self.count || client.0 % 50 == 49)
    }

    pub fn committed(&self, round: u64) -> EventKind {
        let (absent, present): (Vec<_>, Vec<_>) =
            self.clients().partition(|client| self.is_absent(*client, round));
        let why = |client: ClientId| match client.0 % 3 {
            0 => Absence::Silent,
            1 => Absence::Lost("its restart budget is spent".to_owned()),
            _ => Absence::Screened("the loss is NaN, expected a finite number".to_owned()),
        };
        EventKind::RoundCommitted {
            attempt: Attempt { round: Round(round), attempt: u32::from(round == 2) },
            seconds: 9.4 + noise(0, round, 4),
            clients: present.iter().map(|client| (*client, self.part(*client, round))).collect(),
            absent: absent.into_iter().map(|client| (client, why(client))).collect(),
            adopted: BTreeSet::new(),
            mixing: weights(&present, round),
            slices: Digest::of(&round.to_le_bytes()),
            peak_memory_bytes: (412 + 3 * round) << 20,
        }
    }

    fn part(&self, client: ClientId, round: u64) -> ClientRound {
        let t = round as f64;
        let report = LocalRoundReport {
            loss: 5.99 - 2.2 * (1.0 - (-0.35 * (t + 1.0)).exp())
                + 0.5 * noise(client.0, 0, 5)
                + 0.05 * noise(client.0, round, 6),
            labels: 3_400,
            steps: 28,
            rows: 3_400,
        };
        let openness = (0.35 * (t + 1.0) * (0.5 + noise(client.0, 0, 7))).tanh();
        let work = 0.4 + 0.2 * noise(client.0, round, 8);
        let cost = ClientCost {
            front_secs: 0.9 * work,
            body_secs: 1.6 * work,
            back_secs: 1.3 * work,
            wait_secs: 0.7 * noise(client.0, round, 9),
            bytes_up: 41_000_000 + (1e6 * work) as u64,
            bytes_down: 39_000_000 + (1e6 * work) as u64,
        };
        ClientRound { report, openness, cost }
    }

    pub fn evaluated(&self, state: u64) -> EventKind {
        let clients = self.clients().map(|client| (client, self.metrics(client, state, 150)));
        EventKind::RoundEvaluated { round: Round(state), clients: clients.collect(), seconds: 1.2 }
    }

    pub fn finished(&self) -> EventKind {
        let result = |client: ClientId| TestResult {
            popularity: metrics(0.3 * self.ceiling(client), 196),
            before: self.metrics(client, 0, 196),
            after: self.metrics(client, self.rounds, 196),
            best_round: Round(self.rounds - u64::from(client.0 % 3)),
            best_source: Source::Own,
            sampled: (self.count < 10).then(|| SampledResult {
                protocol: "99 uniform negatives".to_owned(),
                metrics: metrics(3.0 * self.ceiling(client), 196),
            }),
        };
        EventKind::RunFinished {
            outcome: Outcome::RoundsDone,
            test: self.clients().map(|client| (client, result(client))).collect(),
            seconds: 12.0 * self.rounds as f64,
        }
    }

    pub fn restarted() -> EventKind {
        EventKind::MemberRestarted {
            member: "shard-0-1".to_owned(),
            cause: "panicked: <index out of bounds>".to_owned(),
            restarts: 1,
        }
    }

    pub fn resumed(round: u64) -> EventKind {
        let why = "manifest.json has sha256 77ab, its manifest says 01fe".to_owned();
        EventKind::Resumed {
            round: Round(round),
            skipped: BTreeMap::from([(Round(round + 1), why)]),
        }
    }

    pub fn heating_changed(round: u64) -> EventKind {
        let heating = HeatingConfig {
            form: HeatingForm::Scaled,
            alpha: 0.5,
            beta: 5.0,
            tau: OrNone::Some(1.0),
            overrides: Vec::new(),
        };
        EventKind::HeatingChanged { round: Round(round), heating }
    }

    /// The whole log, with a restart, a repeated round, a resume and an operator's word.
    pub fn events(&self) -> Vec<EventKind> {
        let mut events = vec![self.started(), self.evaluated(0)];
        for round in 0..self.rounds {
            events.push(self.opened(round, 0));
            match round {
                2 => events.extend([Self::restarted(), self.opened(2, 1)]),
                5 => events.extend([Self::resumed(5), self.opened(5, 0)]),
                6 => events.push(Self::heating_changed(6)),
                _ => {}
            }
            events.extend([self.committed(round), self.evaluated(round + 1)]);
        }
        events.push(self.finished());
        events
    }

    /// The log's lines.
    pub fn lines(&self) -> Vec<String> {
        lines(self.events())
    }
}

/// Events as lines of a log, five seconds apart.
pub fn lines(events: Vec<EventKind>) -> Vec<String> {
    let line = |(place, kind): (u64, EventKind)| {
        let event = RunEvent { time_ms: START_MS + 5_000 * place, kind };
        serde_json::to_string(&event).expect("events are plain data")
    };
    (0..).zip(events).map(line).collect()
}

fn metrics(ndcg10: f64, users: u64) -> Metrics {
    let at = |factor: f64| {
        [(1, 0.3), (5, 0.75), (10, 1.0), (20, 1.3)].map(|(k, share)| (k, factor * share * ndcg10))
    };
    Metrics {
        users,
        recall: BTreeMap::from(at(1.9)),
        ndcg: BTreeMap::from(at(1.0)),
        mrr: 0.8 * ndcg10,
    }
}

fn weights(clients: &[ClientId], round: u64) -> MixingWeights {
    let openness = 1.0 - (-0.5 * (round + 1) as f64).exp();
    let similar = |a: usize, b: usize| {
        let near = if a % 3 == b % 3 { 0.9 } else { 0.35 };
        near + 0.1 * noise((a * clients.len() + b) as u32, 0, 10)
    };
    let attention = Matrix::from_fn(clients.len(), |row, column| {
        if row == column { 1.0 } else { openness * similar(row, column) }
    });
    let similarity = Grouped::One(Matrix::from_fn(clients.len(), similar));
    let weights = MixingWeights::normalised(clients.to_vec(), &Grouped::One(attention));
    weights.expect("weights above 0").with_similarity(similarity)
}

fn plan() -> CostPlan {
    let need = |parameters, flops| ClientNeed {
        parameters,
        trainable: parameters,
        bytes: parameters * 16,
        flops_per_position: flops,
    };
    CostPlan {
        split: need(212_000, 410_000),
        whole: need(410_000, 790_000),
        wire_bytes_per_position: 1_024,
    }
}
