//! One member's line to the others: two connections, its calls, its inbox, and stand-ins for everybody.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::{Actor, Addr, Arbiter};
use bytes::Bytes;
use fellrec::config::NodesConfig;
use fellrec::ids::ShardId;
use fellrec::split::wire;
use fellrec::told::chain;
use futures::StreamExt;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use super::caller::{Caller, Limits};
use super::connection::{Connection, Dial, DialError};
use super::inbox::{Deliver, Inbox};
use super::remote::Remote;
use super::sealing::Sealer;
use super::subjects::{Lane, RunId, SHARDS, Subjects, Verb, sender};
use crate::registry::{FindShard, Introduce, MemberName};

/// Longest wait for a replica to say that it takes sessions: one that is frozen stays in the queue group.
const OPEN_TIMEOUT: Duration = Duration::from_secs(1);
/// Room that a chunk's head takes in a broker's message.
const HEAD_ROOM: usize = 4 << 10;

impl Limits {
    /// The configured ones, as far as the broker lets them through.
    fn new(nodes: &NodesConfig, max_payload: usize) -> Self {
        Self {
            message: nodes.max_message_mib.get() << 20,
            chunk: ((nodes.chunk_kib.get() as usize) << 10).min(max_payload - HEAD_ROOM),
            credits: nodes.credits.get(),
            held: nodes.held_mib.get() << 20,
            calls: nodes.calls.get() as usize,
            lease: nodes.lease(),
            absence: nodes.absence(),
        }
    }
}

/// A member's line. Everything of it runs on one thread of its own, which never computes.
pub struct Line {
    member: MemberName,
    arbiter: Arbiter,
    subjects: Subjects,
    control: Connection,
    bulk: Connection,
    limits: Limits,
    sealer: Option<Sealer>,
    caller: Caller,
    /// Whether a shard takes sessions.
    open: Arc<AtomicBool>,
}

impl Line {
    /// Dials the broker. To be called within an actix system.
    ///
    /// # Errors
    /// There is no connection.
    pub async fn dial(
        dial: Dial,
        run: RunId,
        sealer: Option<Sealer>,
        life: u64,
        nodes: &NodesConfig,
    ) -> Result<Self, DialError> {
        let arbiter = Arbiter::new();
        let (member, subjects) = (dial.member, Subjects::new(run));
        let broker = dial.broker.clone();
        let connections = on(&arbiter, move || async move {
            let control = Connection::dial(&dial, "control").await?;
            let bulk = Connection::dial(&dial, "bulk").await?;
            Ok((control, bulk))
        });
        let lost = DialError::Away {
            broker,
            patience: nodes.absence(),
            cause: "the link's thread ended".to_owned(),
        };
        let (control, bulk) = connections.await.unwrap_or(Err(lost))?;
        let limits = Limits::new(nodes, bulk.max_payload());
        let (to_control, to_bulk) = (control.clone(), bulk.clone());
        let (seals, own) = (sealer.clone(), subjects.clone());
        let caller = Caller::new(member, own, to_control, to_bulk, limits, seals, life);
        Ok(Self {
            member,
            arbiter,
            subjects,
            control,
            bulk,
            limits,
            sealer,
            caller,
            open: Arc::new(AtomicBool::new(true)),
        })
    }

    /// Makes this member's calls.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The connection for control messages.
    pub fn control(&self) -> &Connection {
        &self.control
    }

    /// A stand-in for another member.
    pub fn stand_in(&self, member: MemberName) -> Addr<Remote> {
        let caller = self.caller.clone();
        Remote::start_in_arbiter(&self.arbiter.handle(), move |_ctx| Remote::new(member, caller))
    }

    /// Makes stand-ins for shards that were added to a running federation.
    pub fn introduce(&self) -> Introduce {
        let (arbiter, caller) = (self.arbiter.handle(), self.caller.clone());
        Box::new(move |registry, shard| {
            let (member, caller) = (MemberName::Shard(shard), caller.clone());
            let stand_in =
                Remote::start_in_arbiter(&arbiter, move |_ctx| Remote::new(member, caller));
            registry.enter_shard(shard, 0, &stand_in);
        })
    }

    /// Takes in what others send, from now on; a shard also says that it takes sessions.
    ///
    /// # Errors
    /// The broker does not let this member hear its own subjects.
    pub async fn serve<D: Deliver + 'static>(
        &self,
        deliver: impl FnOnce() -> D + Send + 'static,
    ) -> Result<(), DialError> {
        let (member, limits, subjects) = (self.member, self.limits, self.subjects.clone());
        let (control, bulk, sealer) =
            (self.control.clone(), self.bulk.clone(), self.sealer.clone());
        let open = Arc::clone(&self.open);
        let serving = on(&self.arbiter, move || async move {
            let inbox = Inbox::new(member, limits, sealer, Rc::new(deliver()));
            for (verb, lane) in Verb::ALL {
                let connection = match lane {
                    Lane::Control => &control,
                    Lane::Bulk => &bulk,
                };
                let heard = connection.subscribe(subjects.all_to(member, verb), None).await?;
                actix::spawn(inbox.clone().serve(heard, connection.clone()));
            }
            if let MemberName::Shard(shard) = member {
                let asked = subjects.all_open(shard.stage);
                let heard = control.subscribe(asked, Some(SHARDS)).await?;
                actix::spawn(offer(shard, heard, control, open));
            }
            Ok(())
        });
        let subject = self.subjects.all_to(self.member, Verb::Call);
        let lost = DialError::Subscribe { subject, cause: "the link's thread ended".to_owned() };
        serving.await.unwrap_or(Err(lost))
    }

    /// Finds the replicas that take this member's sessions.
    pub fn finder(&self) -> Arc<dyn FindShard> {
        Arc::new(Finder {
            member: self.member,
            subjects: self.subjects.clone(),
            control: self.control.clone(),
            patience: self.limits.lease,
        })
    }

    /// A shard takes no more sessions.
    pub fn take_no_sessions(&self) {
        self.open.store(false, Ordering::Relaxed);
    }

    /// Ends the thread.
    pub fn close(&self) {
        self.arbiter.stop();
    }
}

/// Runs work on a thread and brings its outcome here; `None` if the thread ended before.
fn on<T, F>(arbiter: &Arbiter, work: impl FnOnce() -> F + Send + 'static) -> Answer<T>
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
{
    let (tell, told) = oneshot::channel();
    arbiter.spawn_fn(move || {
        let work = work();
        actix::spawn(async move {
            // Nobody waits for it any more if this end is gone.
            let _ = tell.send(work.await);
        });
    });
    Box::pin(async move { told.await.ok() })
}

type Answer<T> = Pin<Box<dyn Future<Output = Option<T>>>>;

/// Answers clients that ask for a replica.
async fn offer(
    shard: ShardId,
    mut asked: async_nats::Subscriber,
    control: Connection,
    open: Arc<AtomicBool>,
) {
    while let Some(message) = asked.next().await {
        if !open.load(Ordering::Relaxed) {
            // Dropped with its subject, which another replica hears from then on.
            return;
        }
        let reply = message.reply.as_ref().map(|reply| reply.as_str());
        let from = match sender(&message.subject, reply) {
            Ok(from) => from,
            Err(reason) => {
                warn!(%shard, reason, "refused");
                continue;
            }
        };
        let (Some(reply), Ok(answer)) = (message.reply, wire::encode(&shard)) else { continue };
        debug!(%shard, %from, "takes a session");
        control.publish(reply.to_string(), answer.into()).await;
    }
}

struct Finder {
    member: MemberName,
    subjects: Subjects,
    control: Connection,
    patience: Duration,
}

impl FindShard for Finder {
    fn find(&self, stage: u32) -> Pin<Box<dyn Future<Output = Result<ShardId, String>>>> {
        let (subject, control) = (self.subjects.open(stage, self.member), self.control.clone());
        let (started, patience) = (Instant::now(), self.patience);
        Box::pin(async move {
            loop {
                let answer = control.request(&subject, Bytes::new(), OPEN_TIMEOUT).await;
                let cause = match answer {
                    Ok(message) => match wire::decode::<ShardId>(&message.payload) {
                        Ok(shard) if shard.stage == stage => return Ok(shard),
                        Ok(shard) => format!("{shard} answered for stage {stage}"),
                        Err(error) => chain(&error),
                    },
                    Err(fault) => fault.to_string(),
                };
                if started.elapsed() >= patience {
                    return Err(format!("no replica takes sessions: {cause}"));
                }
                sleep(Duration::from_millis(200)).await;
            }
        })
    }
}
