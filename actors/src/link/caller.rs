//! Calls: a message out, its answer back, over a broker that may lose either.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fellrec::split::wire::WireError;
use futures::stream::{self, StreamExt, TryStreamExt};
use thiserror::Error;
use tokio::time::{Instant, sleep};
use tracing::{Instrument, debug, debug_span};

use super::connection::{Connection, REQUEST_TIMEOUT, RequestFault};
use super::envelope::{AnswerHead, CallId, RequestHead, Step, open, seal};
use super::sealing::{Envelope, SealError, Sealer};
use super::subjects::{Lane, Subjects, Verb};
use crate::registry::MemberName;

/// Pauses before a request is repeated.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long nobody may listen before the receiver counts as gone.
const NOBODY_FOR: Duration = Duration::from_secs(1);
/// A broker that was restarted hears of its subscribers again within that.
const SETTLED: Duration = Duration::from_secs(10);
/// Chunks of an answer that are asked for at once.
const FETCHED_AT_ONCE: usize = 4;

/// What calls may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest message. Unit: bytes.
    pub message: u64,
    /// Largest piece of one. Unit: bytes.
    pub chunk: usize,
    /// Chunks of one message that may be under way.
    pub credits: u16,
    /// Bytes that a receiver holds for all its callers together.
    pub held: u64,
    /// Calls of one member that a receiver works on at once.
    pub calls: usize,
    /// How long the other end may be silent.
    pub lease: Duration,
    /// How long the supervisor may be: nobody goes on without it.
    pub absence: Duration,
}

/// Why a call has no answer.
#[derive(Clone, Debug, Error)]
pub enum CallError {
    /// Not sent at all.
    #[error("{name} has {got} bytes, nodes.max_message_mib allows {limit}")]
    TooLarge {
        /// Message.
        name: &'static str,
        /// Its bytes.
        got: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// Silence for as long as the lease.
    #[error("{to} has been silent for {} s: {cause}", after.as_secs_f64())]
    Silent {
        /// Who.
        to: MemberName,
        /// How long.
        after: Duration,
        /// What was seen last.
        cause: String,
    },
    /// The receiver began a new life meanwhile.
    #[error("{to} no longer knows of the call: it was started again")]
    Forgotten {
        /// Who.
        to: MemberName,
    },
    /// The receiver said no.
    #[error("{to} refused {name}: {reason}")]
    Refused {
        /// Who.
        to: MemberName,
        /// Message.
        name: &'static str,
        /// Why.
        reason: String,
    },
    /// The broker said no.
    #[error(transparent)]
    Forbidden(RequestFault),
    /// It cannot be kept from the broker, or its answer was not.
    #[error("{name} and {to}")]
    Seal {
        /// Who.
        to: MemberName,
        /// Message.
        name: &'static str,
        /// Why not.
        source: SealError,
    },
    /// What came is no answer.
    #[error("{to} gave no answer to {name}")]
    Answer {
        /// Who.
        to: MemberName,
        /// Message.
        name: &'static str,
        /// What is wrong with it.
        source: WireError,
    },
}

/// Makes calls for one member.
#[derive(Clone)]
pub struct Caller {
    shared: Arc<Shared>,
}

struct Shared {
    me: MemberName,
    subjects: Subjects,
    control: Connection,
    bulk: Connection,
    limits: Limits,
    sealer: Option<Sealer>,
    life: u64,
    numbers: Mutex<Numbers>,
    /// Chunks that receivers take at once, as they said last.
    grants: Mutex<BTreeMap<MemberName, usize>>,
}

/// Calls that are open, and the number of the next one.
#[derive(Default)]
struct Numbers {
    next: u64,
    open: BTreeSet<u64>,
}

/// A call that is over when this is dropped.
struct OpenCall<'a> {
    shared: &'a Shared,
    to: MemberName,
    name: &'static str,
    lane: Lane,
    id: CallId,
}

impl Caller {
    /// A caller whose calls are of the life `life`, sealed if there is a sealer.
    pub fn new(
        me: MemberName,
        subjects: Subjects,
        control: Connection,
        bulk: Connection,
        limits: Limits,
        sealer: Option<Sealer>,
        life: u64,
    ) -> Self {
        let (numbers, grants) = (Mutex::default(), Mutex::default());
        let shared = Shared { me, subjects, control, bulk, limits, sealer, life, numbers, grants };
        Self { shared: Arc::new(shared) }
    }

    /// Brings `frame` to a member and returns the frame of its answer.
    ///
    /// # Errors
    /// Every [`CallError`]; an answer that says no to what the message asks is none.
    pub async fn call(
        &self,
        to: MemberName,
        lane: Lane,
        name: &'static str,
        frame: Vec<u8>,
    ) -> Result<Bytes, CallError> {
        let call = self.shared.open(to, name, lane);
        // The same words as at the other end: who looks for a call in the logs of both finds it.
        let span = debug_span!("call", from = %self.shared.me, %to, what = name, call = %call.id);
        self.carry(call, frame).instrument(span).await
    }

    async fn carry(&self, mut call: OpenCall<'_>, frame: Vec<u8>) -> Result<Bytes, CallError> {
        let limits = &self.shared.limits;
        let (to, name) = (call.to, call.name);
        debug!(bytes = frame.len(), "calls");
        let frame = call.seal(frame)?;
        let got = frame.len() as u64;
        if got > limits.message {
            return Err(CallError::TooLarge { name, got, limit: limits.message });
        }
        if frame.len() > limits.chunk {
            // Chunks are bulk, whatever they are chunks of, and so is all that follows them.
            call.lane = Lane::Bulk;
        }
        let mut answer = if frame.len() <= limits.chunk {
            call.exchange(Step::Whole { name: name.to_owned() }, frame).await?
        } else {
            match call.put(frame).await? {
                Some(answer) => answer,
                None => call.exchange(Step::Await, Bytes::new()).await?,
            }
        };
        loop {
            match answer {
                (AnswerHead::Done { of, total }, first) => {
                    return call.unseal(call.fetch(of, total, first).await?);
                }
                (AnswerHead::Working | AnswerHead::Taken { .. }, _) => {
                    answer = call.exchange(Step::Await, Bytes::new()).await?;
                }
                (_, _) => return Err(CallError::Forgotten { to }),
            }
        }
    }
}

impl Shared {
    fn open(&self, to: MemberName, name: &'static str, lane: Lane) -> OpenCall<'_> {
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let number = numbers.next;
        numbers.next += 1;
        numbers.open.insert(number);
        OpenCall { shared: self, to, name, lane, id: CallId { life: self.life, number } }
    }

    fn granted(&self, to: MemberName) -> Option<usize> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner).get(&to).copied()
    }

    /// Keeps what a receiver grants, and returns how much of it is used.
    fn grant(&self, to: MemberName, credits: u16) -> usize {
        let at_once = usize::from(credits.clamp(1, self.limits.credits));
        self.grants.lock().unwrap_or_else(PoisonError::into_inner).insert(to, at_once);
        at_once
    }

    fn oldest(&self) -> u64 {
        let numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        numbers.open.first().copied().unwrap_or(numbers.next)
    }
}

impl Drop for OpenCall<'_> {
    fn drop(&mut self) {
        let mut numbers = self.shared.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        numbers.open.remove(&self.id.number);
    }
}

impl OpenCall<'_> {
    fn seal(&self, frame: Vec<u8>) -> Result<Bytes, CallError> {
        let (from, to, call, name) = (self.shared.me, self.to, self.id, self.name);
        let Some(sealer) = &self.shared.sealer else { return Ok(frame.into()) };
        let envelope = Envelope { from, to, call, name, answer: false };
        let sealed = sealer.seal(&envelope, frame);
        sealed.map(Bytes::from).map_err(|source| CallError::Seal { to, name, source })
    }

    fn unseal(&self, answer: Bytes) -> Result<Bytes, CallError> {
        let (from, to, call, name) = (self.to, self.shared.me, self.id, self.name);
        let Some(sealer) = &self.shared.sealer else { return Ok(answer) };
        let envelope = Envelope { from, to, call, name, answer: true };
        sealer.open(&envelope, answer).map_err(|source| CallError::Seal { to: from, name, source })
    }

    /// Sends a large message, chunk by chunk, as many at once as the receiver grants: what it said last, or until
    /// it has said something one. Returns the answer if it came with the word that all is there.
    async fn put(&self, frame: Bytes) -> Result<Option<(AnswerHead, Bytes)>, CallError> {
        let size = self.shared.limits.chunk;
        let of = frame.len().div_ceil(size) as u32;
        let send = async |index: u32| {
            let start = index as usize * size;
            let chunk = frame.slice(start..frame.len().min(start + size));
            let total = frame.len() as u64;
            let step = Step::Chunk { name: self.name.to_owned(), index, of, total };
            self.exchange(step, chunk).await
        };
        let (mut first, mut done) = (0, None);
        let at_once = match self.shared.granted(self.to) {
            Some(granted) => granted,
            None => {
                first = 1;
                match send(0).await? {
                    (AnswerHead::Taken { credits }, _) => self.shared.grant(self.to, credits),
                    answer => return Ok(Some(answer)),
                }
            }
        };
        let mut chunks = stream::iter((first..of).map(send)).buffer_unordered(at_once);
        while let Some(answer) = chunks.try_next().await? {
            match answer {
                (AnswerHead::Taken { credits }, _) => {
                    self.shared.grant(self.to, credits);
                }
                answer => done = Some(answer),
            }
        }
        Ok(done)
    }

    /// Puts the answer together.
    async fn fetch(&self, of: u32, total: u64, first: Bytes) -> Result<Bytes, CallError> {
        let Limits { message: limit, .. } = self.shared.limits;
        if of == 1 {
            return Ok(first);
        }
        if total > limit {
            return Err(CallError::TooLarge { name: self.name, got: total, limit });
        }
        let mut whole = BytesMut::with_capacity(total as usize);
        whole.extend_from_slice(&first);
        let piece =
            async |index: u32| match self.exchange(Step::Fetch { index }, Bytes::new()).await? {
                (AnswerHead::Piece, piece) => Ok(piece),
                _ => Err(CallError::Forgotten { to: self.to }),
            };
        let mut pieces = stream::iter((1..of).map(piece)).buffered(FETCHED_AT_ONCE);
        while let Some(piece) = pieces.try_next().await? {
            if (whole.len() + piece.len()) as u64 > total {
                break;
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    /// Whether a receiver whom nobody hears is gone, and not on its way back to a broker that is new.
    fn is_gone(&self, connection: &Connection) -> bool {
        self.to != MemberName::Supervisor && connection.up_for() > SETTLED
    }

    /// One request, repeated until there is an answer or the lease is over.
    async fn exchange(&self, step: Step, body: Bytes) -> Result<(AnswerHead, Bytes), CallError> {
        let Shared { me, subjects, limits, .. } = self.shared;
        let (to, name) = (self.to, self.name);
        let (verb, connection) = match (&step, self.lane) {
            (Step::Whole { .. }, Lane::Control) => (Verb::Call, &self.shared.control),
            (Step::Await | Step::Fetch { .. }, Lane::Control) => (Verb::Wait, &self.shared.control),
            (Step::Whole { .. }, Lane::Bulk) => (Verb::Step, &self.shared.bulk),
            (Step::Chunk { .. }, _) => (Verb::Put, &self.shared.bulk),
            (Step::Await | Step::Fetch { .. }, Lane::Bulk) => (Verb::Get, &self.shared.bulk),
        };
        let subject = subjects.to(to, verb, *me);
        let damaged = |source| CallError::Answer { to, name, source };
        // Made anew for each try: what is over by then makes room for this call.
        let letter = || {
            let step = step.clone();
            let head = RequestHead { call: self.id, oldest: self.shared.oldest(), step };
            seal(&head, body.clone()).map_err(damaged)
        };
        let (started, mut pause) = (Instant::now(), FIRST_PAUSE);
        loop {
            let lease = match to {
                MemberName::Supervisor => limits.absence,
                _ => limits.lease,
            };
            let (cause, patience) =
                match connection.request(&subject, Some(letter()?), REQUEST_TIMEOUT).await {
                    Ok(message) => match open::<AnswerHead>(&message).map_err(damaged)? {
                        AnswerHead::Busy { limit } => (limit, lease),
                        AnswerHead::Refused { reason } => {
                            return Err(CallError::Refused { to, name, reason });
                        }
                        answer => return Ok((answer, message.payload)),
                    },
                    Err(fault @ RequestFault::NobodyListens) if self.is_gone(connection) => {
                        (fault.to_string(), NOBODY_FOR)
                    }
                    Err(fault) if fault.is_retryable() => (fault.to_string(), lease),
                    Err(fault) => return Err(CallError::Forbidden(fault)),
                };
            let after = started.elapsed();
            if after >= patience {
                return Err(CallError::Silent { to, after, cause });
            }
            debug!(%to, name, cause, "repeating a request");
            sleep(pause).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }
}
