//! Measures optimiser steps of one role of the split: time, arithmetic, memory.
//!
//! The other role's frames are random tensors of the right shape that lie on the device already, so that
//! what is measured is one process as it would run on a machine of its own.

mod party;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use fellrec::config::{DeviceName, DtypeName, Layers, Loaded, LoraConfig, SplitConfig, Trainable};
use fellrec::model::architecture::{Architecture, BlockKind};
use fellrec::model::causal_lm::CausalLm;
use fellrec::model::cut::{Cut, Place};
use fellrec::model::layout::{Layout, model_specs};
use fellrec::model::named::NAMED;
use fellrec::model::pretrained::Checkpoint;
use fellrec::model::spec::{BaseWeights, Init, TensorSpec};
use fellrec::model::start::StartingPoint;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, no_grad};

use party::Party;

use super::median;
use super::work::token_flops;
use crate::cuda::{CudaStatus, load_cuda_backend};
use crate::memory::{device_memory_used, peak_memory_bytes};

const SEED: u64 = 42;
/// Seconds for which bare products are measured.
const PRODUCT_SECONDS: f64 = 1.0;

/// Where the network comes from.
#[derive(Clone, Debug)]
pub enum Weights {
    /// Random numbers in the shape of a published network.
    Random(String),
    /// A Hugging Face folder.
    Checkpoint(PathBuf),
}

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Front, back, head, loss.
    Client,
    /// The body.
    Shard,
    /// The unsplit model.
    Whole,
}

/// What is measured.
#[derive(Clone, Debug)]
pub struct StepBench {
    /// The network.
    pub weights: Weights,
    /// Whose part of it.
    pub role: Role,
    /// Blocks at the front and at the back.
    pub cut: (i64, i64),
    /// Sequences of a step.
    pub batch: i64,
    /// Tokens of a sequence.
    pub seq: i64,
    /// Measured steps, after one that is not.
    pub steps: u32,
    /// Where it runs.
    pub device: DeviceName,
    /// Number type of frozen weights and activations.
    pub dtype: DtypeName,
    /// Computes blocks again in the backward pass.
    pub recompute: bool,
    /// Clients whose passes a shard computes as one.
    pub clients: u32,
    /// Rank of the adapters on q_proj and v_proj.
    pub rank: i64,
    /// What the device could do at most, in TFLOP/s; measured products where it is not given.
    pub peak_tflops: Option<f64>,
}

/// What was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StepFigures {
    /// Whose part.
    pub role: Role,
    /// Clients that make the step together.
    pub clients: u32,
    /// `FRONT/BACK`.
    pub cut: String,
    /// Frozen parameters that the role holds.
    pub parameters: i64,
    /// Trained ones.
    pub trained: i64,
    /// Wall time of every measured step.
    pub step_seconds: Vec<f64>,
    /// Their median.
    pub median_seconds: f64,
    /// Tokens a second of a median step.
    pub tokens_per_second: f64,
    /// Arithmetic of a median step in TFLOP/s, each product counted once.
    pub tflops: f64,
    /// What that is compared with, in TFLOP/s.
    pub peak_tflops: f64,
    /// Whether those are measured products in this process, not a data sheet's.
    pub peak_measured: bool,
    /// Model FLOP utilisation, `tflops / peak_tflops`.
    pub utilisation: f64,
    /// Highest resident memory of the process, in MiB.
    pub peak_resident_mib: f64,
    /// Memory that the process took on the GPU, its run-time library included, in MiB.
    pub device_mib: Option<f64>,
    /// What one step sends over the cut, both ways and both passes, in MiB; none for the whole model.
    pub wire_mib: f64,
    /// Loss of the last step in nats a token, where the role has one: a sign of life.
    pub loss: Option<f64>,
}

impl StepBench {
    /// Builds the role and measures it.
    ///
    /// # Errors
    /// No such network, cut or device; a checkpoint that cannot be read.
    pub fn run(&self) -> Result<StepFigures> {
        ensure!(
            self.clients == 1 || self.recompute,
            "--clients: got {}, expected 1 without --recompute: a graph of several clients would wait for the slowest",
            self.clients
        );
        let device = self.device()?;
        let kind = Kind::from(self.dtype);
        let taken_before = device_memory_used(device);
        let (architecture, start) = self.network()?;
        let layout = self.layout(&architecture)?;
        let places = self.places(&layout);
        let base = self.base(&layout, &places, start.as_ref(), kind, device)?;
        let start = start.unwrap_or_else(|| StartingPoint::random(SEED));
        let mut party = Party::new(self, &layout, base, &start, kind, device)?;
        let mut seconds = Vec::new();
        let mut loss = None;
        for step in 0..=u64::from(self.steps) {
            let started = Instant::now();
            loss = party.step(step, self.role)?;
            synchronize(device);
            seconds.push(started.elapsed().as_secs_f64());
        }
        let device_mib = device_memory_used(device)
            .map(|bytes| (bytes - taken_before.unwrap_or_default()) as f64 / f64::from(1 << 20));
        let peak_resident_mib = peak_memory_bytes() as f64 / f64::from(1 << 20);
        drop(party);
        let step_seconds = seconds[1..].to_vec();
        let median_seconds = median(&step_seconds);
        let clients = if self.role == Role::Shard { self.clients } else { 1 };
        let tokens = (self.batch * self.seq * i64::from(clients)) as f64;
        let blocks: i64 = places
            .iter()
            .map(|place| {
                let blocks = layout.cut.blocks(*place);
                blocks.end - blocks.start
            })
            .sum();
        let head = self.role != Role::Shard;
        let flops = tokens * token_flops(&architecture, &layout.lora, blocks, head, self.seq);
        let tflops = flops / median_seconds / 1e12;
        let peak_tflops = self.peak_tflops.unwrap_or_else(|| product_rate(kind, device));
        let count = |specs: Vec<TensorSpec>| specs.iter().map(TensorSpec::numel).sum::<i64>();
        let frame = tokens as i64 * architecture.hidden * kind.elt_size_in_bytes() as i64;
        Ok(StepFigures {
            role: self.role,
            clients,
            cut: format!("{}/{}", self.cut.0, self.cut.1),
            parameters: places.iter().map(|place| count(layout.base(*place))).sum(),
            trained: places.iter().map(|place| count(layout.trainable(*place))).sum(),
            median_seconds,
            tokens_per_second: tokens / median_seconds,
            step_seconds,
            tflops,
            peak_tflops,
            peak_measured: self.peak_tflops.is_none(),
            utilisation: tflops / peak_tflops,
            peak_resident_mib,
            device_mib,
            // Hidden states up and down, and their gradients.
            wire_mib: match self.role {
                Role::Whole => 0.0,
                Role::Client | Role::Shard => 4.0 * frame as f64 / f64::from(1 << 20),
            },
            loss,
        })
    }

    fn device(&self) -> Result<Device> {
        match self.device {
            DeviceName::Cpu => Ok(Device::Cpu),
            DeviceName::Cuda(index) => match load_cuda_backend() {
                CudaStatus::Ready { devices } if (index as i64) < devices => Ok(self.device.into()),
                CudaStatus::Ready { devices } => {
                    bail!("--device: got cuda:{index}, this process sees {devices}")
                }
                missing => bail!("--device: got cuda:{index}, but {missing}; run `fellrec doctor`"),
            },
        }
    }

    fn network(&self) -> Result<(Architecture, Option<StartingPoint>)> {
        match &self.weights {
            Weights::Random(name) => {
                let architecture = Architecture::named(name).with_context(|| {
                    format!("--random-weights: got {name:?}, expected one of {}", NAMED.join(", "))
                })?;
                Ok((architecture, None))
            }
            Weights::Checkpoint(folder) => {
                let checkpoint = Checkpoint::open(folder)?;
                checkpoint.check(&model_specs(checkpoint.architecture()))?;
                let architecture = checkpoint.architecture().clone();
                ensure!(
                    matches!(architecture.blocks, BlockKind::Decoder(_)),
                    "--checkpoint: {} is an encoder, expected a causal model",
                    checkpoint.family()
                );
                let start = StartingPoint::pretrained(SEED, Arc::new(checkpoint));
                Ok((architecture, Some(start)))
            }
        }
    }

    fn layout(&self, architecture: &Architecture) -> Result<Layout> {
        let layers = architecture.layers;
        let (front, back) = match self.role {
            Role::Whole => (layers, 0),
            Role::Client | Role::Shard => self.cut,
        };
        let has_body = front >= 1 && back >= 0 && front + back < layers;
        ensure!(
            has_body || self.role == Role::Whole,
            "--cut: got {front}/{back}, expected a front of at least 1 block and a body, of {layers} in all"
        );
        let lora = LoraConfig { rank: self.rank, alpha: 16.0, ..config()?.lora };
        let ends = CausalLm::new(architecture);
        let cut = Cut::new(layers, &SplitConfig::new(front, back));
        Ok(Layout::new(architecture, Trainable::Lora, &lora, cut, &ends))
    }

    fn places(&self, layout: &Layout) -> Vec<Place> {
        let mut places = layout.cut.places();
        places.retain(|place| match self.role {
            Role::Whole => true,
            Role::Client => !matches!(place, Place::Stage(_)),
            Role::Shard => matches!(place, Place::Stage(_)),
        });
        places
    }

    /// The frozen tensors of these places, made on the device and in the type that they are used in.
    fn base(
        &self,
        layout: &Layout,
        places: &[Place],
        start: Option<&StartingPoint>,
        kind: Kind,
        device: Device,
    ) -> Result<BaseWeights> {
        if let Some(start) = start {
            return Ok(layout.frozen_base(places, start, kind, device)?);
        }
        // Not a run's draws, which are made number by number on the CPU: 7e9 of them would take minutes.
        tch::manual_seed(SEED as i64);
        let drawn = |spec: TensorSpec| {
            let mut tensor = Tensor::empty(spec.shape.as_slice(), (kind, device));
            let _ = match spec.init {
                Init::Ones => tensor.fill_(1.0),
                Init::Normal(std) => tensor.normal_(0.0, std),
                _ => tensor.zero_(),
            };
            (spec.name, tensor)
        };
        let specs = places.iter().flat_map(|place| layout.base(*place));
        Ok(BaseWeights::new(specs.map(drawn).collect::<BTreeMap<_, _>>()))
    }
}

fn config() -> Result<fellrec::config::Config> {
    Ok(Loaded::load(&Layers::default())?.config)
}

/// TFLOP/s of one large matrix product after another, in the type and on the device of the step.
fn product_rate(kind: Kind, device: Device) -> f64 {
    let n: i64 = if device == Device::Cpu { 1024 } else { 8192 };
    no_grad(|| {
        let (a, b) = (Tensor::ones([n, n], (kind, device)), Tensor::ones([n, n], (kind, device)));
        let _warm_up = a.matmul(&b);
        synchronize(device);
        let (started, mut products) = (Instant::now(), 0);
        while started.elapsed().as_secs_f64() < PRODUCT_SECONDS {
            let _product = a.matmul(&b);
            synchronize(device);
            products += 1;
        }
        2.0 * (n as f64).powi(3) * f64::from(products) / started.elapsed().as_secs_f64() / 1e12
    })
}

fn synchronize(device: Device) {
    if let Device::Cuda(index) = device {
        tch::Cuda::synchronize(index as i64);
    }
}
