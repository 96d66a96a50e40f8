//! Everything that a config and its data determine before the first actor starts.

mod error;
mod origin;
mod workload;

use std::sync::Arc;

use tch::{Device, Kind};
use tokenizers::Tokenizer;

use crate::checkpoint::Fingerprint;
use crate::config::{Config, DeviceName, DtypeName};
use crate::cost::CostPlan;
use crate::data::{self, ClientData, Holdings, Prepared, Prompts, UserSplit};
use crate::ids::ClientId;
use crate::model::backbone::Backbone;
use crate::model::cut::{Cut, Place};
use crate::model::layout::Layout;
use crate::model::pretrained::PretrainedError;
use crate::model::rope::RopeTable;
use crate::model::slice::Digest;
use crate::model::spec::BaseWeights;
use crate::model::start::StartingPoint;
use crate::ranking::HistoryInputs;
use crate::split::{FrameLimits, Stage};
use crate::training::{Examples, ItemTable, RandomTokens};
use origin::{adapter, starting_point};
use workload::{Histories, ItemView, Workload};

pub use error::BlueprintError;

/// A run before it starts.
#[derive(Debug)]
pub struct Blueprint {
    /// The resolved config.
    pub config: Config,
    /// Name of the data set.
    pub dataset: String,
    /// Tensors by place.
    pub layout: Arc<Layout>,
    /// Where the base and the first adapters come from.
    pub start: StartingPoint,
    workload: Workload,
}

impl Blueprint {
    /// Reads the data of a config, puts users on clients and opens what the model starts from.
    pub fn new(config: Config) -> Result<Self, BlueprintError> {
        Self::holding(config, Holdings::All)
    }

    /// The same where every client has its own data and this process is to have these.
    pub fn holding(config: Config, holdings: Holdings) -> Result<Self, BlueprintError> {
        let prepared = data::prepare(&config, holdings)?;
        config.validate_clients(prepared.count)?;
        let rows = prepared.rows(&config)?;
        let Prepared { loaded, clients, count, .. } = prepared;
        let start = starting_point(&config)?;
        let catalogue = &loaded.dataset.catalogue;
        let (items, tokenizer) = ItemView::new(catalogue, &config, start.checkpoint())?;
        let clients = clients.into_iter().map(|data| (data.client, Arc::new(data))).collect();
        let tokenizer = Box::new(tokenizer);
        let workload = Workload::Histories(Histories { clients, count, rows, items, tokenizer });
        Self::finish(config, loaded.dataset.name, workload, start)
    }

    /// A run of `clients` clients on random tokens with a causal language-model loss.
    pub fn random_tokens(
        config: Config,
        clients: u32,
        tokens: RandomTokens,
    ) -> Result<Self, BlueprintError> {
        let workload = Workload::RandomTokens { clients, tokens };
        let start = StartingPoint::random(config.run.seed);
        Self::finish(config, "random tokens".to_owned(), workload, start)
    }

    fn finish(
        config: Config,
        dataset: String,
        workload: Workload,
        start: StartingPoint,
    ) -> Result<Self, BlueprintError> {
        device(config.runtime.client_device, "runtime.client_device")?;
        device(config.runtime.shard_device, "runtime.shard_device")?;
        let architecture = workload.architecture(&config, start.checkpoint());
        config.validate_layers(architecture.layers)?;
        let cut = Cut::new(architecture.layers, &config.split);
        let backbone = workload.backbone(&architecture, Device::Cpu);
        let mode = config.model.trainable;
        let layout = Layout::new(&architecture, mode, &config.lora, cut, backbone.as_ref());
        let start = start.adapted(adapter(&config, &layout)?);
        let blueprint = Self { config, dataset, layout: Arc::new(layout), start, workload };
        blueprint.check_table_traffic()?;
        Ok(blueprint)
    }

    /// Before anything is sent: what one item table costs is known from the texts alone.
    fn check_table_traffic(&self) -> Result<(), BlueprintError> {
        let Some(bytes) = self.table_traffic() else { return Ok(()) };
        let (needed_mib, allowed_mib) =
            (bytes.div_ceil(1 << 20), self.config.recformer.table_traffic_mib);
        if needed_mib <= allowed_mib {
            return Ok(());
        }
        let items = self.candidates();
        Err(BlueprintError::TableTraffic { items, needed_mib, allowed_mib })
    }

    /// Bytes that encoding the item table once sends over the cut, both ways together; `None` for
    /// backbones without one.
    pub fn table_traffic(&self) -> Option<u64> {
        let position_bytes =
            self.layout.architecture.hidden as u64 * self.kind().elt_size_in_bytes() as u64;
        let stages = self.layout.cut.stages().len();
        Some(self.item_table()?.traffic(stages, position_bytes))
    }

    /// How the candidates are encoded, where they are not part of the model.
    pub fn item_table(&self) -> Option<ItemTable> {
        self.workload.item_table(&self.config)
    }

    /// How histories enter the model; `None` where they enter as prompts, or where there are none.
    pub fn inputs(&self) -> Option<HistoryInputs> {
        self.workload.inputs(&self.config)
    }

    /// Clients in id order.
    pub fn clients(&self) -> Vec<ClientId> {
        (0..self.workload.clients()).map(ClientId).collect()
    }

    /// A client's users; none on random tokens, or where the client has them for itself.
    pub fn client_data(&self, client: ClientId) -> Option<Arc<ClientData>> {
        self.workload.client_data(client).map(Arc::clone)
    }

    /// Whether a user's training items are trained on, as far as there are enough of them.
    pub fn trains_on(&self, user: &UserSplit) -> bool {
        self.workload.trains_on(user)
    }

    /// Positions of one epoch: how long a client computes, in relation to the others.
    pub fn training_load(&self, client: ClientId) -> usize {
        self.workload.training_load(client, &self.config)
    }

    /// Items or tokens that are scored at a position.
    pub fn candidates(&self) -> u64 {
        self.workload.candidates()
    }

    /// A client's training rows.
    pub fn examples(&self, client: ClientId) -> Box<dyn Examples> {
        self.workload.examples(client, &self.config)
    }

    /// What the catalogue's text became tokens by; `None` for random tokens.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.workload.tokenizer()
    }

    /// SHA-256 of the tokenizer's file; `None` for random tokens.
    pub fn tokenizer_digest(&self) -> Option<String> {
        let text = self.tokenizer()?.to_string(false).expect("a tokenizer is plain data");
        Some(Digest::of(text.as_bytes()).to_string())
    }

    /// Prompts over the catalogue, where the backbone writes titles.
    pub fn prompts(&self) -> Option<&Arc<Prompts>> {
        self.workload.prompts()
    }

    /// Digest of all that the embeddings of the catalogue depend on.
    ///
    /// # Errors
    /// The checkpoint could not be read.
    pub fn catalogue_key(&self, prompts: &Prompts) -> Result<Digest, PretrainedError> {
        let base = match self.start.digest()? {
            Some(digest) => digest.to_string(),
            None => format!("{:?} drawn from {}", self.layout.architecture, self.config.run.seed),
        };
        let mut text = format!("fellrec embeddings 1\n{base}\n{:?}\n", self.config.runtime.dtype);
        for title in prompts.titles() {
            let ids = prompts.text_ids(title).unwrap_or_default();
            text.push_str(&format!("{title:?} {ids:?}\n"));
        }
        Ok(Digest::of(text.as_bytes()))
    }

    /// The ends of the model on a device.
    pub fn backbone(&self, device: Device) -> Box<dyn Backbone> {
        self.workload.backbone(&self.layout.architecture, device)
    }

    /// The frozen base of these places on a device; one copy a process.
    ///
    /// # Errors
    /// A tensor of the checkpoint could not be read.
    pub fn base(&self, places: &[Place], device: Device) -> Result<BaseWeights, PretrainedError> {
        self.layout.frozen_base(places, &self.start, self.kind(), device)
    }

    /// Rotary tables for the longest input, on a device.
    pub fn rope(&self, device: Device) -> RopeTable {
        let length = self.workload.longest_input(&self.config);
        RopeTable::of(&self.layout.architecture, length, self.kind(), device)
    }

    /// A stage with its frozen base and rotary tables, which both are on the shards' device.
    pub fn stage(&self, place: Place, base: BaseWeights, rope: RopeTable) -> Stage {
        Stage {
            layout: Arc::clone(&self.layout),
            place,
            base,
            rope,
            limits: self.frame_limits(),
            run_seed: self.config.run.seed,
            recompute: self.config.runtime.recompute,
        }
    }

    /// The largest hidden states that the config makes a client send.
    fn frame_limits(&self) -> FrameLimits {
        let Config { training, evaluation, recformer, generation, .. } = &self.config;
        let rows = training.batch.max(evaluation.batch).get().max(recformer.table_batch);
        let beams = self.prompts().map_or(1, |_| generation.beams.get());
        FrameLimits {
            width: self.layout.architecture.hidden,
            kind: self.kind(),
            rows: i64::from(rows) * i64::from(beams),
            positions: self.workload.longest_input(&self.config),
        }
    }

    /// Device of the clients.
    pub fn client_device(&self) -> Device {
        self.config.runtime.client_device.into()
    }

    /// Device of the shards.
    pub fn shard_device(&self) -> Device {
        self.config.runtime.shard_device.into()
    }

    /// What a client needs under the split and alone.
    pub fn cost_plan(&self) -> CostPlan {
        let element = self.kind().elt_size_in_bytes() as u64;
        CostPlan::new(&self.layout, self.candidates() as i64, element, &self.config.training)
    }

    /// What the bits of the run depend on.
    ///
    /// # Errors
    /// The config cannot be hashed, or the checkpoint not be read.
    pub fn fingerprint(&self) -> Result<Fingerprint, BlueprintError> {
        let runtime = &self.config.runtime;
        Ok(Fingerprint {
            product: env!("CARGO_PKG_VERSION").to_owned(),
            libtorch: TORCH_VERSION.to_owned(),
            cpu: cpu_capability().to_owned(),
            intra_op_threads: 1,
            devices: vec![runtime.client_device.to_string(), runtime.shard_device.to_string()],
            dtype: format!("{:?}", runtime.dtype).to_lowercase(),
            config: self.config.hash()?,
            base: self.start.digest()?,
            adapter: self.start.adapter_digest()?,
        })
    }

    /// Number type of frozen weights and activations.
    pub fn kind(&self) -> Kind {
        self.config.runtime.dtype.into()
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

impl From<DtypeName> for Kind {
    fn from(name: DtypeName) -> Self {
        match name {
            DtypeName::F32 => Self::Float,
            DtypeName::Bf16 => Self::BFloat16,
        }
    }
}

impl From<DeviceName> for Device {
    fn from(name: DeviceName) -> Self {
        match name {
            DeviceName::Cpu => Self::Cpu,
            DeviceName::Cuda(index) => Self::Cuda(index),
        }
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
    Ok(name.into())
}
