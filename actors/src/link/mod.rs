//! Messages between nodes, over a NATS broker (architecture.md 5).
//!
//! ```text
//! actor -> Peer -> Remote -> Caller ~~ broker ~~> Inbox -> Inlet -> Peer -> actor
//! ```
//!
//! A [`remote::Remote`] takes the place of a member that runs elsewhere; nobody who asks it can tell. Two
//! connections a node: control messages do not wait behind tensors.

pub mod caller;
pub mod carried;
pub mod connection;
mod ears;
pub mod envelope;
mod held;
pub mod inbox;
pub mod inlet;
pub mod line;
pub mod remote;
pub mod sealing;
pub mod store;
pub mod subjects;
