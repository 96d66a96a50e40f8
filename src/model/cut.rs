//! Where the model is cut: which blocks stand on the client and which on the server (method.md 5).

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::config::SplitConfig;

/// A place that runs part of the model, in the order of the forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Place {
    /// Client: embedding and the first blocks.
    Front,
    /// Server: this range of the body's stages, from 0.
    Stage(usize),
    /// Client: the last blocks, final norm and head.
    Back,
}

/// Block ranges of every place. They tile `0..layers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    layers: i64,
    k_front: i64,
    k_back: i64,
    stages: Vec<Range<i64>>,
}

impl Cut {
    /// The cut of a validated config. A body without blocks has no stage.
    pub fn new(layers: i64, split: &SplitConfig) -> Self {
        let body = split.k_front..layers - split.k_back;
        let stages = match split.stages.as_option() {
            Some(stages) => stages.iter().map(|(start, end)| *start..*end).collect(),
            None if body.is_empty() => Vec::new(),
            None => vec![body],
        };
        Self { layers, k_front: split.k_front, k_back: split.k_back, stages }
    }

    /// Blocks of the body's stages, in order.
    pub fn stages(&self) -> &[Range<i64>] {
        &self.stages
    }

    /// Blocks that stand at `place`.
    pub fn blocks(&self, place: Place) -> Range<i64> {
        match place {
            Place::Front => 0..self.k_front,
            Place::Stage(stage) => self.stages[stage].clone(),
            Place::Back => self.layers - self.k_back..self.layers,
        }
    }

    /// Every place, in the order of the forward pass.
    pub fn places(&self) -> Vec<Place> {
        let stages = (0..self.stages.len()).map(Place::Stage);
        [Place::Front].into_iter().chain(stages).chain([Place::Back]).collect()
    }
}
