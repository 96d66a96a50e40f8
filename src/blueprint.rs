//! Everything that a config and its data determine before the first actor starts.

use std::sync::Arc;

use tch::{Device, Kind};
use thiserror::Error;

use crate::checkpoint::Fingerprint;
use crate::config::{BackboneKind, Config, ConfigError, DeviceName, DtypeName};
use crate::cost::CostPlan;
use crate::data::{self, ClientData, DataError, TitleTokens, TokenError, TrainingRows, UserSplit};
use crate::ids::ClientId;
use crate::model::architecture::{Architecture, BlockKind};
use crate::model::backbone::Backbone;
use crate::model::causal_lm::CausalLm;
use crate::model::cut::{Cut, Place};
use crate::model::item_tokens::ItemTokens;
use crate::model::layout::Layout;
use crate::model::rope::RopeTable;
use crate::model::spec::BaseWeights;
use crate::training::{Examples, HistoryExamples, RandomTokens};

/// Why no run can start.
#[derive(Debug, Error)]
pub enum BlueprintError {
    /// The data could not be read, split or put on clients.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The catalogue could not be tokenized.
    #[error(transparent)]
    Tokens(#[from] TokenError),
    /// The config does not fit the data.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A configured device is not there.
    #[error("{key} is {device}, but this process sees {found} CUDA devices; run `fellrec doctor`")]
    NoDevice {
        /// Key that names the device.
        key: &'static str,
        /// Device asked for.
        device: DeviceName,
        /// GPUs that libtorch sees.
        found: i64,
    },
}

/// What clients train on.
#[derive(Debug)]
enum Workload {
    Histories { clients: Vec<Arc<ClientData>>, rows: TrainingRows, tokens: TitleTokens },
    RandomTokens { clients: u32, tokens: RandomTokens },
}

/// A run before it starts.
#[derive(Debug)]
pub struct Blueprint {
    /// The resolved config.
    pub config: Config,
    /// Name of the data set.
    pub dataset: String,
    /// Tensors by place.
    pub layout: Arc<Layout>,
    workload: Workload,
}

impl Blueprint {
    /// Reads the data of a config and puts users on clients.
    pub fn new(config: Config) -> Result<Self, BlueprintError> {
        let loaded = data::load(&config.data, config.run.seed)?;
        let splits = data::split(&loaded.dataset, config.data.split)?;
        let clients =
            data::assign(&loaded.dataset, &splits.users, &config.clients, config.run.seed)?;
        config.validate_clients(clients.len() as u32)?;
        let count = config.training.rows.get().map(|rows| rows.get());
        let rows = TrainingRows::draw(&splits.users, count, config.run.seed)?;
        let tokens = match config.model.backbone {
            BackboneKind::ItemTokens => TitleTokens::new(&loaded.dataset.catalogue, &config.model)?,
            BackboneKind::Recformer => unreachable!(),
        };
        let clients = clients.into_iter().map(Arc::new).collect();
        let workload = Workload::Histories { clients, rows, tokens };
        Self::finish(config, loaded.dataset.name, workload)
    }

    /// A run of `clients` clients on random tokens with a causal language-model loss.
    pub fn random_tokens(
        config: Config,
        clients: u32,
        tokens: RandomTokens,
    ) -> Result<Self, BlueprintError> {
        let workload = Workload::RandomTokens { clients, tokens };
        Self::finish(config, "random tokens".to_owned(), workload)
    }

    fn finish(config: Config, dataset: String, workload: Workload) -> Result<Self, BlueprintError> {
        device(config.runtime.client_device, "runtime.client_device")?;
        device(config.runtime.shard_device, "runtime.shard_device")?;
        let architecture = workload.architecture(&config);
        let cut = Cut::new(architecture.layers, &config.split);
        let backbone = workload.backbone(&architecture, Device::Cpu);
        let mode = config.model.trainable;
        let layout = Layout::new(&architecture, mode, &config.lora, cut, backbone.as_ref());
        Ok(Self { config, dataset, layout: Arc::new(layout), workload })
    }

    /// Clients in id order.
    pub fn clients(&self) -> Vec<ClientId> {
        let count = match &self.workload {
            Workload::Histories { clients, .. } => clients.len() as u32,
            Workload::RandomTokens { clients, .. } => *clients,
        };
        (0..count).map(ClientId).collect()
    }

    /// A client's users; none on random tokens.
    pub fn client_data(&self, client: ClientId) -> Option<Arc<ClientData>> {
        match &self.workload {
            Workload::Histories { clients, .. } => Some(Arc::clone(&clients[client.0 as usize])),
            Workload::RandomTokens { .. } => None,
        }
    }

    /// Whether a user's training items are trained on, as far as there are enough of them.
    pub fn trains_on(&self, user: &UserSplit) -> bool {
        match &self.workload {
            Workload::Histories { rows, .. } => rows.admit(user),
            Workload::RandomTokens { .. } => false,
        }
    }

    /// Positions of one epoch: how long a client computes, in relation to the others.
    pub fn training_load(&self, client: ClientId) -> usize {
        match &self.workload {
            Workload::Histories { clients, .. } => {
                let longest = self.config.model.max_history as usize;
                let users = clients[client.0 as usize].users.iter();
                let trained = users.filter(|user| self.trains_on(user));
                trained.map(|user| user.train.len().min(longest)).sum()
            }
            Workload::RandomTokens { tokens, .. } => tokens.sequences,
        }
    }

    /// Items or tokens that are scored at a position.
    pub fn candidates(&self) -> u64 {
        match &self.workload {
            Workload::Histories { tokens, .. } => tokens.titles.len() as u64,
            Workload::RandomTokens { tokens, .. } => tokens.vocab as u64,
        }
    }

    /// A client's training rows.
    pub fn examples(&self, client: ClientId) -> Box<dyn Examples> {
        match &self.workload {
            Workload::Histories { clients, rows, .. } => Box::new(HistoryExamples::among(
                &clients[client.0 as usize],
                rows,
                self.config.model.max_history as usize,
            )),
            Workload::RandomTokens { tokens, .. } => {
                Box::new(RandomTokens { seed: tokens.seed + u64::from(client.0), ..tokens.clone() })
            }
        }
    }

    /// The ends of the model on a device.
    pub fn backbone(&self, device: Device) -> Box<dyn Backbone> {
        self.workload.backbone(&self.layout.architecture, device)
    }

    /// The frozen base of these places on a device; one copy a process.
    pub fn base(&self, places: &[Place], device: Device) -> BaseWeights {
        self.layout.frozen_base(places, self.config.run.seed, self.kind(), device)
    }

    /// Rotary tables for the longest input, on a device.
    pub fn rope(&self, device: Device) -> RopeTable {
        let length = match &self.workload {
            Workload::Histories { .. } => self.config.model.max_history,
            Workload::RandomTokens { tokens, .. } => tokens.length,
        };
        let Architecture { head_dim, blocks, .. } = &self.layout.architecture;
        match blocks {
            BlockKind::Decoder(decoder) => {
                RopeTable::new(length, *head_dim, &decoder.rope, self.kind(), device)
            }
            BlockKind::Encoder(_) => RopeTable::empty(),
        }
    }

    /// Device of the clients.
    pub fn client_device(&self) -> Device {
        to_tch(self.config.runtime.client_device)
    }

    /// Device of the shards.
    pub fn shard_device(&self) -> Device {
        to_tch(self.config.runtime.shard_device)
    }

    /// What a client needs under the split and alone.
    pub fn cost_plan(&self) -> CostPlan {
        let element = self.kind().elt_size_in_bytes() as u64;
        CostPlan::new(&self.layout, self.candidates() as i64, element, &self.config.training)
    }

    /// What the bits of the run depend on.
    pub fn fingerprint(&self) -> Result<Fingerprint, ConfigError> {
        let runtime = &self.config.runtime;
        Ok(Fingerprint {
            product: env!("CARGO_PKG_VERSION").to_owned(),
            libtorch: TORCH_VERSION.to_owned(),
            cpu: cpu_capability().to_owned(),
            intra_op_threads: 1,
            devices: vec![runtime.client_device.to_string(), runtime.shard_device.to_string()],
            dtype: format!("{:?}", runtime.dtype).to_lowercase(),
            config: self.config.hash()?,
        })
    }

    fn kind(&self) -> Kind {
        match self.config.runtime.dtype {
            DtypeName::F32 => Kind::Float,
            DtypeName::Bf16 => Kind::BFloat16,
        }
    }
}

/// libtorch that tch 0.24 is bound to.
pub const TORCH_VERSION: &str = "2.11.0";

/// Widest vector extension that libtorch's kernels pick on this processor.
fn cpu_capability() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            return "avx512";
        }
        if is_x86_feature_detected!("avx2") {
            return "avx2";
        }
    }
    std::env::consts::ARCH
}

impl Workload {
    fn architecture(&self, config: &Config) -> Architecture {
        match self {
            Workload::Histories { tokens, .. } => Architecture::llama(&config.model, tokens.vocab),
            Workload::RandomTokens { tokens, .. } => {
                Architecture::llama(&config.model, tokens.vocab).untied()
            }
        }
    }

    fn backbone(&self, architecture: &Architecture, device: Device) -> Box<dyn Backbone> {
        match self {
            Workload::Histories { tokens, .. } => {
                Box::new(ItemTokens::new(architecture, &tokens.titles, device))
            }
            Workload::RandomTokens { .. } => Box::new(CausalLm::new(architecture)),
        }
    }
}

fn to_tch(name: DeviceName) -> Device {
    match name {
        DeviceName::Cpu => Device::Cpu,
        DeviceName::Cuda(index) => Device::Cuda(index),
    }
}

/// The device by name, if this process has it.
fn device(name: DeviceName, key: &'static str) -> Result<Device, BlueprintError> {
    if let DeviceName::Cuda(index) = name {
        let found = tch::Cuda::device_count();
        if index as i64 >= found {
            return Err(BlueprintError::NoDevice { key, device: name, found });
        }
    }
    Ok(to_tch(name))
}
