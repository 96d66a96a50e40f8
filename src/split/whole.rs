//! A whole model in one place: what a split one is compared with, looked at, or pretrained as.

use tch::{Device, Kind};

use super::client::{ClientModel, ClientSettings};
use crate::config::{LoraConfig, OptimizerConfig, OrNone, SplitConfig, Trainable};
use crate::model::architecture::{Architecture, BlockKind};
use crate::model::backbone::Backbone;
use crate::model::causal_lm::CausalLm;
use crate::model::cut::{Cut, Place};
use crate::model::layout::Layout;
use crate::model::pretrained::PretrainedError;
use crate::model::recformer::RecFormer;
use crate::model::rope::RopeTable;
use crate::model::start::StartingPoint;
use crate::training::{AdamW, TrainablePart};

/// How a whole model is built, on the CPU and in f32.
#[derive(Debug)]
pub struct WholePlan<'a> {
    /// The network.
    pub architecture: &'a Architecture,
    /// What of it trains.
    pub trainable: Trainable,
    /// Adapters; without targets there are none.
    pub lora: LoraConfig,
    /// Its optimiser.
    pub optimizer: &'a OptimizerConfig,
    /// How it computes.
    pub settings: ClientSettings,
    /// Tokens of the longest text.
    pub longest: i64,
}

impl WholePlan<'_> {
    /// The model, every block at its front: a [`ClientModel`] that needs no shard.
    ///
    /// # Errors
    /// A tensor of the checkpoint could not be read.
    pub fn build(&self, start: &StartingPoint) -> Result<ClientModel, PretrainedError> {
        let architecture = self.architecture;
        let ends: Box<dyn Backbone> = match &architecture.blocks {
            BlockKind::Decoder(_) => Box::new(CausalLm::new(architecture)),
            BlockKind::Encoder(encoder) => {
                let items = (encoder.item_positions - 1).max(1);
                Box::new(RecFormer::new(architecture, encoder, items))
            }
        };
        let whole = SplitConfig {
            k_front: architecture.layers,
            k_back: 0,
            stages: OrNone::None,
            replicas: OrNone::None,
        };
        let cut = Cut::new(architecture.layers, &whole);
        let layout = Layout::new(architecture, self.trainable, &self.lora, cut, ends.as_ref());
        let (kind, device) = (Kind::Float, Device::Cpu);
        let base = layout.frozen_base(&[Place::Front, Place::Back], start, kind, device)?;
        let part = |place| {
            let slice = layout.initial_slice(place, start)?;
            Ok::<_, PretrainedError>(TrainablePart::new(&slice, AdamW::new(self.optimizer), device))
        };
        let rope = match &architecture.blocks {
            BlockKind::Decoder(decoder) => {
                RopeTable::new(self.longest, architecture.head_dim, &decoder.rope, kind, device)
            }
            BlockKind::Encoder(_) => RopeTable::empty(),
        };
        let (front, back) = (part(Place::Front)?, part(Place::Back)?);
        Ok(ClientModel::new(ends, &layout, base, &rope, self.settings, front, back))
    }
}
