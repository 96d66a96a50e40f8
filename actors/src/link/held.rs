//! What an inbox holds: calls on their way in, at work, and answered but not fetched.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::debug;

use super::caller::Limits;
use super::envelope::{AnswerHead, CallId};
use super::inbox::Refusals;
use crate::registry::MemberName;

/// Least bytes of a chunk that is not the last: more chunks would cost more to hold than they carry.
const LEAST_CHUNK: u64 = 16 << 10;
/// Counted for every call besides its bytes, so that empty ones do not pile up either. Unit: bytes.
const OVERHEAD: u64 = 1 << 10;
/// Earlier lives of a member whose messages are known to be late.
const PAST_LIVES: usize = 64;

/// Calls, and who was refused.
#[derive(Default)]
pub(super) struct Held {
    pub(super) calls: BTreeMap<(MemberName, CallId), Call>,
    pub(super) refusals: Refusals,
    lives: BTreeMap<MemberName, Lives>,
}

/// What of a member's calls is over, so that a message that comes late or again is not carried out.
#[derive(Default)]
struct Lives {
    current: Option<u64>,
    past: VecDeque<u64>,
    /// Calls of the current life below it are over.
    oldest: u64,
}

impl Lives {
    /// Whether a call is neither over nor of a life that is.
    fn enter(&mut self, call: CallId, oldest: u64) -> bool {
        if self.past.contains(&call.life) {
            return false;
        }
        if self.current != Some(call.life) {
            self.past.extend(self.current.replace(call.life));
            if self.past.len() > PAST_LIVES {
                self.past.pop_front();
            }
            self.oldest = 0;
        }
        if call.number < self.oldest {
            return false;
        }
        self.oldest = self.oldest.max(oldest);
        true
    }
}

/// A call and how far along it is.
pub(super) struct Call {
    pub(super) touched: Instant,
    pub(super) state: State,
}

pub(super) enum State {
    Assembling(Assembly),
    Working { done: watch::Receiver<bool> },
    Done { answer: Bytes },
    Refused { reason: String },
}

impl Call {
    pub(super) fn new(state: State) -> Self {
        Self { touched: Instant::now(), state }
    }

    /// Whether it has no answer yet.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Assembling(_) | State::Working { .. })
    }

    /// Bytes held for it; a message that is being put together counts with all of them from its first
    /// chunk on.
    pub(super) fn bytes(&self) -> u64 {
        OVERHEAD
            + match &self.state {
                State::Assembling(assembly) => assembly.total,
                State::Done { answer } => answer.len() as u64,
                State::Working { .. } | State::Refused { .. } => 0,
            }
    }
}

/// A message that is coming in chunks, in any order and some of them twice.
pub(super) struct Assembly {
    name: String,
    total: u64,
    /// What is whole from the start on: copied while the rest is under way.
    whole: BytesMut,
    /// Chunks in `whole`.
    next: usize,
    /// Those that came early.
    ahead: Vec<Option<Bytes>>,
    /// Bytes of all that came.
    got: u64,
}

impl Assembly {
    fn new(name: &str, of: u32, total: u64) -> Self {
        let (whole, ahead) = (BytesMut::with_capacity(total as usize), vec![None; of as usize]);
        Self { name: name.to_owned(), total, whole, next: 0, ahead, got: 0 }
    }

    /// Takes a chunk in; the message when it is the last that was missing.
    fn add(&mut self, index: u32, body: Bytes) -> Result<Option<Bytes>, String> {
        let index = index as usize;
        if index >= self.next && self.ahead[index].is_none() {
            self.got += body.len() as u64;
            self.ahead[index] = Some(body);
        }
        if self.got > self.total {
            return Err(format!("{} bytes in chunks of a message of {}", self.got, self.total));
        }
        while let Some(body) = self.ahead.get_mut(self.next).and_then(Option::take) {
            self.whole.extend_from_slice(&body);
            self.next += 1;
        }
        let complete = self.next == self.ahead.len();
        Ok(complete.then(|| std::mem::take(&mut self.whole).freeze()))
    }
}

/// A chunk is part of a message that may be received, and not one of millions.
pub(super) fn check_chunk(
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
    pub(super) fn add(
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

    pub(super) fn piece(
        &mut self,
        key: (MemberName, CallId),
        index: u32,
        size: usize,
    ) -> (AnswerHead, Bytes) {
        let Some(Call { touched, state: State::Done { answer } }) = self.calls.get_mut(&key) else {
            return (AnswerHead::Unknown, Bytes::new());
        };
        *touched = Instant::now();
        let start = (index as usize).saturating_mul(size).min(answer.len());
        (AnswerHead::Piece, answer.slice(start..answer.len().min(start + size)))
    }

    /// Whether a request belongs to a call that is not over. Drops what its caller is through with, what an
    /// earlier life of it left, and what nobody asked for during several leases.
    pub(super) fn enter(
        &mut self,
        from: MemberName,
        newest: CallId,
        oldest: u64,
        lease: Duration,
    ) -> bool {
        if !self.lives.entry(from).or_default().enter(newest, oldest) {
            debug!(%from, ?newest, "late: the call is over");
            return false;
        }
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
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(life: u64, number: u64) -> CallId {
        CallId { life, number }
    }

    #[test]
    fn chunks_may_come_in_any_order_and_twice() {
        let chunks: Vec<Bytes> = [vec![1; 4], vec![2; 4], vec![3; 2]].map(Bytes::from).to_vec();
        let whole: Vec<u8> = chunks.concat();
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [1, 0, 2]] {
            let mut assembly = Assembly::new("m", 3, 10);
            for (position, index) in order.into_iter().enumerate() {
                let add = |assembly: &mut Assembly| {
                    assembly.add(index as u32, chunks[index].clone()).expect("it fits")
                };
                let complete = add(&mut assembly);
                assert_eq!(complete.is_some(), position == 2, "{order:?}");
                match complete {
                    Some(message) => assert_eq!(message, whole, "{order:?}"),
                    None => assert!(add(&mut assembly).is_none(), "once more changes nothing"),
                }
            }
        }
    }

    #[test]
    fn no_more_is_held_than_was_promised() {
        let mut assembly = Assembly::new("m", 3, 10);
        // The first is missing: nothing can be put together yet.
        assert!(assembly.add(1, Bytes::from(vec![0; 8])).is_ok());
        assert!(assembly.add(2, Bytes::from(vec![0; 8])).is_err());
    }

    #[test]
    fn what_is_over_stays_over() {
        let mut lives = Lives::default();
        assert!(lives.enter(call(7, 0), 0) && lives.enter(call(7, 1), 0));
        assert!(lives.enter(call(7, 5), 4), "calls below 4 are over");
        assert!(!lives.enter(call(7, 3), 0) && lives.enter(call(7, 4), 0));
        assert!(lives.enter(call(8, 0), 0), "another life");
        assert!(!lives.enter(call(7, 6), 0), "and the one before is over");
        assert!(lives.enter(call(8, 0), 0));
    }
}
