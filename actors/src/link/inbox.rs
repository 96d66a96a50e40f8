//! The other end of calls: puts messages together, hands each over once, keeps answers until they are
//! fetched. Everything it holds is bounded.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use async_nats::{Message, Subscriber};
use bytes::Bytes;
use fellrec::told::chain;
use futures::StreamExt;
use futures::future::LocalBoxFuture;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::{Instrument, debug, debug_span, warn};

use super::caller::Limits;
use super::connection::Connection;
use super::envelope::{AnswerHead, CallId, RequestHead, Step, open, seal};
use super::held::{Call, Held, State, check_chunk};
use super::sealing::{Envelope, Sealer};
use super::subjects::sender;
use crate::registry::MemberName;

/// Longest time that a request waits for an answer before it is told that work goes on; below the timeout of
/// a request.
const POLL: Duration = Duration::from_secs(1);

/// Takes messages in: their sender, name and frame; answers with a frame, or says why not.
pub trait Deliver {
    /// Hands a message over.
    fn deliver(
        &self,
        from: MemberName,
        name: String,
        frame: Bytes,
    ) -> LocalBoxFuture<'static, Result<Vec<u8>, String>>;
}

/// What was refused, by sender: unreadable senders count as nobody.
pub type Refusals = BTreeMap<Option<MemberName>, u64>;

/// One member's inbox. Lives on one thread.
#[derive(Clone)]
pub struct Inbox {
    me: MemberName,
    limits: Limits,
    sealer: Option<Sealer>,
    deliver: Rc<dyn Deliver>,
    held: Rc<RefCell<Held>>,
}

impl Inbox {
    /// An inbox that hands over to `deliver`; with a sealer it takes sealed messages only.
    pub fn new(
        me: MemberName,
        limits: Limits,
        sealer: Option<Sealer>,
        deliver: Rc<dyn Deliver>,
    ) -> Self {
        Self { me, limits, sealer, deliver, held: Rc::default() }
    }

    /// What was refused so far.
    pub fn refusals(&self) -> Refusals {
        self.held.borrow().refusals.clone()
    }

    /// Answers what comes in, until the connection is closed. Whatever takes time is a task of its own:
    /// this one only drains.
    pub async fn serve(self, mut subscriber: Subscriber, connection: Connection) {
        while let Some(message) = subscriber.next().await {
            let (inbox, connection) = (self.clone(), connection.clone());
            actix::spawn(async move { inbox.answer(message, &connection).await });
        }
    }

    async fn answer(&self, message: Message, connection: &Connection) {
        let reply = message.reply.as_ref().map(|reply| reply.as_str());
        let from = match sender(&message.subject, reply) {
            Ok(from) => from,
            // Where the answer would go is what is wrong: there is none.
            Err(reason) => return self.refuse(None, &message.subject, &reason),
        };
        let (head, body) = match open::<RequestHead>(&message) {
            Ok(head) => match self.step(from, head, message.payload).await {
                Ok(answer) => answer,
                Err(reason) => self.refused(from, &message.subject, reason),
            },
            Err(error) => self.refused(from, &message.subject, chain(&error)),
        };
        let Some(reply) = message.reply else { return };
        match seal(&head, body) {
            Ok(letter) => connection.publish(reply.to_string(), letter).await,
            Err(error) => warn!(%from, error = chain(&error), "an answer cannot be written"),
        }
    }

    fn refused(&self, from: MemberName, subject: &str, reason: String) -> (AnswerHead, Bytes) {
        self.refuse(Some(from), subject, &reason);
        (AnswerHead::Refused { reason }, Bytes::new())
    }

    fn refuse(&self, from: Option<MemberName>, subject: &str, reason: &str) {
        let name = from.map_or_else(|| "nobody".to_owned(), |from| from.to_string());
        warn!(member = %self.me, from = name, subject, reason, "refused");
        *self.held.borrow_mut().refusals.entry(from).or_default() += 1;
    }

    /// One request; `Err` refuses it for good.
    async fn step(
        &self,
        from: MemberName,
        head: RequestHead,
        body: Bytes,
    ) -> Result<(AnswerHead, Bytes), String> {
        let RequestHead { call, oldest, step } = head;
        let key = (from, call);
        if !self.held.borrow_mut().enter(from, call, oldest, self.limits.lease) {
            return Ok((AnswerHead::Unknown, Bytes::new()));
        }
        match step {
            Step::Whole { name } => {
                if let Some(busy) = self.admit(key, 0) {
                    return Ok((busy, Bytes::new()));
                }
                self.begin(key, name, body);
                Ok(self.outcome(key).await)
            }
            Step::Chunk { name, index, of, total } => {
                check_chunk(index, of, total, &body, &self.limits)?;
                if let Some(busy) = self.admit(key, total) {
                    return Ok((busy, Bytes::new()));
                }
                let whole = self.held.borrow_mut().add(key, &name, index, of, total, body)?;
                let Some(frame) = whole else {
                    return Ok((AnswerHead::Taken { credits: self.limits.credits }, Bytes::new()));
                };
                self.begin(key, name, frame);
                Ok(self.outcome(key).await)
            }
            Step::Await => Ok(self.outcome(key).await),
            Step::Fetch { index } => {
                Ok(self.held.borrow_mut().piece(key, index, self.limits.chunk))
            }
        }
    }

    /// Room for a new call, or which limit there is.
    fn admit(&self, key: (MemberName, CallId), bytes: u64) -> Option<AnswerHead> {
        let held = self.held.borrow();
        if held.calls.contains_key(&key) {
            return None;
        }
        let open = held.calls.iter().filter(|((from, _), call)| *from == key.0 && call.is_open());
        let of_member = open.count();
        let all: u64 = held.calls.values().map(Call::bytes).sum();
        let limit = if of_member >= self.limits.calls {
            format!("{} calls of one member at once (nodes.calls)", self.limits.calls)
        } else if all + bytes > self.limits.held {
            format!("{} bytes held (nodes.held_mib)", self.limits.held)
        } else {
            return None;
        };
        Some(AnswerHead::Busy { limit })
    }

    /// Hands a message over, once however often it comes.
    fn begin(&self, key: (MemberName, CallId), name: String, frame: Bytes) {
        let mut held = self.held.borrow_mut();
        match held.calls.get(&key).map(|call| &call.state) {
            None | Some(State::Assembling(_)) => {}
            Some(_) => return,
        }
        let (finished, done) = watch::channel(false);
        held.calls.insert(key, Call::new(State::Working { done }));
        drop(held);
        let inbox = self.clone();
        let (from, call) = key;
        // The same words as at the caller.
        let span = debug_span!("call", %from, to = %self.me, what = name, %call);
        let work = async move {
            debug!(bytes = frame.len(), "is called");
            let state = match inbox.work(key, &name, frame).await {
                Ok(answer) => State::Done { answer: answer.into() },
                Err(reason) => {
                    inbox.refuse(Some(key.0), &name, &reason);
                    State::Refused { reason }
                }
            };
            if let Some(call) = inbox.held.borrow_mut().calls.get_mut(&key) {
                *call = Call::new(state);
            }
            // Nobody may be waiting just now.
            let _ = finished.send(true);
        };
        actix::spawn(work.instrument(span));
    }

    /// What the receiver says to a message, unsealed and sealed again.
    async fn work(
        &self,
        (from, call): (MemberName, CallId),
        name: &str,
        frame: Bytes,
    ) -> Result<Vec<u8>, String> {
        let Some(sealer) = &self.sealer else {
            return self.deliver.deliver(from, name.to_owned(), frame).await;
        };
        let asked = Envelope { from, to: self.me, call, name, answer: false };
        let frame = sealer.open(&asked, frame).map_err(|error| error.to_string())?;
        let answer = self.deliver.deliver(from, name.to_owned(), frame).await?;
        let answered = Envelope { from: self.me, to: from, answer: true, ..asked };
        sealer.seal(&answered, answer).map_err(|error| error.to_string())
    }

    /// The answer if it is there within the time of one request.
    async fn outcome(&self, key: (MemberName, CallId)) -> (AnswerHead, Bytes) {
        let waiting = match self.held.borrow().calls.get(&key).map(|call| &call.state) {
            Some(State::Working { done }) => Some(done.clone()),
            _ => None,
        };
        if let Some(mut done) = waiting {
            // A sender that is gone without a word counts as done, too.
            let _ = timeout(POLL, done.wait_for(|done| *done)).await;
        }
        let mut held = self.held.borrow_mut();
        let Some(call) = held.calls.get_mut(&key) else {
            return (AnswerHead::Unknown, Bytes::new());
        };
        call.touched = Instant::now();
        match &call.state {
            State::Assembling(_) => (AnswerHead::Unknown, Bytes::new()),
            State::Working { .. } => (AnswerHead::Working, Bytes::new()),
            State::Refused { reason } => {
                (AnswerHead::Refused { reason: reason.clone() }, Bytes::new())
            }
            State::Done { answer } => {
                let of = answer.len().div_ceil(self.limits.chunk).max(1) as u32;
                let first = answer.slice(..answer.len().min(self.limits.chunk));
                (AnswerHead::Done { of, total: answer.len() as u64 }, first)
            }
        }
    }
}
