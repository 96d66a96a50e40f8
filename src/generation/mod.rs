//! Writes text with a causal language model: which tokens follow, not how their probabilities come about.

mod beam;
mod candidates;

pub use beam::{BeamSearch, Hypothesis, Step};
