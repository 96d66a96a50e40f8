//! A member of another node, as an actor of this one: encodes what it is sent, calls, decodes the answer.

use actix::dev::{MessageResponse, OneshotSender};
use actix::{Actor, Addr, ArbiterHandle, AsyncContext, Context, Handler, Recipient, fut};
use fellrec::split::wire;
use fellrec::told::chain;
use futures::future::LocalBoxFuture;
use tracing::warn;

use super::caller::Caller;
use super::carried::Carried;
use super::subjects::Lane;
use crate::messages::Crash;
use crate::peer::Takes;
use crate::registry::{AggregatorAddress, ClientAddress, MemberName, ShardAddress};

/// Stands in for a member of another node. Lives on one of the link's threads, and computes nothing else.
pub struct Remote {
    member: MemberName,
    caller: Caller,
}

/// Where a member of another node is reached: a stand-in on either of the link's threads. A tensor is written, sent
/// and read on the one that has its connection, and a heartbeat does not wait for it.
#[derive(Clone)]
pub struct StandIn {
    control: Addr<Remote>,
    bulk: Addr<Remote>,
}

impl StandIn {
    /// Stands in for `member`, on these threads.
    pub fn start(
        member: MemberName,
        caller: &Caller,
        control: &ArbiterHandle,
        bulk: &ArbiterHandle,
    ) -> Self {
        let on = |thread| {
            let caller = caller.clone();
            Remote::start_in_arbiter(thread, move |_ctx| Remote { member, caller })
        };
        Self { control: on(control), bulk: on(bulk) }
    }
}

impl<M: Carried> Takes<M> for StandIn {
    fn recipient(&self) -> Recipient<M> {
        match M::LANE {
            Lane::Control => self.control.clone().recipient(),
            Lane::Bulk => self.bulk.clone().recipient(),
        }
    }
}

impl Takes<Crash> for StandIn {
    fn recipient(&self) -> Recipient<Crash> {
        self.control.clone().recipient()
    }
}

impl ClientAddress for StandIn {}
impl ShardAddress for StandIn {}
impl AggregatorAddress for StandIn {}

impl Actor for Remote {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Senders wait at their permits; heartbeats are small and dropped when it is full.
        ctx.set_mailbox_capacity(256);
    }
}

impl Handler<Crash> for Remote {
    type Result = ();

    fn handle(&mut self, _message: Crash, _ctx: &mut Self::Context) {
        warn!(member = %self.member, "a member of another node is not made to crash from here");
    }
}

impl<M: Carried> Handler<M> for Remote {
    type Result = Awaited<M::Result>;

    fn handle(&mut self, message: M, _ctx: &mut Self::Context) -> Self::Result {
        Awaited(Box::pin(carry(self.member, self.caller.clone(), message)))
    }
}

/// An answer on its way. If none comes the sender is told as if the member had ended: to it that is the
/// same.
pub struct Awaited<T>(LocalBoxFuture<'static, Option<T>>);

impl<M: Carried> MessageResponse<Remote, M> for Awaited<M::Result> {
    fn handle(self, ctx: &mut Context<Remote>, tx: Option<OneshotSender<M::Result>>) {
        let tell = async move {
            if let (Some(answer), Some(tx)) = (self.0.await, tx) {
                // Whoever asked may have stopped waiting.
                let _ = tx.send(answer);
            }
        };
        ctx.spawn(fut::wrap_future(tell));
    }
}

/// The answer to a message, if there is one.
async fn carry<M: Carried>(to: MemberName, caller: Caller, message: M) -> Option<M::Result> {
    let silent = |error: &dyn std::error::Error, what| {
        warn!(%to, message = M::NAME, error = chain(error), what);
    };
    let frame = wire::encode(&message).inspect_err(|error| silent(error, "not sent")).ok()?;
    // Tensors need not wait here for their answer.
    drop(message);
    let answer = caller.call(to, M::LANE, M::NAME, frame).await;
    let answer = answer.inspect_err(|error| silent(error, "no answer")).ok()?;
    wire::decode(&answer).inspect_err(|error| silent(error, "no answer")).ok()
}
