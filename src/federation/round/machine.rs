//! Transitions of the round state machine.

mod questions;

use std::collections::BTreeMap;

use rand::seq::index;
use tracing::warn;

use super::{
    Absence, Adoption, Attempt, Command, Event, FederationState, LocalRoundReport, Outcome,
    Participant, summary,
};
use crate::config::{FederationConfig, HeatingConfig, Quorum};
use crate::federation::heating::{Heating, HeatingError};
use crate::ids::{ClientId, Round};
use crate::seed;

/// What the machine decides by.
#[derive(Clone, Debug)]
pub struct RoundRules {
    /// Section `federation` of the config.
    pub federation: FederationConfig,
    /// Evaluate after every so many rounds.
    pub evaluate_every: u64,
    /// Nobody is excluded by time.
    pub deterministic: bool,
    /// Seed of the run; draws the participants.
    pub run_seed: u64,
    /// Who goes on from the shared mean instead of its own state.
    pub adoption: Adoption,
    /// Round from which on item tables stay.
    pub tables_stay_from: Option<Round>,
}

/// The supervisor's decisions. Times are milliseconds of any clock that does not run backwards.
#[derive(Debug)]
pub struct RoundMachine {
    rules: RoundRules,
    state: FederationState,
    first_attempt: u32,
    attempt: u32,
    phase: Phase,
    stop_requested: bool,
}

#[derive(Debug)]
enum Phase {
    Idle,
    Evaluating,
    Training(BTreeMap<ClientId, Member>),
    Screening { reports: Reports, absent: Absences },
    Mixing { reports: Reports, absent: Absences },
    Committing { next: FederationState },
    Finished,
}

type Reports = BTreeMap<ClientId, LocalRoundReport>;
type Absences = BTreeMap<ClientId, Absence>;

#[derive(Debug)]
enum Member {
    Working { last_progress_ms: u64 },
    Done(LocalRoundReport),
    Absent(Absence),
}

impl RoundMachine {
    /// A machine that goes on from `state`.
    pub fn new(rules: RoundRules, state: FederationState) -> Self {
        let (phase, stop_requested) = (Phase::Idle, false);
        Self { rules, state, first_attempt: 0, attempt: 0, phase, stop_requested }
    }

    /// Numbers the attempts of every round from `first`.
    ///
    /// For a supervisor that takes the place of one whose messages may still be under way: with a
    /// number above any that one used, they are late and change nothing.
    pub fn starting_at(self, first: u32) -> Self {
        Self { first_attempt: first, attempt: first, ..self }
    }

    /// Changes the heating from the next mix on; an operator's word.
    ///
    /// # Errors
    /// If the values make no curve; the heating in force stays.
    pub fn set_heating(&mut self, heating: HeatingConfig) -> Result<(), HeatingError> {
        Heating::new(&heating)?;
        self.state.heating = heating;
        Ok(())
    }

    /// Takes an event in and says what to do. Events that do not belong to the attempt or the
    /// phase are late or repeated and change nothing.
    pub fn handle(&mut self, now_ms: u64, event: Event) -> Vec<Command> {
        match event {
            Event::Start if matches!(self.phase, Phase::Idle) => self.next_round(now_ms),
            Event::Start => Vec::new(),
            Event::StopRequested => self.on_stop(),
            Event::Evaluated { round, ndcg } => self.on_evaluated(now_ms, round, &ndcg),
            Event::Tick => self.on_tick(now_ms),
            Event::Refused { attempt, client, reason } => {
                self.on_member(now_ms, attempt, client, Member::Absent(Absence::Refused(reason)))
            }
            Event::ClientLost { attempt, client, reason } => {
                self.on_member(now_ms, attempt, client, Member::Absent(Absence::Lost(reason)))
            }
            Event::LocalRoundDone { attempt, client, report } => {
                self.on_member(now_ms, attempt, client, Member::Done(report))
            }
            Event::Progress { attempt, client } => {
                let working = Member::Working { last_progress_ms: now_ms };
                self.on_member(now_ms, attempt, client, working)
            }
            Event::Screened { attempt, refused } => self.on_screened(now_ms, attempt, refused),
            Event::Staged { attempt } => self.on_staged(attempt),
            Event::MixFailed { attempt, reason } => {
                let mixing = matches!(self.phase, Phase::Screening { .. } | Phase::Mixing { .. });
                if mixing && attempt == self.attempt() {
                    return self.reopen(now_ms, reason);
                }
                Vec::new()
            }
            Event::Committed { attempt } => self.on_committed(now_ms, attempt),
        }
    }

    /// Evaluates, opens the next round, or finishes, whichever is due.
    fn next_round(&mut self, now_ms: u64) -> Vec<Command> {
        let round = self.state.committed;
        let last = round.0 >= self.rules.federation.rounds;
        let due = last || round.0.is_multiple_of(self.rules.evaluate_every);
        if due && self.state.evaluated != Some(round) {
            self.phase = Phase::Evaluating;
            return vec![Command::Evaluate { round }];
        }
        let patience = self.rules.federation.patience.get();
        let outcome = if last {
            Outcome::RoundsDone
        } else if patience.is_some_and(|patience| self.state.without_gain >= patience.get()) {
            Outcome::PatienceSpent
        } else if self.stop_requested {
            Outcome::Stopped
        } else {
            self.attempt = self.first_attempt;
            return self.open(now_ms);
        };
        self.finish(outcome)
    }

    /// A local round under way is given up: a resumed run repeats it with the same result. A mix,
    /// a commit or an evaluation under way is finished first.
    fn on_stop(&mut self) -> Vec<Command> {
        self.stop_requested = true;
        let Phase::Training(members) = &self.phase else { return Vec::new() };
        let clients = members.keys().copied().collect();
        let mut commands = vec![Command::Abandon { attempt: self.attempt(), clients }];
        commands.extend(self.finish(Outcome::Stopped));
        commands
    }

    fn finish(&mut self, outcome: Outcome) -> Vec<Command> {
        self.phase = Phase::Finished;
        vec![Command::Finish(outcome)]
    }

    fn open(&mut self, now_ms: u64) -> Vec<Command> {
        self.state.freeze_tables(self.rules.tables_stay_from);
        let clients = self.sample(self.state.committed);
        let working = |client: &ClientId| (*client, Member::Working { last_progress_ms: now_ms });
        self.phase = Phase::Training(clients.iter().map(working).collect());
        vec![Command::OpenRound { attempt: self.attempt(), clients }]
    }

    /// Participants of a round in client-id order; the same for every attempt.
    fn sample(&self, round: Round) -> Vec<ClientId> {
        let all: Vec<ClientId> = self.state.slices.keys().copied().collect();
        let count = self.rules.federation.participants(all.len() as u32) as usize;
        if count >= all.len() {
            return all;
        }
        let mut rng = seed::rng(self.rules.run_seed, "participation", &[round.0]);
        let mut drawn = index::sample(&mut rng, all.len(), count).into_vec();
        drawn.sort_unstable();
        drawn.into_iter().map(|index| all[index]).collect()
    }

    fn on_member(
        &mut self,
        now_ms: u64,
        attempt: Attempt,
        client: ClientId,
        news: Member,
    ) -> Vec<Command> {
        if attempt != self.attempt() {
            return Vec::new();
        }
        let Phase::Training(members) = &mut self.phase else { return Vec::new() };
        match members.get_mut(&client) {
            Some(member @ Member::Working { .. }) => *member = news,
            _ => return Vec::new(),
        }
        self.close_training(now_ms)
    }

    fn on_tick(&mut self, now_ms: u64) -> Vec<Command> {
        if self.rules.deterministic {
            return Vec::new();
        }
        let attempt = self.attempt();
        let limit_ms = self.rules.federation.progress_deadline_secs.get() * 1000;
        let Phase::Training(members) = &mut self.phase else { return Vec::new() };
        let mut silent = Vec::new();
        for (client, member) in members.iter_mut() {
            if let Member::Working { last_progress_ms } = member
                && now_ms.saturating_sub(*last_progress_ms) > limit_ms
            {
                *member = Member::Absent(Absence::Silent);
                silent.push(*client);
            }
        }
        if silent.is_empty() {
            return Vec::new();
        }
        let mut commands = vec![Command::Abandon { attempt, clients: silent }];
        commands.extend(self.close_training(now_ms));
        commands
    }

    /// Goes on to the screening once nobody works any more.
    fn close_training(&mut self, now_ms: u64) -> Vec<Command> {
        let Phase::Training(members) = &mut self.phase else { return Vec::new() };
        if members.values().any(|member| matches!(member, Member::Working { .. })) {
            return Vec::new();
        }
        let (mut reports, mut absent) = (Reports::new(), Absences::new());
        for (client, member) in std::mem::take(members) {
            match member {
                Member::Done(report) if report.loss.is_finite() => {
                    reports.insert(client, report);
                }
                Member::Done(report) => {
                    let reason = format!("its loss is {}, expected a finite number", report.loss);
                    absent.insert(client, Absence::Screened(reason));
                }
                Member::Absent(why) => {
                    absent.insert(client, why);
                }
                Member::Working { .. } => {}
            }
        }
        if let Some(reason) = self.quorum_missed(&reports, &absent) {
            return self.reopen(now_ms, reason);
        }
        let participants = reports.keys().copied().collect();
        self.phase = Phase::Screening { reports, absent };
        vec![Command::Screen { attempt: self.attempt(), participants }]
    }

    fn quorum_missed(&self, reports: &Reports, absent: &Absences) -> Option<String> {
        let asked = reports.len() + absent.len();
        let needed = match self.rules.federation.quorum {
            Quorum::All => asked,
            Quorum::Majority => asked / 2 + 1,
            Quorum::AtLeast(clients) => clients.get() as usize,
        };
        if reports.len() >= needed.max(1) {
            return None;
        }
        Some(format!(
            "quorum missed: {} of {asked} clients finished, {needed} needed ({})",
            reports.len(),
            summary(absent)
        ))
    }

    /// Opens the round again from the last commit, or gives up when the budget is spent.
    fn reopen(&mut self, now_ms: u64, reason: String) -> Vec<Command> {
        if self.stop_requested {
            return self.finish(Outcome::Stopped);
        }
        if self.attempt - self.first_attempt >= self.rules.federation.reopen_budget {
            return self.finish(Outcome::RoundFailed(reason));
        }
        warn!(round = %self.state.committed, reason, "the round is opened again");
        let clients = self.sample(self.state.committed);
        let mut commands = vec![Command::Abandon { attempt: self.attempt(), clients }];
        self.attempt += 1;
        commands.extend(self.open(now_ms));
        commands
    }

    fn on_screened(
        &mut self,
        now_ms: u64,
        attempt: Attempt,
        refused: BTreeMap<ClientId, String>,
    ) -> Vec<Command> {
        if attempt != self.attempt() {
            return Vec::new();
        }
        let Phase::Screening { reports, absent } = &mut self.phase else { return Vec::new() };
        let (mut reports, mut absent) = (std::mem::take(reports), std::mem::take(absent));
        for (client, reason) in refused {
            if reports.remove(&client).is_some() {
                absent.insert(client, Absence::Screened(reason));
            }
        }
        if let Some(reason) = self.quorum_missed(&reports, &absent) {
            return self.reopen(now_ms, reason);
        }
        let openness = match self.openness(&reports) {
            Ok(openness) => openness,
            Err(error) => return self.reopen(now_ms, error.to_string()),
        };
        let participants = reports.iter().map(|(client, report)| {
            let participant = Participant { openness: openness[client], report: report.clone() };
            (*client, participant)
        });
        let participants: BTreeMap<ClientId, Participant> = participants.collect();
        let shared = !self.rules.adoption.adopters(&self.state, &reports, &absent).is_empty();
        let command = Command::Mix { attempt, participants, shared };
        self.phase = Phase::Mixing { reports, absent };
        vec![command]
    }

    /// Heating over the clients that trained. One without rows is fully open: it has learnt nothing
    /// of its own, and its loss of 0 would move the others' shares and median.
    fn openness(&self, reports: &Reports) -> Result<BTreeMap<ClientId, f64>, HeatingError> {
        let measured = |(client, report): (&ClientId, &LocalRoundReport)| {
            Some((*client, report.measured_loss()?))
        };
        let losses = reports.iter().filter_map(measured).collect();
        let heated = Heating::new(&self.state.heating)?.openness(&losses, self.state.committed)?;
        let of = |client: &ClientId| (*client, heated.get(client).copied().unwrap_or(1.0));
        Ok(reports.keys().map(of).collect())
    }

    fn on_staged(&mut self, attempt: Attempt) -> Vec<Command> {
        if attempt != self.attempt() {
            return Vec::new();
        }
        let Phase::Mixing { reports, absent } = &mut self.phase else { return Vec::new() };
        let (reports, absent) = (std::mem::take(reports), std::mem::take(absent));
        let adopted = self.rules.adoption.adopters(&self.state, &reports, &absent);
        let mut next = self.state.clone();
        next.committed = self.state.committed.next();
        for client in reports.keys().chain(&adopted) {
            next.slices.insert(*client, next.committed);
        }
        next.following.retain(|client| !reports.contains_key(client));
        next.following.extend(&adopted);
        self.phase = Phase::Committing { next: next.clone() };
        vec![Command::Commit { attempt, state: Box::new(next), absent }]
    }

    fn on_committed(&mut self, now_ms: u64, attempt: Attempt) -> Vec<Command> {
        if attempt != self.attempt() {
            return Vec::new();
        }
        let Phase::Committing { next } = &self.phase else { return Vec::new() };
        // Heating may have been changed while the commit was written.
        let heating = self.state.heating.clone();
        self.state = FederationState { heating, ..next.clone() };
        self.next_round(now_ms)
    }

    fn on_evaluated(
        &mut self,
        now_ms: u64,
        round: Round,
        ndcg: &BTreeMap<ClientId, Option<f64>>,
    ) -> Vec<Command> {
        if !matches!(self.phase, Phase::Evaluating) || round != self.state.committed {
            return Vec::new();
        }
        self.state.record_evaluation(ndcg);
        self.next_round(now_ms)
    }
}
