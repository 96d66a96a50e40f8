//! The federation that the tests run: a tiny model on generated histories, stores on disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use fellrec::blueprint::Blueprint;
use fellrec::checkpoint::{CheckpointError, MemberStore, RoundManifest, RunStore, Skipped};
use fellrec::config::{Config, Layers, Loaded};
use fellrec::federation::member::{Member, Opening, Purpose};
use fellrec::federation::round::{FederationState, StateId};
use fellrec::federation::shared::SharedStore;
use fellrec::federation::track::Track;
use fellrec::ids::ClientId;
use fellrec::model::cut::Place;
use fellrec::model::rope::RopeTable;
use fellrec::model::slice::Digest;
use fellrec::model::spec::BaseWeights;
use fellrec::split::{ClientModel, ClientSettings, Stage};
use tch::Device;
use tempfile::TempDir;

const TINY: &[&str] = &[
    "data.synthetic.users=24",
    "data.synthetic.items=40",
    "data.synthetic.groups=3",
    "data.synthetic.mean_history=8",
    "clients.assignment=uniform",
    "clients.count=3",
    "model.hidden=16",
    "model.layers=4",
    "model.ffn=24",
    "model.vocab=300",
    "model.max_title_tokens=4",
    "model.max_history=8",
    "model.dropout=0.1",
    "lora.rank=4",
    "split.stages=[[1, 2], [2, 3]]",
    "training.batch=4",
    "training.max_steps=2",
    "optimizer.clip_norm=0.5",
    "federation.rounds=3",
    "checkpoint.fsync=false",
];

/// Everything a run starts from; the folder goes with it.
pub struct World {
    pub blueprint: Blueprint,
    base: BaseWeights,
    rope: RopeTable,
    temporary: Rc<TempDir>,
}

/// A federation that trains every parameter, with these keys set besides.
pub fn full(sets: &[&str]) -> Rc<World> {
    World::new("model.trainable=full", sets)
}

/// A federation that trains adapters, with these keys set besides.
pub fn lora(sets: &[&str]) -> Rc<World> {
    World::new("model.trainable=lora", sets)
}

impl World {
    fn new(trainable: &str, sets: &[&str]) -> Rc<Self> {
        let sets = TINY.iter().chain([&trainable]).chain(sets).map(|set| (*set).to_owned());
        let layers = Layers { sets: sets.collect(), ..Layers::default() };
        let config = Loaded::load(&layers).expect("the settings are legal").config;
        Self::within(Rc::new(temporary()), config)
    }

    /// The same federation, going on in a copy of this one's run folder.
    pub fn fork(&self) -> Rc<Self> {
        let folder = temporary();
        copy(self.folder(), folder.path());
        Self::within(Rc::new(folder), self.config().clone())
    }

    /// The same run folder under other settings, as after an edit of the config.
    pub fn with(&self, change: impl FnOnce(&mut Config)) -> Rc<Self> {
        let mut config = self.config().clone();
        change(&mut config);
        Self::within(Rc::clone(&self.temporary), config)
    }

    fn within(temporary: Rc<TempDir>, config: Config) -> Rc<Self> {
        tch::set_num_threads(1);
        let blueprint = Blueprint::new(config).expect("the generator makes data");
        let base = blueprint.base(&blueprint.layout.cut.places(), Device::Cpu).expect("drawn");
        let rope = blueprint.rope(Device::Cpu);
        Rc::new(Self { blueprint, base, rope, temporary })
    }

    /// What a shard of this stage computes with.
    pub fn stage(&self, place: Place) -> Stage {
        self.blueprint.stage(place, self.base.share(), self.rope.share())
    }

    pub fn config(&self) -> &Config {
        &self.blueprint.config
    }

    pub fn folder(&self) -> &Path {
        self.temporary.path()
    }

    pub fn clients(&self) -> Vec<ClientId> {
        self.blueprint.clients()
    }

    pub fn stages(&self) -> usize {
        self.blueprint.layout.cut.stages().len()
    }

    pub fn run_store(&self) -> RunStore {
        RunStore::new(self.folder().join("rounds"), self.config().checkpoint.fsync)
    }

    /// Front and back of a client.
    pub fn client_member(&self, client: ClientId) -> Member {
        self.member(&client_folder(client))
    }

    /// A client's slice of one stage, on storage that every replica of the stage reaches.
    pub fn stage_member(&self, stage: usize, client: ClientId) -> Member {
        self.member(&stage_folder(stage, client))
    }

    fn member(&self, name: &str) -> Member {
        let layout = Arc::clone(&self.blueprint.layout);
        let start = self.blueprint.start.clone();
        Member::new(self.store(name), self.shared_store(), layout, start, self.config())
    }

    /// Where the means rest.
    pub fn shared_store(&self) -> SharedStore {
        SharedStore::new(self.store(SHARED_FOLDER), self.config().optimizer.clone())
    }

    fn store(&self, name: &str) -> MemberStore {
        let config = self.config();
        MemberStore::new(self.folder().join(name), &config.optimizer, config.checkpoint.fsync)
    }

    /// Checks that every member holds what a manifest says.
    pub fn verify(&self, manifest: &RoundManifest) -> Result<(), CheckpointError> {
        let mut members = manifest.members.iter();
        members
            .try_for_each(|(name, receipt)| self.store(name).verify(receipt.round, &receipt.digest))
    }

    /// The newest commit that can be used, and those passed over.
    pub fn newest(&self) -> (Option<RoundManifest>, Vec<Skipped>) {
        self.run_store().newest(|manifest| self.verify(manifest))
    }

    /// Front and back of a client as of `base`, ready to train.
    pub fn client_model(
        &self,
        member: &Member,
        base: StateId,
    ) -> Result<ClientModel, CheckpointError> {
        let opening = Opening { track: Track::Global, base, purpose: Purpose::Training };
        let front = member.open(Place::Front, opening, Device::Cpu)?;
        let back = member.open(Place::Back, opening, Device::Cpu)?;
        Ok(ClientModel::new(
            self.blueprint.backbone(Device::Cpu),
            &self.blueprint.layout,
            self.base.share(),
            &self.rope,
            ClientSettings::of(self.config()),
            front,
            back,
        ))
    }

    /// Tensors, moments and step count of every place of a client, as text.
    pub fn describe(&self, client: ClientId, state: StateId) -> String {
        let places = self.blueprint.layout.cut.places();
        let parts = places.into_iter().map(|place| {
            let member = match place {
                Place::Stage(stage) => self.stage_member(stage, client),
                Place::Front | Place::Back => self.client_member(client),
            };
            let part =
                member.load(Track::Global, place, state).expect("a committed state can be loaded");
            let moments: Vec<String> = part
                .optimizer
                .moments()
                .iter()
                .map(|moments| fingerprint(moments).to_string())
                .collect();
            let steps = part.optimizer.steps();
            format!("{place:?} {} {steps} {}", part.slice.digest(), moments.join(" "))
        });
        parts.collect::<Vec<_>>().join("\n")
    }

    /// The oracle over every client's current state.
    pub fn digest(&self, state: &FederationState) -> Digest {
        let thetas = state.all_current().into_iter().map(|(client, current)| {
            format!("{client} of {}: {}", current.round, self.describe(client, current))
        });
        let patience = (&state.best, state.best_mean, state.without_gain, &state.heating);
        let text = format!("{}\n{patience:?}", thetas.collect::<Vec<_>>().join("\n"));
        Digest::of(text.as_bytes())
    }

    /// Files of a run, by path within it.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        walk(self.folder(), &mut |path| {
            found.push(path.strip_prefix(self.folder()).expect("a file of the folder").to_owned());
        });
        found.sort();
        found
    }

    /// Rounds that a member has on disk.
    pub fn rounds_on_disk(&self, member: &str) -> Vec<u64> {
        let prefix = Path::new(member);
        let of_member = self.files().into_iter().filter_map(|path| {
            let round = path.strip_prefix(prefix).ok()?.iter().next()?.to_str()?.to_owned();
            round.strip_prefix("round-")?.parse().ok()
        });
        let mut rounds: Vec<u64> = of_member.collect();
        rounds.dedup();
        rounds
    }
}

/// The store of the shared means within the run folder.
pub const SHARED_FOLDER: &str = "shared";

/// Whether a member's folder is one of this client's.
pub fn is_of(folder: &str, client: ClientId) -> bool {
    folder.rsplit('/').next().is_some_and(|name| name == client.0.to_string())
}

/// A client's store within the run folder.
pub fn client_folder(client: ClientId) -> String {
    format!("clients/{}", client.0)
}

/// The store of a client's slice of one stage within the run folder.
pub fn stage_folder(stage: usize, client: ClientId) -> String {
    format!("stages/{stage}/{}", client.0)
}

fn fingerprint(moments: &fellrec::training::Moments) -> Digest {
    use fellrec::model::slice::{NamedTensor, Slice};
    let named = |name: &str, tensor: &tch::Tensor| NamedTensor::new(name, tensor.shallow_clone());
    Slice::new(vec![named("first", &moments.first), named("second", &moments.second)]).digest()
}

/// In memory where the system offers that: runs make and remove thousands of files.
fn temporary() -> TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a temporary folder can be made")
}

fn walk(folder: &Path, visit: &mut dyn FnMut(&Path)) {
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("the entry can be read").path();
        if path.is_dir() { walk(&path, visit) } else { visit(&path) }
    }
}

fn copy(from: &Path, to: &Path) {
    walk(from, &mut |path| {
        let target = to.join(path.strip_prefix(from).expect("a file of the folder"));
        std::fs::create_dir_all(target.parent().expect("a file has a folder")).expect("writable");
        std::fs::copy(path, target).expect("writable");
    });
}

/// Receipts by member folder: what a manifest lists.
pub type Receipts = BTreeMap<String, fellrec::checkpoint::Receipt>;
