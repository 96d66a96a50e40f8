//! What others ask of the state machine; nothing here changes it.

use super::{Member, Phase, RoundMachine};
use crate::federation::round::{Attempt, FederationState};
use crate::ids::ClientId;

impl RoundMachine {
    /// State of the last commit.
    pub fn state(&self) -> &FederationState {
        &self.state
    }

    /// The attempt under way, or the next one.
    pub fn attempt(&self) -> Attempt {
        Attempt { round: self.state.committed, attempt: self.attempt }
    }

    /// What is under way, in a word.
    pub fn phase(&self) -> &'static str {
        match self.phase {
            Phase::Idle => "waiting for members",
            Phase::Evaluating => "evaluating",
            Phase::Training(_) => "training",
            Phase::Screening { .. } => "screening",
            Phase::Mixing { .. } => "mixing",
            Phase::Committing { .. } => "committing",
            Phase::Finished => "over",
        }
    }

    /// Whether clients are training.
    pub fn is_training(&self) -> bool {
        matches!(self.phase, Phase::Training(_))
    }

    /// Whether what is under way needs a client: it trains, or what it trained is not committed, or it ranks.
    pub fn needs(&self, client: ClientId) -> bool {
        match &self.phase {
            Phase::Idle => false,
            // At the end everybody's best state is tested.
            Phase::Evaluating | Phase::Finished => true,
            Phase::Training(members) => {
                members.get(&client).is_some_and(|member| !matches!(member, Member::Absent(_)))
            }
            Phase::Screening { reports, .. } | Phase::Mixing { reports, .. } => {
                reports.contains_key(&client)
            }
            Phase::Committing { next } => next.slices.get(&client) == Some(&next.committed),
        }
    }

    /// Whether a client is at work on the attempt; a replacement of it has to be asked again.
    pub fn is_working(&self, client: ClientId) -> bool {
        matches!(&self.phase, Phase::Training(members)
            if matches!(members.get(&client), Some(Member::Working { .. })))
    }
}
