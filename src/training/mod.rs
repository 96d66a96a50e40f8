//! What a client does in a round: batches, the optimiser, and the parts it trains.

mod examples;
mod item_table;
mod local_round;
mod optimizer;
mod part;
mod prompt_examples;
mod text_examples;

pub use examples::{Examples, HistoryExamples, RandomTokens};
pub use item_table::{ItemTable, encode_table};
pub use local_round::{BodyLink, LocalWork, Timed, local_round};
pub use optimizer::{AdamW, Moments, clip_scale, learning_rate};
pub use part::TrainablePart;
pub use prompt_examples::{LabelledText, PromptExamples, causal_batch};
pub use text_examples::TextExamples;
