//! A member's side of the two-phase commit: what it trained, what it staged, what is current.
//!
//! A client holds a front and a back; a shard holds, per client, the slice of its stage. Under
//! Ditto they hold those of two tracks, side by side in one folder a round: one receipt, one
//! commit. Between rounds nothing is in memory: states rest in the member's store and are loaded
//! for a round.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tch::Device;
use thiserror::Error;

use super::collection::SubmittedSlice;
use super::round::{Attempt, Source, StateId};
use super::shared::SharedStore;
use super::track::Track;
use crate::checkpoint::{CheckpointError, MemberStore, PartState};
use crate::config::{Config, OptimizerConfig, Trainable, TrainingConfig};
use crate::ids::Round;
use crate::model::cut::Place;
use crate::model::layout::Layout;
use crate::model::slice::{Digest, LayoutError, Slice};
use crate::model::start::StartingPoint;
use crate::told::chain;
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
    /// Any of these at another node, with its causes.
    #[error("{0}")]
    Told(String),
}

impl Serialize for MemberError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        chain(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for MemberError {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::Told)
    }
}

/// A state that a member is to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// Which of the client's models.
    pub track: Track,
    /// Which of the states on disk.
    pub base: StateId,
    /// What for.
    pub purpose: Purpose,
}

/// What a state is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// A local round: the proximal term is in force.
    Training,
    /// An evaluation: nothing of it is kept.
    Ranking,
    /// Texts are embedded by the base model, adapters off (method.md 6.1): of no state but the start.
    Embedding,
}

/// One member's states over the rounds.
#[derive(Debug)]
pub struct Member {
    store: MemberStore,
    layout: Arc<Layout>,
    start: StartingPoint,
    optimizer: OptimizerConfig,
    shared: SharedStore,
    training: TrainingConfig,
    trained: Option<Trained>,
}

/// What a local round left: kept until the commit, because the aggregator may ask again.
#[derive(Debug)]
struct Trained {
    attempt: Attempt,
    base: StateId,
    parts: BTreeMap<(Track, Place), PartState>,
}

impl Member {
    /// A member whose own states rest in `store`, and the means it may be told to follow in `shared`.
    pub fn new(
        store: MemberStore,
        shared: SharedStore,
        layout: Arc<Layout>,
        start: StartingPoint,
        config: &Config,
    ) -> Self {
        Self {
            store,
            shared,
            layout,
            start,
            optimizer: config.optimizer.clone(),
            training: config.training.clone(),
            trained: None,
        }
    }

    /// A state at a place: its own one or the mean, as `state` says, whatever else is on disk. Round
    /// 0 is the start that all clients and tracks share.
    ///
    /// # Errors
    /// No such state, or one that does not fit the model.
    pub fn load(
        &self,
        track: Track,
        place: Place,
        state: StateId,
    ) -> Result<PartState, CheckpointError> {
        let StateId { round, source } = state;
        if round == Round(0) {
            let initial = self.layout.initial_slice(place, &self.start)?;
            return Ok(PartState::fresh(initial, &self.optimizer));
        }
        let layout = self.layout.expected_slice(place);
        match source {
            Source::Own => self.store.load(round, &part_name(track, place), &layout),
            Source::Shared => self.shared.load(place, round, &layout),
        }
    }

    /// The state at a place as leaves on a device; for training with the proximal term around it.
    pub fn open(
        &self,
        place: Place,
        opening: Opening,
        device: Device,
    ) -> Result<TrainablePart, CheckpointError> {
        let Opening { track, base, purpose } = opening;
        if purpose == Purpose::Embedding && self.layout.mode == Trainable::Lora {
            let nothing = PartState::fresh(Slice::default(), &self.optimizer);
            return Ok(nothing.into_trainable(device));
        }
        let state = self.load(track, place, base)?;
        let strength = match (purpose, track) {
            (Purpose::Ranking | Purpose::Embedding, _) => 0.0,
            (Purpose::Training, Track::Global) => self.training.proximal_mu,
            (Purpose::Training, Track::Personal) => {
                self.training.ditto_lambda.get().unwrap_or_default()
            }
        };
        if strength == 0.0 {
            return Ok(state.into_trainable(device));
        }
        // FedProx and Ditto pull towards one point: the global state at the start of the round.
        let point = match track {
            Track::Global => state.slice.share(),
            Track::Personal => self.load(Track::Global, place, base)?.slice,
        };
        Ok(state.into_trainable(device).anchored(&point, strength))
    }

    /// Takes in what a local round from the state of `base` trained on one track, beside what the
    /// same attempt trained on the other.
    pub fn finish(
        &mut self,
        track: Track,
        attempt: Attempt,
        base: StateId,
        parts: impl IntoIterator<Item = (Place, TrainablePart)>,
    ) {
        let rest = |(place, part): (Place, TrainablePart)| {
            let (slice, optimizer) = part.into_parts();
            ((track, place), PartState { slice, optimizer })
        };
        let same = |trained: &Trained| (trained.attempt, trained.base) == (attempt, base);
        let held = self.trained.take().filter(same);
        let mut trained = held.unwrap_or(Trained { attempt, base, parts: BTreeMap::new() });
        trained.parts.extend(parts.into_iter().map(rest));
        self.trained = Some(trained);
    }

    /// Checks that the attempt's trained state of a track is here.
    ///
    /// # Errors
    /// [`MemberError::NotTrained`].
    pub fn holds(&self, track: Track, attempt: Attempt, place: Place) -> Result<(), MemberError> {
        self.trained(attempt)?.part(track, place).map(|_| ())
    }

    /// What goes to the aggregator: handles on tensors that nobody writes to any more, and the
    /// tensors the round started from. Of the global track only; refused unless every track is here,
    /// since what is mixed is staged together with the others.
    pub fn submission(
        &self,
        attempt: Attempt,
        place: Place,
    ) -> Result<SubmittedSlice, MemberError> {
        for track in Track::all(&self.training) {
            self.holds(*track, attempt, place)?;
        }
        let trained = self.trained(attempt)?;
        let part = trained.part(Track::Global, place)?;
        let start = self.load(Track::Global, place, trained.base)?.slice;
        Ok(SubmittedSlice { trained: part.slice.share(), start })
    }

    /// Writes the mixed slices, with the moments of the local round, as the state of the next
    /// round, and beside them the personal ones as they were trained. Returns the receipt. Current
    /// stays what it was until the commit.
    pub fn stage(
        &self,
        attempt: Attempt,
        mixed: BTreeMap<Place, Slice>,
    ) -> Result<Digest, MemberError> {
        let trained = self.trained(attempt)?;
        let mut staged = Vec::with_capacity(mixed.len());
        for (place, slice) in mixed {
            let part = trained.part(Track::Global, place)?;
            slice
                .same_layout(&part.slice)
                .map_err(|source| MemberError::Layout { place, source })?;
            let optimizer = self.carried_over(&part.optimizer);
            staged.push((part_name(Track::Global, place), PartState { slice, optimizer }));
            if Track::all(&self.training).contains(&Track::Personal) {
                let part = trained.part(Track::Personal, place)?;
                let (slice, optimizer) = (part.slice.share(), self.carried_over(&part.optimizer));
                staged.push((part_name(Track::Personal, place), PartState { slice, optimizer }));
            }
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

    /// Drops what was trained in this attempt or before; the state of the last commit stays current.
    ///
    /// The word may come late, when a later attempt has been trained: that stays.
    pub fn abandon(&mut self, attempt: Attempt) {
        self.trained = self.trained.take().filter(|trained| trained.attempt > attempt);
    }

    /// The optimiser that the next round starts with.
    fn carried_over(&self, optimizer: &AdamW) -> AdamW {
        if self.optimizer.reset_each_round {
            return AdamW::new(&self.optimizer);
        }
        optimizer.share()
    }

    fn trained(&self, attempt: Attempt) -> Result<&Trained, MemberError> {
        self.trained
            .as_ref()
            .filter(|trained| trained.attempt == attempt)
            .ok_or(MemberError::NotTrained { got: attempt })
    }
}

impl Trained {
    fn part(&self, track: Track, place: Place) -> Result<&PartState, MemberError> {
        self.parts.get(&(track, place)).ok_or(MemberError::NotTrained { got: self.attempt })
    }
}

/// File stem of a place's tensors.
fn part_name(track: Track, place: Place) -> String {
    let place = match place {
        Place::Front => "front",
        Place::Stage(_) => "body",
        Place::Back => "back",
    };
    match track {
        Track::Global => place.to_owned(),
        Track::Personal => format!("personal-{place}"),
    }
}
