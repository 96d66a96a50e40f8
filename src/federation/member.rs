//! A member's side of the two-phase commit: what it trained, what it staged, what is current.
//!
//! A client holds a front and a back; a shard holds, per client, the slice of its stage. Between
//! rounds nothing is in memory: states rest in the member's store and are loaded for a round.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tch::Device;
use thiserror::Error;

use super::collection::SubmittedSlice;
use super::round::Attempt;
use crate::checkpoint::{CheckpointError, MemberStore, PartState};
use crate::config::{Config, OptimizerConfig};
use crate::ids::Round;
use crate::model::cut::Place;
use crate::model::layout::Layout;
use crate::model::slice::{Digest, LayoutError, Slice};
use crate::training::{AdamW, TrainablePart};

/// Why a member refused a message of the round protocol.
#[derive(Debug, Error)]
pub enum MemberError {
    /// The message is of an attempt that this member has no trained state of, as after a restart.
    #[error("no trained state of round {} attempt {} is held here", got.round, got.attempt)]
    NotTrained {
        /// Attempt of the message.
        got: Attempt,
    },
    /// A mixed slice does not fit the model.
    #[error("the mixed slice of {place:?} does not fit the model")]
    Layout {
        /// Place of the slice.
        place: Place,
        /// First difference.
        source: LayoutError,
    },
    /// The store could not be written or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// A state that a member is to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Round whose commit produced it.
    pub base: Round,
    /// What for.
    pub purpose: Purpose,
}

/// What a state is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A local round: the proximal term is in force.
    Training,
    /// An evaluation: nothing of it is kept.
    Ranking,
}

/// One member's states over the rounds.
#[derive(Debug)]
pub struct Member {
    store: MemberStore,
    layout: Arc<Layout>,
    run_seed: u64,
    optimizer: OptimizerConfig,
    proximal_mu: f64,
    trained: Option<Trained>,
}

/// What a local round left: kept until the commit, because the aggregator may ask again.
#[derive(Debug)]
struct Trained {
    attempt: Attempt,
    base: Round,
    parts: BTreeMap<Place, PartState>,
}

impl Member {
    /// A member whose states rest in `store`.
    pub fn new(store: MemberStore, layout: Arc<Layout>, config: &Config) -> Self {
        Self {
            store,
            layout,
            run_seed: config.run.seed,
            optimizer: config.optimizer.clone(),
            proximal_mu: config.training.proximal_mu,
            trained: None,
        }
    }

    /// The state of `round` at a place; round 0 is the start that all clients share.
    pub fn load(&self, place: Place, round: Round) -> Result<PartState, CheckpointError> {
        if round == Round(0) {
            let initial = self.layout.initial_slice(place, self.run_seed);
            return Ok(PartState::fresh(initial, &self.optimizer));
        }
        self.store.load(round, &part_name(place), &self.layout.expected_slice(place))
    }

    /// The state at a place as leaves on a device; for training with the proximal term around it.
    pub fn open(
        &self,
        place: Place,
        opening: Opening,
        device: Device,
    ) -> Result<TrainablePart, CheckpointError> {
        let state = self.load(place, opening.base)?;
        let start = state.slice.share();
        let part = state.into_trainable(device);
        Ok(match opening.purpose {
            Purpose::Training => part.anchored(&start, self.proximal_mu),
            Purpose::Ranking => part,
        })
    }

    /// Takes in what a local round from the state of `base` trained.
    pub fn finish(
        &mut self,
        attempt: Attempt,
        base: Round,
        parts: impl IntoIterator<Item = (Place, TrainablePart)>,
    ) {
        let rest = |(place, part): (Place, TrainablePart)| {
            let (slice, optimizer) = part.into_parts();
            (place, PartState { slice, optimizer })
        };
        self.trained =
            Some(Trained { attempt, base, parts: parts.into_iter().map(rest).collect() });
    }

    /// What goes to the aggregator: handles on tensors that nobody writes to any more, and the
    /// tensors the round started from.
    pub fn submission(
        &self,
        attempt: Attempt,
        place: Place,
    ) -> Result<SubmittedSlice, MemberError> {
        let trained = self.trained(attempt)?;
        let part = trained.parts.get(&place).ok_or(MemberError::NotTrained { got: attempt })?;
        let start = self.load(place, trained.base)?.slice;
        Ok(SubmittedSlice { trained: part.slice.share(), start })
    }

    /// Writes the mixed slices, with the moments of the local round, as the state of the next
    /// round. Returns the receipt. Current stays what it was until the commit.
    pub fn stage(
        &self,
        attempt: Attempt,
        mixed: BTreeMap<Place, Slice>,
    ) -> Result<Digest, MemberError> {
        let trained = self.trained(attempt)?;
        let mut staged = Vec::with_capacity(mixed.len());
        for (place, slice) in mixed {
            let part = trained.parts.get(&place).ok_or(MemberError::NotTrained { got: attempt })?;
            slice
                .same_layout(&part.slice)
                .map_err(|source| MemberError::Layout { place, source })?;
            let optimizer = if self.optimizer.reset_each_round {
                AdamW::new(&self.optimizer)
            } else {
                part.optimizer.share()
            };
            staged.push((part_name(place), PartState { slice, optimizer }));
        }
        let parts: Vec<(&str, &PartState)> =
            staged.iter().map(|(name, part)| (name.as_str(), part)).collect();
        Ok(self.store.stage(attempt.round.next(), &parts)?)
    }

    /// A round is committed: what was staged is current, and of the states up to the newest of
    /// `retain` only those named stay on disk. Repeated, or late by a round, it changes nothing.
    pub fn commit(&mut self, retain: &BTreeSet<Round>) -> Result<(), MemberError> {
        let newest = retain.last().copied().unwrap_or_default();
        self.trained.take_if(|trained| trained.attempt.round < newest);
        Ok(self.store.retain(retain)?)
    }

    /// Drops what was trained; the state of the last commit stays current.
    pub fn abandon(&mut self) {
        self.trained = None;
    }

    fn trained(&self, attempt: Attempt) -> Result<&Trained, MemberError> {
        self.trained
            .as_ref()
            .filter(|trained| trained.attempt == attempt)
            .ok_or(MemberError::NotTrained { got: attempt })
    }
}

/// File stem of a place's tensors.
fn part_name(place: Place) -> String {
    match place {
        Place::Front => "front".to_owned(),
        Place::Stage(_) => "body".to_owned(),
        Place::Back => "back".to_owned(),
    }
}
