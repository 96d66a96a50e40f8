//! The mathematics of a round: every invariant and golden number of method.md sections 3 and 4.

mod heating;
mod mixing;
mod rules;
mod screening;
mod similarity;
mod support;
