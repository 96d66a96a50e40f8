//! How good recommendations are, for whom, and against what (method.md 7).
//!
//! Rankings are over the full catalogue with the user's known history masked and ties broken by
//! item id. Titles that a model wrote are grounded in the catalogue first.

mod balance;
mod embedding_cache;
mod evaluate;
mod grounding;
mod inputs;
mod metrics;
mod popularity;
mod ranks;
mod sampled;
mod user_ranks;
mod written;

pub use balance::{Balance, BalanceError, ClientRatios, ClientValue};
pub use embedding_cache::EmbeddingCache;
pub use evaluate::{RankCollector, RankingPlan, RankingSums, rank_users};
pub use grounding::{GammaSearch, PopularityWeights, distance_scores, distances};
pub use inputs::HistoryInputs;
pub use metrics::{MetricSums, Metrics};
pub use popularity::Popularity;
pub use ranks::ranks;
pub use sampled::{SampledProtocol, sampled_ranks};
pub use user_ranks::{UserRanks, UserRanksError};
pub use written::{Grounding, embed_titles, write_titles};
