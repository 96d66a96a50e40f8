//! Starts actors and starts them again: actix does not restart what panicked.
//!
//! A successor is made by the same factory as its predecessor and holds nothing; it finds its state
//! in the store of the last commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix::{Actor, ArbiterHandle, Message, Recipient};
use fellrec::blueprint::Blueprint;
use fellrec::federation::mixing::{Mixer, MixingRule, Robust, rule_of_run};
use fellrec::ids::{ClientId, ShardId};
use fellrec::model::backbone::Backbone;
use fellrec::model::cut::Place;
use fellrec::model::pretrained::PretrainedError;
use fellrec::model::rope::RopeTable;
use fellrec::model::spec::BaseWeights;
use tokio::sync::Semaphore;

use crate::aggregator::{Aggregator, AggregatorSeat};
use crate::client::{Client, ClientSeat, SupervisorPeers};
use crate::folder::RunFolder;
use crate::registry::{FindShard, MemberName, Registry};
use crate::shard::{ServerShard, ShardSeat};

/// An actor ended. From: its own [`Obituary`], whatever the reason.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct MemberEnded {
    /// Who.
    pub member: MemberName,
    /// Which life of it.
    pub generation: u64,
}

/// Part of every actor: reports its end when it is dropped, as a panic does too.
pub struct Obituary {
    ended: MemberEnded,
    supervisor: Recipient<MemberEnded>,
}

impl Drop for Obituary {
    fn drop(&mut self) {
        // A supervisor that is gone or full learns of it from the next one who asks in vain.
        let _ = self.supervisor.try_send(self.ended);
    }
}

/// A thread that computes, and the right to start a step on it.
pub struct ComputeThread {
    /// Its event loop.
    pub arbiter: ArbiterHandle,
    /// Steps that may be in flight here.
    pub permits: Arc<Semaphore>,
}

/// Makes a mixing rule; called again when the aggregator is restarted. A rule of one's own mixes in
/// every round: `mixing.fine_tune_rounds` is the configured rules'.
pub type RuleFactory = Box<dyn Fn() -> Box<dyn MixingRule>>;

/// Factories of the members of this process, and the count of their lives.
pub struct Spawner {
    blueprint: Arc<Blueprint>,
    folder: RunFolder,
    registry: Arc<Registry>,
    threads: Vec<ComputeThread>,
    rule: RuleFactory,
    finder: Option<Arc<dyn FindShard>>,
    seats: BTreeMap<ClientId, usize>,
    replicas: u32,
    members: Vec<MemberName>,
    ends: Option<SharedEnds>,
    stages: BTreeMap<u32, BaseWeights>,
    shard_rope: RopeTable,
    lives: BTreeMap<MemberName, u64>,
}

/// What all clients of a process share.
struct SharedEnds {
    base: BaseWeights,
    rope: RopeTable,
    backbone: Box<dyn Backbone>,
}

/// Who runs in a process.
pub struct Staff {
    /// Members, those who are asked before those who ask.
    pub members: Vec<MemberName>,
    /// Replicas of each stage, wherever they run.
    pub replicas: u32,
    /// Finds them, where they run on other nodes.
    pub finder: Option<Arc<dyn FindShard>>,
    /// A mixing rule of one's own instead of the configured one.
    pub rule: Option<RuleFactory>,
}

impl Staff {
    /// Everybody, as in a simulation on `threads` threads.
    pub fn everybody(blueprint: &Blueprint, threads: usize, rule: Option<RuleFactory>) -> Self {
        let replicas = blueprint.config.split.replicas.get().unwrap_or(threads as u32).max(1);
        let stages = blueprint.layout.cut.stages().len() as u32;
        let shards = (0..stages)
            .flat_map(|stage| (0..replicas).map(move |replica| ShardId { stage, replica }));
        let members = std::iter::once(MemberName::Aggregator)
            .chain(shards.map(MemberName::Shard))
            .chain(blueprint.clients().into_iter().map(MemberName::Client));
        Self { members: members.collect(), replicas, finder: None, rule }
    }
}

impl Spawner {
    /// Loads what the members share of the base, and nothing else, and deals the clients out to `threads`.
    ///
    /// # Errors
    /// A tensor of the checkpoint could not be read.
    pub fn new(
        blueprint: Arc<Blueprint>,
        folder: RunFolder,
        registry: Arc<Registry>,
        threads: Vec<ComputeThread>,
        staff: Staff,
    ) -> Result<Self, PretrainedError> {
        let (client_device, shard_device) = (blueprint.client_device(), blueprint.shard_device());
        let Staff { members, replicas, finder, rule } = staff;
        let mut ends = None;
        let (mut stages, mut clients) = (BTreeMap::new(), Vec::new());
        for member in &members {
            match member {
                MemberName::Client(client) => clients.push(*client),
                MemberName::Shard(ShardId { stage, .. }) if !stages.contains_key(stage) => {
                    let places = [Place::Stage(*stage as usize)];
                    stages.insert(*stage, blueprint.base(&places, shard_device)?);
                }
                _ => {}
            }
        }
        if !clients.is_empty() {
            ends = Some(SharedEnds {
                base: blueprint.base(&[Place::Front, Place::Back], client_device)?,
                rope: blueprint.rope(client_device),
                backbone: blueprint.backbone(client_device),
            });
        }
        let (mixing, rounds) =
            (blueprint.config.mixing.clone(), blueprint.config.federation.rounds);
        Ok(Self {
            seats: deal(&blueprint, clients, threads.len()),
            shard_rope: blueprint.rope(shard_device),
            rule: rule.unwrap_or_else(|| Box::new(move || rule_of_run(&mixing, rounds))),
            lives: BTreeMap::new(),
            members,
            ends,
            stages,
            finder,
            replicas,
            blueprint,
            folder,
            registry,
            threads,
        })
    }

    /// Starts everybody, in the order of the staff.
    pub fn spawn_all(&mut self, ended: &Recipient<MemberEnded>, supervisor: &SupervisorPeers) {
        for member in self.members.clone() {
            self.spawn(member, ended, supervisor);
        }
    }

    /// Starts a member, the first time or again, and enters it into the registry.
    pub fn spawn(
        &mut self,
        member: MemberName,
        ended: &Recipient<MemberEnded>,
        supervisor: &SupervisorPeers,
    ) {
        let lives = self.lives.entry(member).or_insert(0);
        let generation = *lives;
        *lives += 1;
        let obituary =
            Obituary { ended: MemberEnded { member, generation }, supervisor: ended.clone() };
        match member {
            MemberName::Client(client) => {
                self.spawn_client(client, generation, obituary, supervisor.clone());
            }
            MemberName::Shard(shard) => self.spawn_shard(shard, generation, obituary),
            MemberName::Aggregator => self.spawn_aggregator(generation, obituary),
            MemberName::Supervisor | MemberName::Operator => {}
        }
    }

    /// Lives that a member has had.
    pub fn lives(&self, member: MemberName) -> u64 {
        self.lives.get(&member).copied().unwrap_or(0)
    }

    /// Stops all compute threads after what they are doing.
    pub fn stop(&self) {
        for thread in &self.threads {
            thread.arbiter.stop();
        }
    }

    fn spawn_client(
        &self,
        id: ClientId,
        generation: u64,
        obituary: Obituary,
        supervisor: SupervisorPeers,
    ) {
        let thread = self.seats[&id];
        let ends = self.ends.as_ref().expect("loaded for every process that has clients");
        let seat = ClientSeat {
            id,
            blueprint: Arc::clone(&self.blueprint),
            base: ends.base.share(),
            rope: ends.rope.share(),
            backbone: ends.backbone.share(),
            // The replica on the client's own thread: one core computes one step from end to end.
            replica: thread as u32 % self.replicas,
            replicas: self.replicas,
            finder: self.finder.clone(),
            permits: Arc::clone(&self.threads[thread].permits),
            folder: self.folder.clone(),
            registry: Arc::clone(&self.registry),
            supervisor,
            obituary,
        };
        let arbiter = &self.threads[thread].arbiter;
        let addr = Client::start_in_arbiter(arbiter, move |_ctx| Client::new(seat));
        self.registry.enter_client(id, generation, &addr);
    }

    fn spawn_shard(&self, id: ShardId, generation: u64, obituary: Obituary) {
        let (base, rope) = (self.stages[&id.stage].share(), self.shard_rope.share());
        let seat = ShardSeat {
            id,
            blueprint: Arc::clone(&self.blueprint),
            stage: self.blueprint.stage(Place::Stage(id.stage as usize), base, rope),
            folder: self.folder.clone(),
            registry: Arc::clone(&self.registry),
            obituary,
        };
        let thread = &self.threads[id.replica as usize % self.threads.len()];
        let addr =
            ServerShard::start_in_arbiter(&thread.arbiter, move |_ctx| ServerShard::new(seat));
        self.registry.enter_shard(id, generation, &addr);
    }

    fn spawn_aggregator(&self, generation: u64, obituary: Obituary) {
        let seat = AggregatorSeat {
            layout: Arc::clone(&self.blueprint.layout),
            mixer: Mixer::new((self.rule)(), Robust::of(&self.blueprint.config.mixing)),
            shared: self.folder.shared_store(&self.blueprint.config),
            screening: self.blueprint.config.screening.clone(),
            registry: Arc::clone(&self.registry),
            obituary,
        };
        let addr = Aggregator::start_in_arbiter(&self.threads[0].arbiter, move |_ctx| {
            Aggregator::new(seat)
        });
        self.registry.enter_aggregator(generation, &addr);
    }
}

/// Deals clients out to threads, the largest first, each to the thread with the least to do.
fn deal(
    blueprint: &Blueprint,
    clients: Vec<ClientId>,
    threads: usize,
) -> BTreeMap<ClientId, usize> {
    let mut clients: Vec<(usize, ClientId)> =
        clients.into_iter().map(|client| (blueprint.training_load(client), client)).collect();
    clients.sort_by_key(|(load, client)| (std::cmp::Reverse(*load), *client));
    let mut loads = vec![0; threads];
    let mut seats = BTreeMap::new();
    for (load, client) in clients {
        let thread = (0..threads).min_by_key(|thread| loads[*thread]).unwrap_or(0);
        loads[thread] += load.max(1);
        seats.insert(client, thread);
    }
    seats
}
