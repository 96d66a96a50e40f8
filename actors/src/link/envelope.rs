//! What surrounds a message on its way: who of the sender's calls it is, and how far along.
//!
//! Everything is a request of the caller and an answer to it, so that nothing is sent that nobody waits
//! for (architecture.md 5): a small message is one request; a large one goes up in chunks, each
//! acknowledged, as many at a time as the receiver grants; a long answer is asked for chunk by chunk, and
//! a late one again and again. Every request may be repeated.

use std::fmt;

use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use data_encoding::BASE64;
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

/// Name of the header that a head is in.
const HEAD: &str = "Fell-Head";

/// A message as the broker carries it. The head goes beside the body, so that a chunk of a tensor is sent from where
/// it lies.
#[derive(Clone, Debug)]
pub struct Letter {
    /// The head, as text.
    pub headers: HeaderMap,
    /// What follows it.
    pub body: Bytes,
}

/// A head and its body.
///
/// # Errors
/// The head cannot be written.
pub fn seal<T: Serialize>(head: &T, body: Bytes) -> Result<Letter, WireError> {
    let mut headers = HeaderMap::new();
    headers.insert(HEAD, BASE64.encode(&wire::encode(head)?));
    Ok(Letter { headers, body })
}

/// The head of a message.
///
/// # Errors
/// No head, or one that no [`seal`] wrote.
pub fn open<T: for<'a> Deserialize<'a>>(message: &Message) -> Result<T, WireError> {
    let head = message.headers.as_ref().and_then(|headers| headers.get(HEAD));
    let text = head.map_or("", |head| head.as_str()).as_bytes();
    let start = || text[..text.len().min(4)].to_vec();
    let no_frame = || WireError::NoFrame { got: text.len(), start: start() };
    wire::decode(&BASE64.decode(text).map_err(|_| no_frame())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(headers: Option<HeaderMap>) -> Message {
        let (subject, payload) = ("fell.run.agg.call.client-1".into(), Bytes::new());
        Message {
            subject,
            reply: None,
            payload,
            headers,
            status: None,
            description: None,
            length: 0,
        }
    }

    #[test]
    fn what_is_sealed_opens_and_nothing_else_does() {
        let head = RequestHead {
            call: CallId { life: 7, number: 1 },
            oldest: 0,
            step: Step::Whole { name: "open-round".to_owned() },
        };
        let sealed = seal(&head, Bytes::from_static(b"body")).unwrap();
        let text = sealed.headers.get(HEAD).unwrap().as_str().to_owned();
        assert_eq!(open::<RequestHead>(&message(Some(sealed.headers))).unwrap(), head);
        let with = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(HEAD, text);
            message(Some(headers))
        };
        for cut in 0..text.len() {
            assert!(open::<RequestHead>(&with(&text[..cut])).is_err(), "{cut} letters");
        }
        for strange in ["no head at all", "\u{fc}ber", "////"] {
            assert!(open::<RequestHead>(&with(strange)).is_err(), "{strange}");
        }
        assert!(open::<RequestHead>(&message(None)).is_err());
    }
}
