//! The mathematics of a round: every invariant and golden number of method.md sections 3 and 4.

#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers included")]

mod heating;
mod mixing;
mod robust;
mod rules;
mod screening;
mod shared;
mod similarity;
mod support;
