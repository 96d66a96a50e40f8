//! The one way to ask another actor: a deadline on the answer and a bound on what is in flight.
//!
//! actix gives neither: `send().await` takes a slot in a full mailbox all the same, and its own
//! timeout may never be polled while the mailbox is full (protocol.md 3).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler, Message, Recipient};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::Semaphore;

use crate::registry::MemberName;

/// Why no answer came.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum AskError {
    /// The actor has ended, or ended before it answered.
    #[error("{member} has ended")]
    Closed {
        /// Who was asked.
        member: MemberName,
    },
    /// The actor did not answer in time.
    #[error("{member} did not answer within {} s", deadline.as_secs_f64())]
    Deadline {
        /// Who was asked.
        member: MemberName,
        /// How long we waited.
        deadline: Duration,
    },
}

impl AskError {
    /// Who was asked.
    pub fn member(&self) -> MemberName {
        match self {
            AskError::Closed { member } | AskError::Deadline { member, .. } => *member,
        }
    }
}

/// What has an address for messages `M`: an actor, or what stands for one.
pub trait Takes<M>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    /// That address.
    fn recipient(&self) -> Recipient<M>;
}

impl<A, M> Takes<M> for Addr<A>
where
    A: Actor<Context: ToEnvelope<A, M>> + Handler<M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn recipient(&self) -> Recipient<M> {
        self.clone().recipient()
    }
}

/// Requests that one peer may have unanswered; the rest waits at the sender, outside any mailbox.
const IN_FLIGHT: usize = 64;

/// Address of one kind of message at one member, wherever that member runs.
pub struct Peer<M>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    member: MemberName,
    recipient: Recipient<M>,
    permits: Arc<Semaphore>,
    deadline: Duration,
}

impl<M> Peer<M>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    /// A peer that waits at most `deadline` for each answer, queues included.
    pub fn new(member: MemberName, recipient: Recipient<M>, deadline: Duration) -> Self {
        Self { member, recipient, permits: Arc::new(Semaphore::new(IN_FLIGHT)), deadline }
    }

    /// Who is addressed.
    pub fn member(&self) -> MemberName {
        self.member
    }

    /// Sends `message` and waits for the answer.
    pub async fn ask(&self, message: M) -> Result<M::Result, AskError> {
        let closed = || AskError::Closed { member: self.member };
        let late = |_| AskError::Deadline { member: self.member, deadline: self.deadline };
        let answer = async {
            let _permit = self.permits.acquire().await.map_err(|_| closed())?;
            #[allow(clippy::disallowed_methods, reason = "the one place that may send")]
            self.recipient.send(message).await.map_err(|_| closed())
        };
        tokio::time::timeout(self.deadline, answer).await.map_err(late)?
    }

    /// Sends `message` without waiting; `false` if the mailbox is full or closed.
    pub fn tell(&self, message: M) -> bool {
        self.recipient.try_send(message).is_ok()
    }
}

impl<M> Clone for Peer<M>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn clone(&self) -> Self {
        Self {
            member: self.member,
            recipient: self.recipient.clone(),
            permits: Arc::clone(&self.permits),
            deadline: self.deadline,
        }
    }
}

impl<M> fmt::Debug for Peer<M>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer({})", self.member)
    }
}
