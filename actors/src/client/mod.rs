//! Holds one client: its data, its front and back, and at most one job at a time.
//!
//! A job (a local round, an evaluation) is a task of its own that owns the client's `Desk`; the
//! actor answers control messages meanwhile.

mod desk;
mod link;
mod rank;
mod ranks;
mod tables;
mod train;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix::{
    Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, ResponseActFuture, WrapFuture,
};
use fellrec::federation::member::MemberError;
use fellrec::federation::round::Attempt;
use fellrec::history::TestResult;
use fellrec::ids::ClientId;
use fellrec::model::slice::Digest;
use fellrec::ranking::Metrics;
use fellrec::told::chain;
use tokio::sync::oneshot;
use tracing::{Instrument, info, info_span, warn};

pub use desk::{ClientError, ClientSeat, SupervisorPeers};
pub use ranks::RanksError;

use crate::messages::{
    AbandonRound, CommitRound, Crash, EvaluateRound, FinishedRound, LocalRoundEnded, OpenRound,
    StageSlices, SubmitAgain, TestModel,
};
use crate::registry::ClientAddress;
use desk::Desk;

/// Actor around one client. Lives on a compute arbiter because torch blocks.
pub struct Client {
    id: ClientId,
    /// Absent while a job owns it.
    desk: Option<Desk>,
    /// Jobs that wait for it, as those of a supervisor that took another one's place.
    waiting: VecDeque<oneshot::Sender<Desk>>,
    /// Newest attempt that was opened here.
    newest: Option<Attempt>,
    /// Attempt that a job trains, with the flag that ends it.
    training: Option<(Attempt, Arc<AtomicBool>)>,
    /// Round to open when the job of an older attempt has ended.
    next: Option<OpenRound>,
}

impl Client {
    /// An actor at rest: nothing is loaded before a round asks for it.
    pub fn new(seat: ClientSeat) -> Self {
        let (id, desk) = (seat.id, Some(Desk::new(seat)));
        Self { id, desk, waiting: VecDeque::new(), newest: None, training: None, next: None }
    }

    /// Starts the job that trains a local round.
    fn start_round(&mut self, message: OpenRound, ctx: &mut Context<Self>) {
        let OpenRound { attempt, base } = message;
        let desk = self.borrow_desk();
        let cancel = Arc::new(AtomicBool::new(false));
        self.training = Some((attempt, Arc::clone(&cancel)));
        info!(client = %self.id, round = %attempt.round, attempt = attempt.attempt, "round opened");
        // The span follows the round through every step; shards name their half of a step by the same
        // client, round and number, which every message carries.
        let span = info_span!(
            "local_round", client = %self.id, round = %attempt.round, attempt = attempt.attempt
        );
        let job = async move {
            let mut desk = desk.await?;
            let outcome = desk.train(attempt, base, cancel).await;
            Some((desk, outcome))
        };
        let job = job.instrument(span);
        let ended = job.into_actor(self).map(move |ended, client, ctx| {
            if let Some((desk, outcome)) = ended {
                client.round_ended(attempt, desk, outcome, ctx);
            }
        });
        ctx.spawn(ended);
    }

    /// The desk, now or when the jobs before are through with it; `None` if the client ends first.
    fn borrow_desk(&mut self) -> impl Future<Output = Option<Desk>> + use<> {
        let (lend, lent) = oneshot::channel();
        match self.desk.take() {
            // Nobody else holds the other end.
            Some(desk) => drop(lend.send(desk)),
            None => self.waiting.push_back(lend),
        }
        async move { lent.await.ok() }
    }

    fn take_back(&mut self, mut desk: Desk) {
        while let Some(next) = self.waiting.pop_front() {
            match next.send(desk) {
                Ok(()) => return,
                Err(back) => desk = back,
            }
        }
        self.desk = Some(desk);
    }

    /// Takes the desk back first, so that a commit finds it, and then tells the supervisor.
    fn round_ended(
        &mut self,
        attempt: Attempt,
        desk: Desk,
        outcome: Result<FinishedRound, ClientError>,
        ctx: &mut Context<Self>,
    ) {
        let (client, supervisor) = (self.id, desk.supervisor());
        self.take_back(desk);
        self.training = None;
        let outcome = outcome.map_err(|error| chain(&error));
        let tell = async move {
            let message = LocalRoundEnded { attempt, client, outcome };
            if let Err(error) = supervisor.ended.ask(message).await {
                warn!(%client, %error, "nobody took the end of a local round");
            }
        };
        ctx.spawn(tell.into_actor(self));
        if let Some(next) = self.next.take() {
            self.start_round(next, ctx);
        }
    }

    /// Lends the desk to a job and takes it back with the job's answer.
    fn job<T: 'static>(
        &mut self,
        work: impl AsyncFnOnce(&mut Desk) -> Result<T, ClientError> + 'static,
    ) -> ResponseActFuture<Self, Result<T, ClientError>> {
        let desk = self.borrow_desk();
        let job = async move {
            let mut desk = desk.await?;
            let answer = work(&mut desk).await;
            Some((desk, answer))
        };
        Box::pin(job.into_actor(self).map(|ended, client, _ctx| {
            let (desk, answer) = ended.ok_or(ClientError::Ended)?;
            client.take_back(desk);
            answer
        }))
    }
}

impl ClientAddress for Addr<Client> {}

impl Actor for Client {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Control messages only, at most a handful in a round.
        ctx.set_mailbox_capacity(16);
    }
}

impl Handler<OpenRound> for Client {
    type Result = Result<(), ClientError>;

    fn handle(&mut self, message: OpenRound, ctx: &mut Self::Context) -> Self::Result {
        if let Some(newest) = self.newest
            && message.attempt < newest
        {
            return Err(ClientError::Stale { got: message.attempt, newest });
        }
        self.newest = Some(message.attempt);
        match &self.training {
            Some((attempt, _)) if *attempt == message.attempt => {}
            Some((_, cancel)) => {
                cancel.store(true, Ordering::Relaxed);
                self.next = Some(message);
            }
            None => self.start_round(message, ctx),
        }
        Ok(())
    }
}

impl Handler<AbandonRound> for Client {
    type Result = ();

    fn handle(&mut self, message: AbandonRound, _ctx: &mut Self::Context) {
        if let Some((attempt, cancel)) = &self.training
            && *attempt == message.attempt
        {
            cancel.store(true, Ordering::Relaxed);
        }
        if let Some(desk) = &mut self.desk {
            desk.abandon(message.attempt);
        }
    }
}

impl Handler<SubmitAgain> for Client {
    type Result = ResponseActFuture<Self, Result<(), ClientError>>;

    fn handle(&mut self, message: SubmitAgain, _ctx: &mut Self::Context) -> Self::Result {
        self.job(async move |desk: &mut Desk| desk.submit(message.attempt).await.map(|_| ()))
    }
}

impl Handler<StageSlices> for Client {
    type Result = Result<Digest, MemberError>;

    fn handle(&mut self, message: StageSlices, _ctx: &mut Self::Context) -> Self::Result {
        let StageSlices { attempt, slices } = message;
        let desk = self.desk.as_ref().ok_or(MemberError::NotTrained { got: attempt })?;
        desk.stage(attempt, slices)
    }
}

impl Handler<CommitRound> for Client {
    type Result = Result<(), MemberError>;

    fn handle(&mut self, message: CommitRound, _ctx: &mut Self::Context) -> Self::Result {
        // While a job runs there is nothing staged; its states are retained by the next commit.
        self.desk.as_mut().map_or(Ok(()), |desk| desk.commit(&message.retain))
    }
}

impl Handler<EvaluateRound> for Client {
    type Result = ResponseActFuture<Self, Result<Option<Metrics>, ClientError>>;

    fn handle(&mut self, message: EvaluateRound, _ctx: &mut Self::Context) -> Self::Result {
        self.job(async move |desk: &mut Desk| desk.validate(message.state).await)
    }
}

impl Handler<TestModel> for Client {
    type Result = ResponseActFuture<Self, Result<Option<TestResult>, ClientError>>;

    fn handle(&mut self, message: TestModel, _ctx: &mut Self::Context) -> Self::Result {
        self.job(async move |desk: &mut Desk| desk.test(message.best).await)
    }
}

impl Handler<Crash> for Client {
    type Result = ();

    fn handle(&mut self, _message: Crash, _ctx: &mut Self::Context) {
        panic!("{} was told to crash", self.id);
    }
}
