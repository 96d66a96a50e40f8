//! What a client pays: bytes, operations and seconds, measured and planned.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use crate::config::TrainingConfig;
use crate::model::cut::Place;
use crate::model::layout::Layout;
use crate::model::spec::TensorSpec;

/// Time and traffic of one client in one round, measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClientCost {
    /// Seconds of computing the front, forward and backward.
    pub front_secs: f64,
    /// Seconds the shards computed for this client.
    pub body_secs: f64,
    /// Seconds of computing the back, loss included.
    pub back_secs: f64,
    /// Seconds of waiting for permits, mailboxes and links.
    pub wait_secs: f64,
    /// Bytes that left the client: activations, gradients, slices.
    pub bytes_up: u64,
    /// Bytes that reached it.
    pub bytes_down: u64,
}

impl AddAssign for ClientCost {
    fn add_assign(&mut self, other: Self) {
        self.front_secs += other.front_secs;
        self.body_secs += other.body_secs;
        self.back_secs += other.back_secs;
        self.wait_secs += other.wait_secs;
        self.bytes_up += other.bytes_up;
        self.bytes_down += other.bytes_down;
    }
}

/// What a client holds and computes, planned from the layout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientNeed {
    /// Parameters it must hold.
    pub parameters: u64,
    /// Parameters it trains.
    pub trainable: u64,
    /// Bytes of parameters, gradients and moments in a local round, with what a baseline of
    /// method.md 9 holds besides.
    pub bytes: u64,
    /// Multiply-adds of the blocks' and head's matrix products for one position, forward, times two.
    pub flops_per_position: u64,
}

/// A client under the split beside a client that trains the whole model alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CostPlan {
    /// Front and back only.
    pub split: ClientNeed,
    /// Every block.
    pub whole: ClientNeed,
    /// Bytes of hidden states that cross the cut for one position in one training step.
    pub wire_bytes_per_position: u64,
}

impl CostPlan {
    /// The plan of a layout whose head scores `candidates`; base tensors take `base_bytes` each element.
    pub fn new(
        layout: &Layout,
        candidates: i64,
        base_bytes: u64,
        training: &TrainingConfig,
    ) -> Self {
        let head = (2 * layout.architecture.hidden * candidates) as u64;
        let element = Element { base_bytes, trained_bytes: trained_bytes(training) };
        let need = |places: &[Place]| {
            let mut need = ClientNeed { flops_per_position: head, ..ClientNeed::default() };
            for place in places {
                need.add(layout, *place, &element);
            }
            need
        };
        let hidden_bytes = layout.architecture.hidden as u64 * base_bytes;
        let crossings = if layout.cut.stages().is_empty() { 0 } else { 4 };
        Self {
            split: need(&[Place::Front, Place::Back]),
            whole: need(&layout.cut.places()),
            wire_bytes_per_position: crossings * hidden_bytes,
        }
    }
}

/// Bytes of one number that is frozen, and of one that is trained.
struct Element {
    base_bytes: u64,
    trained_bytes: u64,
}

/// A trained f32 parameter has a gradient and two moments. FedProx holds the start beside it; while
/// Ditto trains the global model, the personal one waits with its moments.
fn trained_bytes(training: &TrainingConfig) -> u64 {
    let start = if training.proximal_mu > 0.0 { 4 } else { 0 };
    let personal = if training.ditto_lambda.get().is_some() { 12 } else { 0 };
    16 + start + personal
}

impl ClientNeed {
    fn add(&mut self, layout: &Layout, place: Place, element: &Element) {
        let numel = |specs: &[TensorSpec]| specs.iter().map(TensorSpec::numel).sum::<i64>() as u64;
        let (base, trained) = (layout.base(place), layout.trainable(place));
        let frozen: Vec<TensorSpec> =
            base.iter().filter(|spec| !trained.contains(spec)).cloned().collect();
        let (frozen, trained_numel) = (numel(&frozen), numel(&trained));
        self.parameters += frozen + trained_numel;
        self.trainable += trained_numel;
        self.bytes += frozen * element.base_bytes + trained_numel * element.trained_bytes;
        let in_blocks = |spec: &&TensorSpec| spec.name.contains(".layer") && spec.shape.len() == 2;
        let products: i64 = base.iter().filter(in_blocks).map(TensorSpec::numel).sum();
        self.flops_per_position += 2 * products as u64;
    }
}
