//! The actors of fellrec and its command line.
//!
//! ```text
//!             main thread                          compute threads (one per core, libtorch blocks)
//!
//!   cli ─── observer ◄── Supervisor ── OpenRound, CommitRound, EvaluateRound ──► Client ─┐ one per
//!                          ▲   │ ▲ ◄── StepDone, LocalRoundEnded, ReportLost ───────────┘ client
//!                          │   │ │                                         │ ▲
//!              MemberEnded │   │ │         ForwardBody, BackwardBody,      │ │ hidden states,
//!              (any actor) │   │ │         StepBody, CloseLocalRound       ▼ │ gradients
//!                          │   │ │                                    ServerShard   replicas of
//!                          │   │ │                                         │ ▲      each stage
//!                          │   │ │   SubmitSlice (front, back: client;     │ │ StageBody
//!                          │   │ │                body: shard)             ▼ │
//!                          │   └─┼─── ScreenRound, MixRound ────────► Aggregator ── StageSlices ──► Client
//!                          └─────┴──────────────────────────────────────────┘
//! ```
//!
//! An actor decodes, delegates to the domain crate `fellrec`, encodes. Every message is in
//! [`messages`]; the way to ask another actor is a [`peer::Peer`]. Everything runs in one process.
//!
//! # Reading order
//!
//! 1. [`messages`]: the protocol (`docs/protocol.md` puts it in order).
//! 2. [`shard`], the simplest actor, and [`client`], which drives the steps.
//! 3. [`aggregator`] and [`supervisor`]: they carry out what `fellrec::federation` decides.
//! 4. [`peer`], [`registry`] and [`recovery`]: asking, finding and replacing an actor.
//! 5. [`system`]: threads, start, resume and stop; [`folder`] and [`journal`]: what stays of a run.
//! 6. [`cli`] and [`mod@bench`]: the users of all this; [`cuda`] and [`memory`]: the machine.
//!
//! What happens when something fails is a table in `docs/architecture.md`, section 4.

pub mod aggregator;
mod as_json;
pub mod bench;
pub mod cli;
pub mod client;
pub mod cuda;
pub mod folder;
pub mod journal;
#[cfg(feature = "nodes")]
pub mod link;
pub mod memory;
pub mod messages;
#[cfg(feature = "nodes")]
pub mod node;
pub mod peer;
#[cfg(feature = "nodes")]
pub mod provision;
pub mod recovery;
pub mod registry;
pub mod shard;
pub mod supervisor;
pub mod system;
