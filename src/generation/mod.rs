//! Writes text with a causal language model, and embeds text with it.

mod beam;
mod candidates;
mod generate;

pub use beam::{BeamSearch, Hypothesis, Step};
pub use generate::{GenerationPlan, embed, generate};
