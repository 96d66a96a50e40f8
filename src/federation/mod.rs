//! What makes a federation of clients: who learns from whom, how fast, and what is let in.
//!
//! Everything here is a plain function of values; no actor, clock or file is known. Within a round
//! the order is [`screening`], [`heating`], [`similarity`], [`mixing`] (method.md section 2).

pub mod cohort;
pub mod collection;
pub mod heating;
pub mod matrix;
pub mod member;
pub mod mixing;
pub mod round;
pub mod screening;
pub mod shared;
pub mod similarity;
pub mod track;
