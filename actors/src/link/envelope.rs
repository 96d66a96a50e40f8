//! What surrounds a message on its way: who of the sender's calls it is, and how far along.
//!
//! Everything is a request of the caller and an answer to it, so that nothing is sent that nobody waits
//! for (architecture.md 5): a small message is one request; a large one goes up in chunks, each
//! acknowledged, as many at a time as the receiver grants; a long answer is asked for chunk by chunk, and
//! a late one again and again. Every request may be repeated.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use fellrec::split::wire::{self, WireError};
use serde::{Deserialize, Serialize};

/// A call by its sender's life and count. With the sender, from the subject, it is the idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CallId {
    /// Life of the sender: drawn at its start.
    pub life: u64,
    /// From 0 in each life.
    pub number: u64,
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.{}", self.life, self.number)
    }
}

/// Head of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestHead {
    /// Which call.
    pub call: CallId,
    /// All calls of this life below it are over: what is kept of them may go.
    pub oldest: u64,
    /// What of it.
    pub step: Step,
}

/// One request of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// The message, whole.
    Whole {
        /// Name of the message.
        name: String,
    },
    /// A chunk of it. The one that completes it is answered as the whole message is.
    Chunk {
        /// Name of the message.
        name: String,
        /// From 0.
        index: u32,
        /// Chunks of the message.
        of: u32,
        /// Bytes of the message.
        total: u64,
    },
    /// The answer, when it is there.
    Await,
    /// A chunk of the answer.
    Fetch {
        /// From 1: the first came with the word that it is there.
        index: u32,
    },
}

/// Head of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AnswerHead {
    /// The chunk is here, and others are missing.
    Taken {
        /// Chunks that may be under way at once.
        credits: u16,
    },
    /// The message is here and being worked on: ask again.
    Working,
    /// The answer, or its first chunk.
    Done {
        /// Chunks of it.
        of: u32,
        /// Bytes of it.
        total: u64,
    },
    /// A further chunk of the answer.
    Piece,
    /// No such call is known here: this is another life of the receiver, or the answer was dropped.
    Unknown,
    /// No room now: try again.
    Busy {
        /// Which limit.
        limit: String,
    },
    /// Never.
    Refused {
        /// Why.
        reason: String,
    },
}

/// Bytes of the length that precedes a head.
const LENGTH: usize = 2;

/// A head and what follows it, as one payload.
///
/// # Errors
/// The head cannot be written.
pub fn seal<T: Serialize>(head: &T, body: &[u8]) -> Result<Bytes, WireError> {
    let head = wire::encode(head)?;
    let length = u16::try_from(head.len()).map_err(|_| WireError::Encode("head".to_owned()))?;
    let mut payload = BytesMut::with_capacity(LENGTH + head.len() + body.len());
    payload.put_u16_le(length);
    payload.put_slice(&head);
    payload.put_slice(body);
    Ok(payload.freeze())
}

/// A head and what follows it, without a copy.
///
/// # Errors
/// Bytes that no [`seal`] made.
pub fn open<T: for<'a> Deserialize<'a>>(payload: &Bytes) -> Result<(T, Bytes), WireError> {
    let no_frame = || WireError::NoFrame {
        got: payload.len(),
        start: payload[..payload.len().min(4)].to_vec(),
    };
    let (length, rest) = payload.split_at_checked(LENGTH).ok_or_else(no_frame)?;
    let length = usize::from(u16::from_le_bytes([length[0], length[1]]));
    let head = rest.get(..length).ok_or_else(no_frame)?;
    Ok((wire::decode(head)?, payload.slice(LENGTH + length..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_and_nothing_else_does() {
        let head = RequestHead {
            call: CallId { life: 7, number: 1 },
            oldest: 0,
            step: Step::Whole { name: "open-round".to_owned() },
        };
        let sealed = seal(&head, b"body").unwrap();
        let (opened, body) = open::<RequestHead>(&sealed).unwrap();
        assert_eq!((opened, &body[..]), (head, &b"body"[..]));
        for cut in 0..sealed.len() - 4 {
            assert!(open::<RequestHead>(&sealed.slice(..cut)).is_err(), "{cut} bytes");
        }
        assert!(open::<RequestHead>(&Bytes::from_static(b"\xff\xff and so on")).is_err());
    }
}
