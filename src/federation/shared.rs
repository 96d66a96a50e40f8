//! The shared mean: what a client starts from that has nothing of its own to start from.
//!
//! A client that never took part in a mix joins with the mean of the committed models (protocol.md
//! 2); under a rule that makes one model for all, so does everyone who had no part in the newest
//! mix. The mean is kept once, not once a client, and is loaded where the supervisor says that a
//! client follows it.

use std::collections::{BTreeMap, BTreeSet};

use tch::{Kind, no_grad};

use crate::checkpoint::{CheckpointError, MemberStore, PartState};
use crate::config::OptimizerConfig;
use crate::federation::cohort::{column_blocks, stack_rows};
use crate::ids::Round;
use crate::model::cut::Place;
use crate::model::slice::{Digest, Part, Slice, Theta};

/// Unweighted mean of the tensors of clients, at least one.
///
/// Sums run in f64 in the order given, of differences to the first client: what all clients agree
/// in keeps its bits.
pub fn mean_theta(clients: &[&Theta]) -> Theta {
    let part = |part: Part| {
        let slices: Vec<&Slice> = clients.iter().map(|theta| theta.part(part)).collect();
        mean_slice(&slices)
    };
    Theta { front: part(Part::Front), body: part(Part::Body), back: part(Part::Back) }
}

fn mean_slice(clients: &[&Slice]) -> Slice {
    let mean = clients[0].deep_copy();
    no_grad(|| {
        for (index, named) in mean.tensors.iter().enumerate() {
            let tensors: Vec<_> = clients.iter().map(|s| &s.tensors[index].tensor).collect();
            for (start, length) in column_blocks(named.tensor.numel(), clients.len()) {
                let rows_np = stack_rows(&tensors, start, length);
                let first_1p = rows_np.narrow(0, 0, 1);
                let differences_np = &rows_np - &first_1p;
                let mean_p = differences_np.mean_dim([0i64].as_slice(), false, Kind::Double);
                let mut target = named.tensor.view([-1]).narrow(0, start, length);
                target.copy_(&(first_1p.squeeze_dim(0) + mean_p));
            }
        }
    });
    mean
}

/// Where the shared means rest, by round.
#[derive(Clone, Debug)]
pub struct SharedStore {
    store: MemberStore,
    optimizer: OptimizerConfig,
}

impl SharedStore {
    /// Means that rest in `store`.
    pub fn new(store: MemberStore, optimizer: OptimizerConfig) -> Self {
        Self { store, optimizer }
    }

    /// Writes the mean that `round` starts from, and of the earlier ones keeps those of `retain`.
    ///
    /// # Errors
    /// The disk's.
    pub fn stage(
        &self,
        round: Round,
        slices: BTreeMap<Place, Slice>,
        retain: &BTreeSet<Round>,
    ) -> Result<Digest, CheckpointError> {
        let fresh = |(place, slice): (Place, Slice)| {
            (part_name(place), PartState::fresh(slice, &self.optimizer))
        };
        let staged: Vec<(String, PartState)> = slices.into_iter().map(fresh).collect();
        let parts: Vec<(&str, &PartState)> =
            staged.iter().map(|(name, part)| (name.as_str(), part)).collect();
        let receipt = self.store.stage(round, &parts)?;
        self.store.retain(&retain.iter().copied().chain([round]).collect())?;
        Ok(receipt)
    }

    /// Whether the mean of `round` is here, at each of these places.
    pub fn holds(&self, places: &[Place], round: Round) -> bool {
        places.iter().all(|place| self.store.has(round, &part_name(*place)))
    }

    /// Keeps a mean that another node staged, and none before it: they can be asked for again.
    ///
    /// # Errors
    /// The disk's.
    pub fn receive(
        &self,
        round: Round,
        slices: BTreeMap<Place, Slice>,
    ) -> Result<(), CheckpointError> {
        self.stage(round, slices, &BTreeSet::new()).map(|_| ())
    }

    /// The mean at a place, with no moments; `layout` is what the model expects.
    ///
    /// # Errors
    /// No such mean, or one that does not fit the model.
    pub fn load(
        &self,
        place: Place,
        round: Round,
        layout: &Slice,
    ) -> Result<PartState, CheckpointError> {
        self.store.load(round, &part_name(place), layout)
    }
}

fn part_name(place: Place) -> String {
    match place {
        Place::Front => "front".to_owned(),
        Place::Stage(stage) => format!("stage-{stage}"),
        Place::Back => "back".to_owned(),
    }
}
