//! One member's line to the others: two connections, its calls, its inbox, and stand-ins for everybody.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::Arbiter;
use async_nats::HeaderMap;
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
use super::envelope::Letter;
use super::inbox::{Deliver, Inbox};
use super::remote::StandIn;
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

/// A member's line. It runs on two threads of its own, one for each connection, so that a heartbeat does not wait
/// for a tensor to be written or read. Neither computes.
pub struct Line {
    member: MemberName,
    dial: Dial,
    control_thread: Arbiter,
    bulk_thread: Arbiter,
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
        let (control_thread, bulk_thread) = (Arbiter::new(), Arbiter::new());
        let (member, subjects) = (dial.member, Subjects::new(run));
        let (broker, patience) = (dial.broker.clone(), nodes.absence());
        let lost = || {
            let cause = "the link's thread ended".to_owned();
            Err(DialError::Away { broker: broker.clone(), patience, cause })
        };
        let dial_on = |thread: &Arbiter, purpose: &'static str| {
            let dial = dial.clone();
            on(thread, move || async move { Connection::dial(&dial, purpose).await })
        };
        let control = dial_on(&control_thread, "control").await.unwrap_or_else(lost)?;
        let bulk = dial_on(&bulk_thread, "bulk").await.unwrap_or_else(lost)?;
        let limits = Limits::new(nodes, bulk.max_payload());
        let (to_control, to_bulk) = (control.clone(), bulk.clone());
        let (seals, own) = (sealer.clone(), subjects.clone());
        let caller = Caller::new(member, own, to_control, to_bulk, limits, seals, life);
        Ok(Self {
            member,
            dial,
            control_thread,
            bulk_thread,
            subjects,
            control,
            bulk,
            limits,
            sealer,
            caller,
            open: Arc::new(AtomicBool::new(true)),
        })
    }

    /// Whether the broker still lets this member in; looks only while the connection is down, and says nothing of
    /// a broker that is down itself.
    ///
    /// # Errors
    /// [`DialError::Refused`].
    pub async fn check_admission(&self) -> Result<(), DialError> {
        if self.control.is_up() {
            return Ok(());
        }
        let once = Dial { patience: Duration::ZERO, ..self.dial.clone() };
        match Connection::dial(&once, "admission").await {
            Err(refused @ DialError::Refused { .. }) => Err(refused),
            _ => Ok(()),
        }
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
    pub fn stand_in(&self, member: MemberName) -> StandIn {
        let (control, bulk) = (self.control_thread.handle(), self.bulk_thread.handle());
        StandIn::start(member, &self.caller, &control, &bulk)
    }

    /// Makes stand-ins for shards that were added to a running federation.
    pub fn introduce(&self) -> Introduce {
        let (control, bulk) = (self.control_thread.handle(), self.bulk_thread.handle());
        let caller = self.caller.clone();
        Box::new(move |registry, shard| {
            let stand_in = StandIn::start(MemberName::Shard(shard), &caller, &control, &bulk);
            registry.enter_shard(shard, 0, &stand_in);
        })
    }

    /// Takes in what others send, from now on; a shard also says that it takes sessions. `deliver` is made for each
    /// thread.
    ///
    /// # Errors
    /// The broker does not let this member hear its own subjects.
    pub async fn serve<D: Deliver + 'static>(
        &self,
        deliver: impl Fn() -> D + Clone + Send + 'static,
    ) -> Result<(), DialError> {
        let lanes = [
            (Lane::Bulk, &self.bulk_thread, &self.bulk),
            (Lane::Control, &self.control_thread, &self.control),
        ];
        for (lane, thread, connection) in lanes {
            let (member, limits, subjects) = (self.member, self.limits, self.subjects.clone());
            let (sealer, connection) = (self.sealer.clone(), connection.clone());
            let (deliver, open) = (deliver.clone(), Arc::clone(&self.open));
            let serving = on(thread, move || async move {
                let inbox = Inbox::new(member, limits, sealer, Rc::new(deliver()));
                for (verb, _) in Verb::ALL.into_iter().filter(|(_, its)| *its == lane) {
                    let heard = connection.subscribe(subjects.all_to(member, verb), None).await?;
                    actix::spawn(inbox.clone().serve(heard, connection.clone()));
                }
                if let (MemberName::Shard(shard), Lane::Control) = (member, lane) {
                    let asked = subjects.all_open(shard.stage);
                    let heard = connection.subscribe(asked, Some(SHARDS)).await?;
                    actix::spawn(offer(shard, heard, connection, open));
                }
                Ok(())
            });
            let subject = self.subjects.all_to(self.member, Verb::Call);
            let cause = "the link's thread ended".to_owned();
            serving.await.unwrap_or(Err(DialError::Subscribe { subject, cause }))?;
        }
        Ok(())
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

    /// Ends the threads.
    pub fn close(&self) {
        self.control_thread.stop();
        self.bulk_thread.stop();
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
        let letter = Letter { headers: HeaderMap::new(), body: answer.into() };
        control.publish(reply.to_string(), letter).await;
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
                let answer = control.request(&subject, None, OPEN_TIMEOUT).await;
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
