//! Which tensors stand at which place: frozen ones and those a client trains.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use super::architecture::{Architecture, BlockKind};
use super::backbone::{Backbone, EndTensors};
use super::block::{block_specs, lora_specs};
use super::causal_lm::CausalLm;
use super::cut::{Cut, Place};
use super::encoder::embedding_specs;
use super::norm::RmsNorm;
use super::pretrained::PretrainedError;
use super::recformer::RecFormer;
use super::slice::{NamedTensor, Slice};
use super::spec::{BaseWeights, Init, Params, TensorSpec};
use super::start::StartingPoint;
use crate::config::{LoraConfig, Trainable};

const FINAL_NORM: &str = "model.norm";

/// Tensors by place, for one model, cut and training mode.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Network dimensions.
    pub architecture: Architecture,
    /// What trains.
    pub mode: Trainable,
    /// Adapter shape.
    pub lora: LoraConfig,
    /// Block ranges.
    pub cut: Cut,
    front: EndTensors,
    back: EndTensors,
}

impl Layout {
    /// The layout of a network with the ends of `backbone`.
    pub fn new(
        architecture: &Architecture,
        mode: Trainable,
        lora: &LoraConfig,
        cut: Cut,
        backbone: &dyn Backbone,
    ) -> Self {
        let mut back = backbone.back();
        if let BlockKind::Decoder(_) = architecture.blocks {
            back.base.push(final_norm_spec(architecture));
        }
        let (architecture, lora) = (architecture.clone(), lora.clone());
        Self { architecture, mode, lora, cut, front: backbone.front(), back }
    }

    /// Base tensors of a place, trained or not.
    pub fn base(&self, place: Place) -> Vec<TensorSpec> {
        let mut specs = self.end(place).map(|end| end.base.clone()).unwrap_or_default();
        specs.extend(block_specs(&self.architecture, self.cut.blocks(place)));
        specs
    }

    /// Tensors that a client trains at a place.
    pub fn trainable(&self, place: Place) -> Vec<TensorSpec> {
        let mut specs = match self.mode {
            Trainable::Full => self.base(place),
            Trainable::Lora => Vec::new(),
        };
        specs.extend(self.adapters(place));
        specs
    }

    /// All matrices of the adapters, of every block; none where everything trains.
    pub fn lora(&self) -> Vec<TensorSpec> {
        match self.mode {
            Trainable::Full => Vec::new(),
            Trainable::Lora => {
                lora_specs(&self.architecture, &self.lora, 0..self.architecture.layers)
            }
        }
    }

    /// Trained tensors that no base has.
    fn adapters(&self, place: Place) -> Vec<TensorSpec> {
        let mut specs = match self.mode {
            Trainable::Full => Vec::new(),
            Trainable::Lora => lora_specs(&self.architecture, &self.lora, self.cut.blocks(place)),
        };
        specs.extend(self.end(place).map(|end| end.adapters.clone()).unwrap_or_default());
        specs
    }

    /// The slice every client starts from: the SAME one for all (method.md 3), f32.
    ///
    /// # Errors
    /// A tensor could not be read.
    pub fn initial_slice(
        &self,
        place: Place,
        start: &StartingPoint,
    ) -> Result<Slice, PretrainedError> {
        let mut tensors = Vec::new();
        if self.mode == Trainable::Full {
            for spec in self.base(place) {
                let tensor = start.base(&spec, Kind::Float, Device::Cpu)?;
                tensors.push(NamedTensor::new(spec.name, tensor));
            }
        }
        for spec in self.adapters(place) {
            let tensor = start.adapter(&spec)?;
            tensors.push(NamedTensor::new(spec.name, tensor));
        }
        Ok(Slice::new(tensors))
    }

    /// Names, shapes and types that a slice of a place must have; its tensors are one stored zero each.
    pub fn expected_slice(&self, place: Place) -> Slice {
        let zero = Tensor::zeros([1], (Kind::Float, Device::Cpu));
        let specs = self.trainable(place);
        let tensors = specs.iter().map(|spec| NamedTensor {
            name: spec.name.clone(),
            tensor: zero.expand(spec.shape.as_slice(), false),
        });
        Slice::new(tensors.collect())
    }

    /// The same for every place that has trainable tensors of its own to bring together.
    pub fn expected_slices(&self) -> BTreeMap<Place, Slice> {
        self.cut.places().into_iter().map(|place| (place, self.expected_slice(place))).collect()
    }

    /// The frozen base of these places; empty where everything trains.
    ///
    /// # Errors
    /// A tensor could not be read.
    pub fn frozen_base(
        &self,
        places: &[Place],
        start: &StartingPoint,
        kind: Kind,
        device: Device,
    ) -> Result<BaseWeights, PretrainedError> {
        let mut tensors = BTreeMap::new();
        let frozen = if self.mode == Trainable::Lora { places } else { &[] };
        for spec in frozen.iter().flat_map(|place| self.base(*place)) {
            let tensor = start.base(&spec, kind, device)?;
            tensors.insert(spec.name, tensor);
        }
        Ok(BaseWeights::new(tensors))
    }

    /// The norm between the last block and the head; a post-norm block ends with its own.
    pub fn final_norm(&self, params: &Params<'_>) -> Option<RmsNorm> {
        let norm = || RmsNorm::new(params, FINAL_NORM, self.architecture.norm_eps);
        matches!(self.architecture.blocks, BlockKind::Decoder(_)).then(norm)
    }

    fn end(&self, place: Place) -> Option<&EndTensors> {
        match place {
            Place::Front => Some(&self.front),
            Place::Stage(_) => None,
            Place::Back => Some(&self.back),
        }
    }
}

/// The ends of a model that reads and writes text, or of an encoder that reads item text.
pub fn text_ends(architecture: &Architecture) -> Box<dyn Backbone> {
    match &architecture.blocks {
        BlockKind::Decoder(_) => Box::new(CausalLm::new(architecture)),
        BlockKind::Encoder(encoder) => {
            let items = (encoder.item_positions - 1).max(1);
            Box::new(RecFormer::new(architecture, encoder, items))
        }
    }
}

/// Every tensor of the model that checkpoints of an architecture hold, whichever backbone uses which.
pub fn model_specs(architecture: &Architecture) -> Vec<TensorSpec> {
    let mut specs = block_specs(architecture, 0..architecture.layers);
    match &architecture.blocks {
        BlockKind::Decoder(_) => {
            let ends = CausalLm::new(architecture);
            specs.extend(ends.front().base);
            specs.extend(ends.back().base);
            specs.push(final_norm_spec(architecture));
        }
        BlockKind::Encoder(encoder) => specs.extend(embedding_specs(architecture, encoder)),
    }
    specs
}

fn final_norm_spec(architecture: &Architecture) -> TensorSpec {
    TensorSpec::new(format!("{FINAL_NORM}.weight"), &[architecture.hidden], Init::Ones)
}
