//! Nodes that can crash, and what lies between them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use fellrec::ids::ClientId;
use fellrec::seed;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::sleep;

/// A sender tries again after so long without an answer. Unit: virtual milliseconds.
const RETRY_MS: u64 = 400;

/// Name of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeId {
    Client(ClientId),
    Shard(usize),
    Aggregator,
    Supervisor,
}

/// What the network does to a message.
#[derive(Clone, Copy, Debug)]
pub struct Chaos {
    /// Seed of all its draws.
    pub seed: u64,
    /// Longest ordinary delay. Unit: virtual milliseconds.
    pub delay_ms: u64,
    /// Share of messages that arrive seconds later, long after they were sent again.
    pub straggle: f64,
    /// Share of messages that arrive twice.
    pub duplicate: f64,
    /// Share of messages, and of answers, that never arrive.
    pub loss: f64,
}

impl Default for Chaos {
    /// A quiet network.
    fn default() -> Self {
        Self { seed: 0, delay_ms: 1, straggle: 0.0, duplicate: 0.0, loss: 0.0 }
    }
}

impl Chaos {
    /// Everything at once.
    pub fn wild(seed: u64) -> Self {
        Self { seed, delay_ms: 60, straggle: 0.1, duplicate: 0.3, loss: 0.1 }
    }
}

/// A crash: the node loses what it has in memory and starts again from its store.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Who.
    pub node: NodeId,
    /// At which of the messages that reach it, from 0.
    pub message: u64,
    /// Before it acts on that message, or after it did but before anyone hears of it.
    pub moment: Moment,
    /// Until it is back. Unit: virtual milliseconds.
    pub down_ms: u64,
}

/// When a crash strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    Before,
    After,
}

/// The network of one run.
pub struct Network {
    chaos: Chaos,
    faults: Vec<Fault>,
    rng: RefCell<ChaCha8Rng>,
    deliveries: RefCell<BTreeMap<NodeId, u64>>,
    crashes: Cell<u32>,
    stamps: Cell<u64>,
}

impl Network {
    pub fn new(chaos: Chaos, faults: Vec<Fault>) -> Self {
        Self {
            chaos,
            faults,
            rng: RefCell::new(seed::rng(chaos.seed, "test network", &[])),
            deliveries: RefCell::default(),
            crashes: Cell::default(),
            stamps: Cell::default(),
        }
    }

    /// A number higher than any before: tells sessions and lives apart, as a clock or a
    /// compare-and-set store would.
    pub fn stamp(&self) -> u64 {
        self.stamps.set(self.stamps.get() + 1);
        self.stamps.get()
    }

    pub fn deliveries(&self) -> BTreeMap<NodeId, u64> {
        self.deliveries.borrow().clone()
    }

    pub fn crashes(&self) -> u32 {
        self.crashes.get()
    }

    fn chance(&self, probability: f64) -> bool {
        probability > 0.0 && self.rng.borrow_mut().random_bool(probability)
    }

    /// When a message arrives; `None` if it does not.
    fn delay(&self) -> Option<Duration> {
        if self.chance(self.chaos.loss) {
            return None;
        }
        let longest = if self.chance(self.chaos.straggle) { 4000 } else { self.chaos.delay_ms };
        Some(Duration::from_millis(self.rng.borrow_mut().random_range(1..=longest.max(1))))
    }

    /// Arrivals of one message: none, one or two.
    fn arrivals(&self) -> Vec<Duration> {
        let copies = if self.chance(self.chaos.duplicate) { 2 } else { 1 };
        (0..copies).filter_map(|_| self.delay()).collect()
    }

    /// Counts a message that reaches a node and says whether the node crashes on it.
    fn fate(&self, node: NodeId) -> Option<Fault> {
        let mut deliveries = self.deliveries.borrow_mut();
        let count = deliveries.entry(node).or_default();
        let message = *count;
        *count += 1;
        let mut faults = self.faults.iter();
        let fault = faults.find(|fault| fault.node == node && fault.message == message).copied();
        self.crashes.set(self.crashes.get() + u32::from(fault.is_some()));
        fault
    }
}

/// A place on the network and, while it is up, the node that sits there.
pub struct Node<N>(Rc<Seat<N>>);

struct Seat<N> {
    id: NodeId,
    network: Rc<Network>,
    state: RefCell<Option<N>>,
    start: RefCell<Option<Rc<dyn Fn() -> N>>>,
}

impl<N> Clone for Node<N> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<N: 'static> Node<N> {
    /// An empty place.
    pub fn new(id: NodeId, network: &Rc<Network>) -> Self {
        let network = Rc::clone(network);
        Self(Rc::new(Seat { id, network, state: RefCell::new(None), start: RefCell::new(None) }))
    }

    /// Starts the node; `start` makes it from its store, now and after every crash.
    pub fn start(&self, start: impl Fn() -> N + 'static) {
        let start: Rc<dyn Fn() -> N> = Rc::new(start);
        *self.0.state.borrow_mut() = Some(start());
        *self.0.start.borrow_mut() = Some(start);
    }

    /// Ends it for good.
    pub fn stop(&self) {
        *self.0.start.borrow_mut() = None;
        drop(self.0.state.take());
    }

    /// Looks at the node from one of its own tasks, which end with it.
    pub fn with<R>(&self, look: impl FnOnce(&mut N) -> R) -> R {
        look(self.0.state.borrow_mut().as_mut().expect("a task ends with its node"))
    }

    /// Sends a message until an answer comes. A message is what it does to the receiver: a
    /// message that arrives twice does it twice.
    pub async fn call<R: 'static>(&self, message: impl Fn(&mut N) -> R + 'static) -> R {
        let message = Rc::new(message);
        let (answer, mut answers) = mpsc::unbounded_channel();
        loop {
            for arrival in self.0.network.arrivals() {
                let (node, message, answer) = (self.clone(), Rc::clone(&message), answer.clone());
                spawn_local(async move {
                    sleep(arrival).await;
                    let Some(done) = node.deliver(message.as_ref()) else { return };
                    let Some(delay) = node.0.network.delay() else { return };
                    sleep(delay).await;
                    // Nobody waits for it any more if an earlier copy was answered.
                    let _ = answer.send(done);
                });
            }
            tokio::select! {
                biased;
                Some(done) = answers.recv() => return done,
                () = sleep(Duration::from_millis(RETRY_MS)) => {}
            }
        }
    }

    /// Sends a message once and expects nothing.
    pub fn tell(&self, message: impl Fn(&mut N) + 'static) {
        let node = self.clone();
        spawn_local(async move {
            if let Some(arrival) = node.0.network.delay() {
                sleep(arrival).await;
                node.deliver(&message);
            }
        });
    }

    /// Hands a message over; `None` if the node is down or goes down on it.
    fn deliver<R>(&self, message: &dyn Fn(&mut N) -> R) -> Option<R> {
        if self.0.state.borrow().is_none() {
            return None;
        }
        let fate = self.0.network.fate(self.0.id);
        if let Some(fault) = fate.filter(|fault| fault.moment == Moment::Before) {
            self.crash(fault.down_ms);
            return None;
        }
        let answer = self.0.state.borrow_mut().as_mut().map(message);
        if let Some(fault) = fate {
            self.crash(fault.down_ms);
            return None;
        }
        answer
    }

    fn crash(&self, down_ms: u64) {
        drop(self.0.state.take());
        let node = self.clone();
        spawn_local(async move {
            sleep(Duration::from_millis(down_ms)).await;
            let start = node.0.start.borrow().clone();
            if let Some(start) = start {
                *node.0.state.borrow_mut() = Some(start());
            }
        });
    }
}
