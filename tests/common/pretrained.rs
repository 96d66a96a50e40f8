//! The folders that the real libraries wrote, and a client with its stages that start from one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fellrec::config::{LoraConfig, OrNone, SplitConfig, Trainable};
use fellrec::ids::ClientId;
use fellrec::model::backbone::Inputs;
use fellrec::model::causal_lm::CausalLm;
use fellrec::model::cut::{Cut, Place};
use fellrec::model::layout::Layout;
use fellrec::model::pretrained::Checkpoint;
use fellrec::model::slice::Slice;
use fellrec::model::start::StartingPoint;
use fellrec::split::{BodySession, ClientModel, ClientSettings};
use fellrec::training::{AdamW, BodyLink, TrainablePart};
use serde::de::DeserializeOwned;
use tch::{Device, Kind, Tensor};

use super::link::LocalLink;
use super::{optimizer, rope, split, stage_of};

/// A folder of tests/fixtures, such as `models/qwen2`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// What a script wrote beside a model or an adapter.
pub fn expected<T: DeserializeOwned>(name: &str, file: &str) -> T {
    let text = std::fs::read_to_string(fixture(name).join(file)).expect("a fixture");
    serde_json::from_str(&text).expect("as the script writes it")
}

/// One of tests/fixtures/models.
pub fn open(model: &str) -> Arc<Checkpoint> {
    Arc::new(Checkpoint::open(&fixture("models").join(model)).expect("a whole fixture"))
}

pub fn layout(checkpoint: &Checkpoint, lora: &LoraConfig, cut: &SplitConfig) -> Layout {
    let architecture = checkpoint.architecture();
    let ends = CausalLm::new(architecture);
    let cut = Cut::new(architecture.layers, cut);
    Layout::new(architecture, Trainable::Lora, lora, cut, &ends)
}

/// Of two blocks: both at the front, the last on a shard, one at either end.
pub fn cuts() -> [SplitConfig; 3] {
    [split(2, 0, OrNone::None), split(1, 0, OrNone::None), split(1, 1, OrNone::None)]
}

/// A client and its stages, each with the base that it reads itself and the adapters of its place.
pub fn party(
    checkpoint: &Arc<Checkpoint>,
    layout: &Layout,
    adapters: impl Fn(Place) -> Slice,
) -> (ClientModel, LocalLink) {
    tch::set_num_threads(1);
    let start = StartingPoint::pretrained(0, Arc::clone(checkpoint));
    let base = |places: &[Place]| {
        let base = layout.frozen_base(places, &start, Kind::Float, Device::Cpu);
        base.expect("the fixture holds them")
    };
    let part = |place| TrainablePart::new(&adapters(place), AdamW::new(&optimizer()), Device::Cpu);
    let rope = rope(&layout.architecture);
    let stage = |stage| {
        let place = Place::Stage(stage);
        let base = base(&[place]);
        BodySession::new(
            &stage_of(layout, place, base, Kind::Float, false),
            ClientId(0),
            part(place),
        )
    };
    let stages = (0..layout.cut.stages().len()).map(stage).collect();
    let settings = ClientSettings { recompute: false, dropout: 0.0, loss_chunk: 64, cosine: None };
    let ends = Box::new(CausalLm::new(&layout.architecture));
    let base = base(&[Place::Front, Place::Back]);
    let (front, back) = (part(Place::Front), part(Place::Back));
    let client = ClientModel::new(ends, layout, base, &rope, settings, front, back);
    (client, LocalLink::new(stages))
}

/// Logits of the last position, `[V]`, over all stages.
pub fn logits(client: &ClientModel, link: &mut LocalLink, ids: &[i64]) -> Tensor {
    let ends = client.ends();
    let ids_bt = Tensor::from_slice(ids).unsqueeze(0);
    let mut hidden = client.evaluate_front(&ends, &Inputs::Ids(ids_bt));
    for stage in 0..link.stages.len() {
        let answer = actix::System::new().block_on(link.evaluate(stage, hidden));
        hidden = answer.expect("legal").value;
    }
    let last = Tensor::from_slice(&[ids.len() as i64 - 1]);
    client.evaluate_back(&ends, &hidden, &last).expect("legal").squeeze_dim(0)
}

/// Largest absolute difference.
pub fn difference(got: &Tensor, expected: &[f32]) -> f64 {
    (got - Tensor::from_slice(expected)).abs().max().double_value(&[])
}
