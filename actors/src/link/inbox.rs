//! The other end of calls: puts messages together, hands each over once, keeps answers until they are
//! fetched. Everything it holds is bounded.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use async_nats::{Message, Subscriber};
use bytes::{Bytes, BytesMut};
use fellrec::told::chain;
use futures::StreamExt;
use futures::future::LocalBoxFuture;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use super::caller::Limits;
use super::connection::Connection;
use super::envelope::{AnswerHead, CallId, RequestHead, Step, open, seal};
use super::sealing::{Envelope, Sealer};
use super::subjects::sender;
use crate::registry::MemberName;

/// Longest time that a request waits for an answer before it is told that work goes on; below the timeout of
/// a request.
const POLL: Duration = Duration::from_secs(1);
/// Least bytes of a chunk that is not the last: more chunks would cost more to hold than they carry.
const LEAST_CHUNK: u64 = 16 << 10;

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

#[derive(Default)]
struct Held {
    calls: BTreeMap<(MemberName, CallId), Call>,
    refusals: Refusals,
}

/// A call and how far along it is.
struct Call {
    touched: Instant,
    state: State,
}

enum State {
    Assembling(Assembly),
    Working { done: watch::Receiver<bool> },
    Done { answer: Bytes },
    Refused { reason: String },
}

/// A message that is coming in chunks, in any order and some of them twice.
struct Assembly {
    name: String,
    total: u64,
    /// What is whole from the start on: copied while the rest is under way.
    whole: BytesMut,
    /// Chunks in `whole`.
    next: usize,
    /// Those that came early.
    ahead: Vec<Option<Bytes>>,
}

impl Assembly {
    fn new(name: &str, of: u32, total: u64) -> Self {
        let whole = BytesMut::with_capacity(total as usize);
        Self { name: name.to_owned(), total, whole, next: 0, ahead: vec![None; of as usize] }
    }

    /// Takes a chunk in; the message when it is the last that was missing.
    fn add(&mut self, index: u32, body: Bytes) -> Result<Option<Bytes>, String> {
        let index = index as usize;
        if index >= self.next {
            self.ahead[index] = Some(body);
        }
        while let Some(body) = self.ahead.get_mut(self.next).and_then(Option::take) {
            if (self.whole.len() + body.len()) as u64 > self.total {
                return Err(format!("more in chunks than the {} bytes of the message", self.total));
            }
            self.whole.extend_from_slice(&body);
            self.next += 1;
        }
        if self.next < self.ahead.len() {
            return Ok(None);
        }
        Ok(Some(std::mem::take(&mut self.whole).freeze()))
    }
}

impl Call {
    fn new(state: State) -> Self {
        Self { touched: Instant::now(), state }
    }

    /// Bytes held for it; a message that is being put together counts with all of them from its first
    /// chunk on.
    fn bytes(&self) -> u64 {
        match &self.state {
            State::Assembling(assembly) => assembly.total,
            State::Done { answer } => answer.len() as u64,
            State::Working { .. } | State::Refused { .. } => 0,
        }
    }
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
        let (head, body) = match open::<RequestHead>(&message.payload) {
            Ok((head, body)) => match self.step(from, head, body).await {
                Ok(answer) => answer,
                Err(reason) => self.refused(from, &message.subject, reason),
            },
            Err(error) => self.refused(from, &message.subject, chain(&error)),
        };
        let Some(reply) = message.reply else { return };
        match seal(&head, &body) {
            Ok(payload) => connection.publish(reply.to_string(), payload).await,
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
        self.held.borrow_mut().drop_finished(from, call, oldest, self.limits.lease);
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
        let of_member = held.calls.keys().filter(|(from, _)| *from == key.0).count();
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
        actix::spawn(async move {
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
        });
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

/// A chunk is part of a message that may be received, and not one of millions.
fn check_chunk(
    index: u32,
    of: u32,
    total: u64,
    body: &[u8],
    limits: &Limits,
) -> Result<(), String> {
    if total > limits.message {
        let limit = limits.message;
        return Err(format!("a message of {total} bytes, nodes.max_message_mib allows {limit}"));
    }
    let most = total.div_ceil(LEAST_CHUNK);
    if index >= of || u64::from(of) > most || body.is_empty() || body.len() as u64 > total {
        let got = body.len();
        return Err(format!("chunk {index} of {of} with {got} bytes of {total}: no such chunk"));
    }
    Ok(())
}

impl Held {
    /// Takes a chunk in; the message when it is the last that was missing.
    fn add(
        &mut self,
        key: (MemberName, CallId),
        name: &str,
        index: u32,
        of: u32,
        total: u64,
        body: Bytes,
    ) -> Result<Option<Bytes>, String> {
        let call = self.calls.entry(key);
        let call =
            call.or_insert_with(|| Call::new(State::Assembling(Assembly::new(name, of, total))));
        call.touched = Instant::now();
        let State::Assembling(assembly) = &mut call.state else { return Ok(None) };
        if (assembly.name.as_str(), assembly.ahead.len(), assembly.total)
            != (name, of as usize, total)
        {
            return Err(format!("chunk {index} of {of} is of another message"));
        }
        let whole = assembly.add(index, body);
        if whole.is_err() {
            self.calls.remove(&key);
        }
        whole
    }

    fn piece(&mut self, key: (MemberName, CallId), index: u32, size: usize) -> (AnswerHead, Bytes) {
        let Some(Call { touched, state: State::Done { answer } }) = self.calls.get_mut(&key) else {
            return (AnswerHead::Unknown, Bytes::new());
        };
        *touched = Instant::now();
        let start = (index as usize).saturating_mul(size).min(answer.len());
        (AnswerHead::Piece, answer.slice(start..answer.len().min(start + size)))
    }

    /// Drops what its caller is through with, what an earlier life of it left, and what nobody asked for
    /// during several leases.
    fn drop_finished(&mut self, from: MemberName, newest: CallId, oldest: u64, lease: Duration) {
        let before = self.calls.len();
        self.calls.retain(|(caller, id), call| {
            if matches!(call.state, State::Working { .. }) {
                return true;
            }
            let over = *caller == from
                && (id.life != newest.life || (id.number < oldest && *id != newest));
            !over && call.touched.elapsed() < 4 * lease
        });
        let dropped = before - self.calls.len();
        if dropped > 0 {
            debug!(%from, dropped, "calls are over");
        }
    }
}
