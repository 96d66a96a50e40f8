//! The models that a client holds side by side (method.md section 9, Ditto).

use serde::{Deserialize, Serialize};

use crate::config::TrainingConfig;

/// One of a client's models, with tensors and moments of its own at every place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Track {
    /// The one that is submitted and mixed; without Ditto the only one.
    Global,
    /// Ditto's: trained around the global one, never mixed, never sent to the aggregator.
    Personal,
}

impl Track {
    /// The tracks of a run, in the order in which a local round trains them: what is submitted last.
    pub fn all(config: &TrainingConfig) -> &'static [Track] {
        match config.ditto_lambda.get() {
            None => &[Track::Global],
            Some(_) => &[Track::Personal, Track::Global],
        }
    }

    /// The track that is validated, tested, and of which the best state is kept.
    pub fn ranked(config: &TrainingConfig) -> Track {
        Track::all(config)[0]
    }
}
