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
//! [`messages`]; the only way to send one is a [`peer::Peer`].

pub mod aggregator;
pub mod bench;
pub mod cli;
pub mod client;
pub mod cuda;
pub mod folder;
pub mod journal;
pub mod memory;
pub mod messages;
pub mod peer;
pub mod recovery;
pub mod registry;
pub mod shard;
pub mod supervisor;
pub mod system;
