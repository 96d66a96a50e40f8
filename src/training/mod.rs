//! What a client does in a round: batches, the optimiser, and the parts it trains.

mod examples;
mod optimizer;
mod part;

pub use examples::{Examples, HistoryExamples, RandomTokens};
pub use optimizer::{AdamW, Moments, clip_scale, learning_rate};
pub use part::TrainablePart;
