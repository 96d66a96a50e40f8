//! How good recommendations are, for whom, and against what (method.md 7).
//!
//! Rankings are over the full catalogue with the user's known history masked and ties broken by
//! item id. Grounding of generated titles is another module's work: here scores are given.

mod balance;
mod evaluate;
mod inputs;
mod metrics;
mod popularity;
mod ranks;
mod sampled;
mod user_ranks;

pub use balance::{Balance, BalanceError, ClientRatios, ClientValue};
pub use evaluate::{RankingPlan, RankingSums, rank_users};
pub use inputs::HistoryInputs;
pub use metrics::{MetricSums, Metrics};
pub use popularity::Popularity;
pub use ranks::ranks;
pub use sampled::{SampledProtocol, sampled_ranks};
pub use user_ranks::{UserRanks, UserRanksError};
