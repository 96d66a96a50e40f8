//! fellrec: federated, split fine-tuning of language models for recommendation, as plain functions
//! and structs. The actors that run it, and the command line, are the crate `fellrec-actors`.
//!
//! # The method in 20 lines
//!
//! ```text
//! theta[c] = the same tensors for every client c, drawn from the run's seed
//! for round t = 0, 1, ...:
//!     for every client c, side by side:                              training::local_round
//!         for every batch of its private histories:
//!             h_a = front(batch)                 on the client       split::ClientModel
//!             h_b = body(h_a)                    on a server shard   split::BodySession
//!             L, dh_b = back(h_b, labels)        on the client
//!             dh_a = body backward(dh_b)         on the shard
//!             front backward(dh_a); AdamW on front, body and back    training::AdamW
//!         L[c] = mean loss of its labels
//!     leave out updates that are not finite or far too large         federation::screening
//!     x[c] = (t + 1) / (beta L[c] / median L)       for tau = 1      federation::heating
//!     w[c] = 1 if x[c] >= 1, else tanh(alpha x[c] / (1 - x[c]))
//!     s[c,i] = (cos(update[c], update[i]) + 1) / 2                   federation::similarity
//!     a[c,c] = 1;  a[c,i] = w[c] s[c,i]^gamma;  n = rows of a / sum  federation::mixing
//!     theta[c] += sum over i != c of n[c,i] (theta[i] - theta[c])    from one snapshot
//!     commit; rank every client's validation users; keep its best    checkpoint, ranking
//! ```
//!
//! These are the defaults; the published forms are other values of the same keys. The equations,
//! each marked with its source, are in `docs/method.md`, which comments in the code cite by section.
//!
//! # Modules
//!
//! Imports stay within a column or go to the left, with one exception: [`training`] reports in
//! [`federation::round`]'s type.
//!
//! | base | model and data | a client's work | the federation | a run |
//! |---|---|---|---|---|
//! | [`told`], [`ids`], [`seed`], [`config`] | [`data`], [`model`] | [`split`], [`training`], [`generation`], [`ranking`], [`pretrain`], [`cost`] | [`federation`], [`checkpoint`] | [`blueprint`], [`history`], [`export`], [`report`], [`study`] |
//!
//! # Reading order
//!
//! 1. `configs/default.toml`: every key with its meaning; [`config`] makes it typed and checks it.
//! 2. [`federation::heating`], [`federation::similarity`], [`federation::mixing`]: the method proper.
//! 3. [`federation::round`]: the state machine of a round, [`federation::member`] and
//!    [`federation::collection`]: what members and the aggregator do in it.
//! 4. [`model::cut`] and [`model::slice`], then [`split`]: who holds what, and how a step crosses the cut.
//! 5. [`training::local_round()`]: one client's round from end to end.
//! 6. `docs/protocol.md` and the actors.

pub mod blueprint;
pub mod checkpoint;
pub mod config;
pub mod cost;
pub mod data;
pub mod export;
pub mod federation;
pub mod generation;
pub mod history;
pub mod ids;
pub mod model;
pub mod pretrain;
pub mod ranking;
pub mod report;
pub mod seed;
pub mod split;
pub mod study;
pub mod told;
pub mod training;
