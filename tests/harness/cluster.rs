//! All nodes of one run.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use fellrec::checkpoint::Skipped;
use fellrec::federation::round::{FederationState, Outcome};
use tokio::runtime::Builder;
use tokio::sync::Notify;
use tokio::task::LocalSet;
use tokio::time::timeout;

use super::aggregator::Aggregator;
use super::client::Client;
use super::network::{Network, Node, NodeId};
use super::shard::Shard;
use super::supervisor::Supervisor;
use super::{RunEnd, Scenario, World};

/// A run that is not over by then hangs. Unit: virtual time.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// Everyone's address, and what the test wants to know afterwards.
pub struct Cluster {
    pub world: Rc<World>,
    pub scenario: Scenario,
    pub network: Rc<Network>,
    pub clients: Vec<Node<Client>>,
    pub shards: Vec<Node<Shard>>,
    pub aggregator: Node<Aggregator>,
    pub supervisor: Node<Supervisor>,
    pub log: RefCell<RunEnd>,
    /// Supervisors so far.
    pub lives: Cell<u32>,
    over: Notify,
}

impl Cluster {
    fn new(world: &Rc<World>, scenario: &Scenario) -> Rc<Self> {
        let network = Rc::new(Network::new(scenario.chaos, scenario.faults.clone()));
        let clients = world.clients().into_iter().map(NodeId::Client);
        let shards = (0..world.stages()).map(NodeId::Shard);
        Rc::new(Self {
            world: Rc::clone(world),
            scenario: scenario.clone(),
            clients: clients.map(|id| Node::new(id, &network)).collect(),
            shards: shards.map(|id| Node::new(id, &network)).collect(),
            aggregator: Node::new(NodeId::Aggregator, &network),
            supervisor: Node::new(NodeId::Supervisor, &network),
            log: RefCell::new(RunEnd::open(world)),
            lives: Cell::new(0),
            over: Notify::new(),
            network,
        })
    }

    fn start(self: &Rc<Self>) {
        let cluster = || Rc::clone(self);
        for (node, id) in self.clients.iter().zip(self.world.clients()) {
            let cluster = cluster();
            node.start(move || Client::new(Rc::clone(&cluster), id));
        }
        for (stage, node) in self.shards.iter().enumerate() {
            let cluster = cluster();
            node.start(move || Shard::new(Rc::clone(&cluster), stage));
        }
        let of = cluster();
        self.aggregator.start(move || Aggregator::new(Rc::clone(&of)));
        let of = cluster();
        self.supervisor.start(move || Supervisor::new(Rc::clone(&of)));
    }

    fn stop(&self) {
        self.clients.iter().for_each(Node::stop);
        self.shards.iter().for_each(Node::stop);
        self.aggregator.stop();
        self.supervisor.stop();
    }

    /// Ends the run.
    pub fn finish(&self, outcome: Result<Outcome, String>, state: &FederationState) {
        let mut log = self.log.borrow_mut();
        log.outcome = outcome;
        log.state = state.clone();
        self.over.notify_one();
    }
}

impl RunEnd {
    fn open(world: &World) -> Self {
        let state = FederationState::initial(&world.clients(), world.config().heating.clone());
        Self {
            outcome: Err("it hangs".to_owned()),
            digest: world.digest(&state),
            state,
            commits: Vec::new(),
            opened: Vec::new(),
            evaluated: Vec::new(),
            skipped: Vec::new(),
            replays: 0,
            deliveries: Default::default(),
            crashes: 0,
        }
    }

    /// Notes what a starting supervisor could not use.
    pub fn skip(&mut self, skipped: Vec<Skipped>) {
        self.skipped.extend(skipped.into_iter().map(|s| (s.round, s.error.to_string())));
    }
}

/// Runs a federation from what its folder holds to its end.
pub fn run(world: &Rc<World>, scenario: &Scenario) -> RunEnd {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime of one thread can be made");
    let cluster = Cluster::new(world, scenario);
    LocalSet::new().block_on(&runtime, async {
        cluster.start();
        // A hang shows in the outcome.
        let _ = timeout(PATIENCE, cluster.over.notified()).await;
        cluster.stop();
    });
    let empty = RunEnd::open(world);
    let end = cluster.log.replace(empty);
    RunEnd {
        digest: world.digest(&end.state),
        deliveries: cluster.network.deliveries(),
        crashes: cluster.network.crashes(),
        ..end
    }
}
