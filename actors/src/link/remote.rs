//! A member of another node, as an actor of this one: encodes what it is sent, calls, decodes the answer.

use std::future::Future;
use std::pin::Pin;

use actix::dev::{MessageResponse, OneshotSender};
use actix::{Actor, ArbiterHandle, AsyncContext, Context, Handler, fut};
use fellrec::split::wire;
use fellrec::told::chain;
use tokio::sync::oneshot;
use tracing::warn;

use super::caller::Caller;
use super::carried::Carried;
use super::subjects::Lane;
use crate::messages::Crash;
use crate::registry::{AggregatorActor, ClientActor, MemberName, ShardActor};

/// Stands in for a member of another node. Lives on the link's thread for control messages; tensors are written,
/// sent and read on the other one.
pub struct Remote {
    member: MemberName,
    caller: Caller,
    bulk: ArbiterHandle,
}

impl Remote {
    /// A stand-in for `member`.
    pub fn new(member: MemberName, caller: Caller, bulk: ArbiterHandle) -> Self {
        Self { member, caller, bulk }
    }
}

impl Actor for Remote {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Senders wait at their permits; heartbeats are small and dropped when it is full.
        ctx.set_mailbox_capacity(256);
    }
}

/// An answer on its way. If none comes the sender is told as if the member had ended: to it that is the
/// same.
pub struct Awaited<T>(Pin<Box<dyn Future<Output = Option<T>>>>);

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

impl ClientActor for Remote {}
impl ShardActor for Remote {}
impl AggregatorActor for Remote {}

impl Handler<Crash> for Remote {
    type Result = ();

    fn handle(&mut self, _message: Crash, _ctx: &mut Self::Context) {
        warn!(member = %self.member, "a member of another node is not made to crash from here");
    }
}

impl<M: Carried> Handler<M> for Remote {
    type Result = Awaited<M::Result>;

    fn handle(&mut self, message: M, _ctx: &mut Self::Context) -> Self::Result {
        let work = carry(self.member, self.caller.clone(), message);
        Awaited(match M::LANE {
            Lane::Control => Box::pin(work),
            Lane::Bulk => {
                let (tell, told) = oneshot::channel();
                self.bulk.spawn(async move {
                    // Whoever asked may have stopped waiting.
                    let _ = tell.send(work.await);
                });
                Box::pin(async move { told.await.ok().flatten() })
            }
        })
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
