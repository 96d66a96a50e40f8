//! A whole model in one place: what a split one is compared with, looked at, or pretrained as.

use tch::{Device, Kind, Tensor, no_grad};

use super::SplitError;
use super::client::{ClientModel, ClientSettings};
use crate::config::{LoraConfig, OptimizerConfig, SplitConfig, Trainable};
use crate::model::architecture::Architecture;
use crate::model::backbone::Inputs;
use crate::model::cut::{Cut, Place};
use crate::model::layout::{Layout, text_ends};
use crate::model::pretrained::PretrainedError;
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
        let ends = text_ends(architecture);
        let whole = SplitConfig::new(architecture.layers, 0);
        let cut = Cut::new(architecture.layers, &whole);
        let layout = Layout::new(architecture, self.trainable, &self.lora, cut, ends.as_ref());
        let (kind, device) = (Kind::Float, Device::Cpu);
        let base = layout.frozen_base(&[Place::Front, Place::Back], start, kind, device)?;
        let part = |place| {
            let slice = layout.initial_slice(place, start)?;
            Ok::<_, PretrainedError>(TrainablePart::new(&slice, AdamW::new(self.optimizer), device))
        };
        let rope = RopeTable::of(architecture, self.longest, kind, device);
        let (front, back) = (part(Place::Front)?, part(Place::Back)?);
        Ok(ClientModel::new(ends, &layout, base, &rope, self.settings, front, back))
    }
}

impl ClientModel {
    /// Scores `[V]` of the token after `ids`, f32, by a whole causal model.
    ///
    /// # Errors
    /// None that a whole model has.
    pub fn next_token_scores(&self, ids: &[i64]) -> Result<Tensor, SplitError> {
        let ends = no_grad(|| self.ends());
        let hidden = self.evaluate_front(&ends, &Inputs::Ids(Tensor::from_slice(ids).unsqueeze(0)));
        let last = Tensor::from_slice(&[ids.len() as i64 - 1]);
        Ok(self.evaluate_back(&ends, &hidden, &last)?.squeeze_dim(0))
    }
}
