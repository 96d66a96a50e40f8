//! A client's way to the shards that serve it: the domain's [`BodyLink`] over actor messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fellrec::federation::round::Attempt;
use fellrec::ids::{ClientId, StepId};
use fellrec::split::{BodyGradient, DecodeTurn, HiddenStates, SplitError, StepPlan};
use fellrec::training::{BodyLink, Timed};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::messages::{BackwardBody, DecodeBody, EvaluateBody, ForwardBody, StepBody, StepDone};
use crate::peer::{AskError, Peer};
use crate::registry::{Entry, MemberName, ShardPeers};

/// Why a half step got no answer.
#[derive(Debug, Error)]
pub enum LinkError {
    /// One side of the cut refused.
    #[error(transparent)]
    Split(#[from] SplitError),
    /// The shard ended, or lost the session; the local round starts again on a replacement.
    #[error("{member} was lost: {cause}")]
    Lost {
        /// Who.
        member: MemberName,
        /// Which life of it.
        generation: u64,
        /// What was seen.
        cause: String,
    },
    /// The supervisor gave the attempt up.
    #[error("the attempt was given up")]
    Abandoned,
}

/// The shards of one local round or evaluation, one a stage.
pub struct ShardLink {
    pub(super) client: ClientId,
    pub(super) stages: Vec<Arc<Entry<ShardPeers>>>,
    pub(super) permits: Arc<Semaphore>,
    pub(super) cancel: Arc<AtomicBool>,
    pub(super) heartbeat: Option<Heartbeat>,
}

/// The shards of a job, and what holds it together with the rest of the client.
pub struct Line {
    /// One a stage.
    pub(super) stages: Vec<Arc<Entry<ShardPeers>>>,
    /// Set when the job is to be given up.
    pub(super) cancel: Arc<AtomicBool>,
    /// Present in a local round.
    pub(super) heartbeat: Option<Heartbeat>,
}

impl Line {
    /// For an evaluation: nobody gives it up or waits for its steps.
    pub(super) fn unwatched(stages: Vec<Arc<Entry<ShardPeers>>>) -> Self {
        Self { stages, cancel: Arc::default(), heartbeat: None }
    }
}

/// Whom a local round tells of its steps, and how far along it is in them.
#[derive(Clone)]
pub struct Heartbeat {
    pub(super) attempt: Attempt,
    pub(super) supervisor: Peer<StepDone>,
    /// Passes over the client's rows that are done.
    pub(super) passes_done: u64,
    /// Passes of the local round.
    pub(super) passes: u64,
    /// Steps done and steps of the local round, as told last.
    pub(super) told: (u64, u64),
}

impl ShardLink {
    fn settle<T>(
        &self,
        stage: usize,
        answer: Result<Result<T, SplitError>, AskError>,
    ) -> Result<T, LinkError> {
        let entry = &self.stages[stage];
        match answer {
            Ok(Err(error)) if error.is_retryable() => {
                let member = entry.peers.forward.member();
                Err(LinkError::Lost {
                    member,
                    generation: entry.generation,
                    cause: error.to_string(),
                })
            }
            Ok(answer) => Ok(answer?),
            Err(error) => Err(lost(&error, entry.generation)),
        }
    }
}

/// A member that did not answer is treated as ended, whatever the reason.
pub fn lost(error: &AskError, generation: u64) -> LinkError {
    LinkError::Lost { member: error.member(), generation, cause: error.to_string() }
}

impl BodyLink for ShardLink {
    type Error = LinkError;
    type Permit = OwnedSemaphorePermit;

    async fn permit(&mut self) -> Result<OwnedSemaphorePermit, LinkError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        if self.cancel.load(Ordering::Relaxed) {
            return Err(LinkError::Abandoned);
        }
        permit.map_err(|_| LinkError::Abandoned)
    }

    async fn forward(
        &mut self,
        stage: usize,
        step: StepId,
        hidden: HiddenStates,
    ) -> Result<Timed<HiddenStates>, LinkError> {
        let message = ForwardBody { client: self.client, step, hidden };
        self.settle(stage, self.stages[stage].peers.forward.ask(message).await)
    }

    async fn backward(
        &mut self,
        stage: usize,
        step: StepId,
        grad: HiddenStates,
    ) -> Result<Timed<BodyGradient>, LinkError> {
        let message = BackwardBody { client: self.client, step, grad };
        self.settle(stage, self.stages[stage].peers.backward.ask(message).await)
    }

    async fn step(
        &mut self,
        stage: usize,
        step: StepId,
        plan: StepPlan,
    ) -> Result<Timed<()>, LinkError> {
        let message = StepBody { client: self.client, step, plan };
        self.settle(stage, self.stages[stage].peers.step.ask(message).await)
    }

    async fn evaluate(
        &mut self,
        stage: usize,
        hidden: HiddenStates,
    ) -> Result<Timed<HiddenStates>, LinkError> {
        let message = EvaluateBody { client: self.client, hidden };
        self.settle(stage, self.stages[stage].peers.evaluate.ask(message).await)
    }

    async fn decode(
        &mut self,
        stage: usize,
        turn: DecodeTurn,
        hidden: HiddenStates,
    ) -> Result<Option<Timed<HiddenStates>>, LinkError> {
        let message = DecodeBody { client: self.client, turn, hidden };
        self.settle(stage, self.stages[stage].peers.decode.ask(message).await)
    }

    fn progress(&mut self, step: StepId, of: u64) {
        if let Some(Heartbeat { passes_done, passes, told, .. }) = &mut self.heartbeat {
            *told = (*passes_done * of + step.step + 1, *passes * of);
        }
        self.working();
    }

    fn working(&mut self) {
        let Some(Heartbeat { attempt, supervisor, told: (done, of), .. }) = &self.heartbeat else {
            return;
        };
        let message = StepDone { attempt: *attempt, client: self.client, done: *done, of: *of };
        if !supervisor.tell(message) {
            tracing::debug!(client = %self.client, done, "heartbeat lost: mailbox full");
        }
    }
}
