//! One member of a federation over nodes, as a process: its line to the broker, its actor, its heartbeats.
//!
//! A member that ends by a defect ends its process: whoever runs the node (`fellrec up`, systemd) starts it
//! again, and it goes on from its own store.

mod kit;
mod operator;
mod seat;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Handler};
use fellrec::blueprint::Blueprint;
use fellrec::federation::round::Attempt;
use fellrec::ids::{ClientId, ShardId};
use fellrec::split::wire;
use fellrec::told::chain;
use thiserror::Error;
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

pub use seat::SeatError;

pub use kit::{KIT_FILE, Kit, KitError, KitFile, TlsNames};
pub use operator::ask;

use seat::{FolderSeat, restore};

use crate::client::SupervisorPeers;
use crate::folder::RunFolder;
use crate::link::carried::Carried;
use crate::link::connection::DialError;
use crate::link::inlet::{Inlet, SupervisorInlet};
use crate::link::line::Line;
use crate::link::store::{Fence, FenceError, Held};
use crate::messages::Beat;
use crate::peer::{Peer, Takes};
use crate::recovery::{MemberEnded, Spawner, Staff};
use crate::registry::{MemberName, Registry};
use crate::supervisor::{BEAT, Door, Heard, Lookout};
use crate::system::{Apart, Federation, Launch, SystemError, answer_deadline, compute_threads};

/// Longest wait for the answer to one heartbeat.
const BEAT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a node ended.
#[derive(Debug, Error)]
pub enum NodeError {
    /// The broker cannot be reached, or refuses.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The run could not start.
    #[error(transparent)]
    System(Box<SystemError>),
    /// Another supervisor has the right, or the broker's store does not answer.
    #[error(transparent)]
    Fence(#[from] FenceError),
    /// The run folder cannot be used.
    #[error(transparent)]
    Seat(#[from] SeatError),
    /// The supervisor does not let it in.
    #[error("the supervisor does not let {member} in: {reason}")]
    Refused {
        /// Who.
        member: MemberName,
        /// Why, with both values.
        reason: String,
    },
    /// Its actor ended.
    #[error("{member} ended by a defect; started again it goes on from its last commit")]
    Ended {
        /// Who.
        member: MemberName,
    },
    /// The kit is of a member that the run does not have.
    #[error("the kit is {member}'s, and the run has {expected}")]
    NoSuchMember {
        /// Whose kit.
        member: MemberName,
        /// Who there is.
        expected: String,
    },
    /// The supervisor has not been heard of.
    #[error("the supervisor has not answered for {} s; is its node running?", after.as_secs())]
    NoSupervisor {
        /// How long.
        after: Duration,
    },
}

impl From<SystemError> for NodeError {
    fn from(error: SystemError) -> Self {
        Self::System(Box::new(error))
    }
}

/// Why a member is not needed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// The run is over.
    Over,
    /// An operator sent it away, and it finished what it had begun.
    SentAway,
}

/// What a node is started with.
pub struct Node {
    /// Who it is and how it reaches the broker.
    pub kit: Kit,
    /// The run's plan.
    pub blueprint: Arc<Blueprint>,
    /// Its own folder; replicas of a stage share one.
    pub folder: RunFolder,
    /// Drawn at the start.
    pub life: u64,
}

impl Node {
    fn door(&self) -> Result<Door, NodeError> {
        let fingerprint = self.blueprint.fingerprint().map_err(SystemError::from)?;
        Ok(Door::new(fingerprint, self.blueprint.tokenizer_digest()))
    }

    async fn dial(&self) -> Result<Line, NodeError> {
        let nodes = &self.blueprint.config.nodes;
        let dial = self.kit.dial(nodes.absence());
        Ok(Line::dial(dial, self.kit.run.clone(), self.kit.sealer(), self.life, nodes).await?)
    }

    /// Everybody else, by their stand-ins.
    fn registry(&self, line: &Line) -> Registry {
        let (me, replicas) = (self.kit.member, self.kit.replicas);
        let deadline = answer_deadline(&self.blueprint.config);
        let registry = Registry::new(deadline).introducing(line.introduce());
        for client in self.blueprint.clients() {
            if me != MemberName::Client(client) {
                registry.enter_client(client, 0, &line.stand_in(MemberName::Client(client)));
            }
        }
        for shard in shards(&self.blueprint, replicas) {
            if me != MemberName::Shard(shard) {
                registry.enter_shard(shard, 0, &line.stand_in(MemberName::Shard(shard)));
            }
        }
        if me != MemberName::Aggregator {
            registry.enter_aggregator(0, &line.stand_in(MemberName::Aggregator));
        }
        registry
    }

    /// Runs a client, a shard or the aggregator until the run is over. To be called within an actix system.
    ///
    /// # Errors
    /// Every [`NodeError`].
    pub async fn run(self) -> Result<Farewell, NodeError> {
        self.run_seeing(|_, _, _| ()).await
    }

    /// [`Node::run`] of a member that sees the others as `see` leaves them: how one is made that does not keep to
    /// the rules, to try what it can do.
    ///
    /// # Errors
    /// Every [`NodeError`].
    pub async fn run_seeing(
        self,
        see: impl FnOnce(&Line, &Registry, &mut SupervisorPeers),
    ) -> Result<Farewell, NodeError> {
        let member = self.kit.member;
        self.check_member()?;
        let line = self.dial().await?;
        let registry = Arc::new(self.registry(&line));
        let mut supervisor = self.supervisor(&line);
        see(&line, &registry, &mut supervisor);
        let (threads, _arbiters) = compute_threads(&self.blueprint);
        let staff = Staff {
            members: vec![member],
            replicas: self.kit.replicas,
            finder: Some(line.finder()),
            rule: None,
        };
        let (plan, folder) = (Arc::clone(&self.blueprint), self.folder.clone());
        let means = folder.shared_store(&plan.config);
        let mut spawner = Spawner::new(plan, folder, Arc::clone(&registry), threads, staff)
            .map_err(SystemError::from)?;
        let (ended, end) = oneshot::channel();
        let warden = Warden { ended: Some(ended) }.start();
        spawner.spawn_all(&warden.recipient(), &supervisor);
        let inlet = move || Inlet::new(member, Arc::clone(&registry), means.clone());
        line.serve(inlet).await?;
        info!(%member, broker = self.kit.broker, "serving");
        let door = self.door()?;
        tokio::select! {
            over = beat(&line, member, self.life, door, 10 * self.blueprint.config.nodes.absence()) => over,
            _ = end => Err(NodeError::Ended { member }),
        }
    }

    fn supervisor(&self, line: &Line) -> SupervisorPeers {
        let stand_in = line.stand_in(MemberName::Supervisor);
        let nodes = &self.blueprint.config.nodes;
        // Whoever reports a loss waits for the return of the lost.
        let deadline = Duration::from_secs(60) + nodes.absence() + nodes.lease();
        let name = MemberName::Supervisor;
        SupervisorPeers {
            ended: Peer::new(name, stand_in.recipient(), deadline),
            step_done: Peer::new(name, stand_in.recipient(), deadline),
            lost: Peer::new(name, stand_in.recipient(), deadline),
        }
    }

    fn check_member(&self) -> Result<(), NodeError> {
        let member = self.kit.member;
        let clients = self.blueprint.clients();
        let stages = self.blueprint.layout.cut.stages().len() as u32;
        let known = match member {
            MemberName::Client(client) => clients.contains(&client),
            MemberName::Shard(ShardId { stage, replica }) => {
                stage < stages && replica < self.kit.replicas
            }
            MemberName::Aggregator | MemberName::Supervisor => true,
            MemberName::Operator => false,
        };
        if known {
            return Ok(());
        }
        let (clients, replicas) = (clients.len(), self.kit.replicas);
        let expected = format!(
            "{} to {}, {stages} stages of {replicas} shards each, an aggregator and a supervisor",
            ClientId(0),
            ClientId(clients.saturating_sub(1) as u32)
        );
        Err(NodeError::NoSuchMember { member, expected })
    }

    /// Starts the supervisor, or goes on with its run. To be called within an actix system.
    ///
    /// # Errors
    /// There is no connection, or the run cannot start.
    pub async fn supervise(self, launch: Launch) -> Result<Federation, NodeError> {
        let mut seat = FolderSeat::take(&self.folder)?;
        let line = self.dial().await?;
        let registry = Arc::new(self.registry(&line));
        let config = &self.blueprint.config;
        let (run, patience) = (&self.kit.run, config.nodes.absence());
        let fence = Fence::take(line.control(), run, self.life, seat.before, patience).await?;
        seat.sign(self.life)?;
        // For as long as the process lives.
        std::mem::forget(seat);
        if !self.folder.config().exists()
            && let Some(commit) = fence.kept().await?
        {
            restore(&commit, &self.folder, config)?;
        }
        let first_attempt = fence.epoch().saturating_mul(Attempt::PER_SUPERVISOR);
        let (deterministic, absence) = (config.runtime.deterministic, config.nodes.absence());
        let lookout = Arc::new(Lookout::new(self.door()?, deterministic, absence));
        let keeper = Rc::new(Held(Arc::new(fence)));
        let replicas = self.kit.replicas;
        let apart = Apart { registry, lookout, replicas, keeper, first_attempt };
        let federation = Federation::start_apart(launch, apart)?;
        let (name, supervisor) = (MemberName::Supervisor, federation.supervisor());
        let deadline = Duration::from_secs(60) + absence;
        let inlet = SupervisorInlet {
            beat: Peer::new(name, supervisor.clone().recipient(), deadline),
            status: Peer::new(name, supervisor.clone().recipient(), deadline),
            drain: Peer::new(name, supervisor.clone().recipient(), deadline),
            tune: Peer::new(name, supervisor.clone().recipient(), deadline),
            peers: SupervisorPeers {
                ended: Peer::new(name, supervisor.clone().recipient(), deadline),
                step_done: Peer::new(name, supervisor.clone().recipient(), deadline),
                lost: Peer::new(name, supervisor.recipient(), deadline),
            },
        };
        line.serve(move || inlet.clone()).await?;
        info!(broker = self.kit.broker, "supervising");
        Ok(federation)
    }
}

fn shards(blueprint: &Blueprint, replicas: u32) -> impl Iterator<Item = ShardId> {
    let stages = blueprint.layout.cut.stages().len() as u32;
    (0..stages).flat_map(move |stage| (0..replicas).map(move |replica| ShardId { stage, replica }))
}

/// Tells the supervisor once a second that a member is alive, until the run is over.
async fn beat(
    line: &Line,
    member: MemberName,
    life: u64,
    door: Door,
    patience: Duration,
) -> Result<Farewell, NodeError> {
    let mut beats = interval(BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut introduce, mut heard) = (true, tokio::time::Instant::now());
    loop {
        beats.tick().await;
        let message = Beat { member, life, door: introduce.then(|| door.now()) };
        let frame = wire::encode(&message).expect("a heartbeat is plain data");
        let call = line.caller().call(MemberName::Supervisor, Beat::LANE, Beat::NAME, frame);
        let answer = match timeout(BEAT_TIMEOUT, call).await {
            Ok(Ok(answer)) => wire::decode::<Heard>(&answer).map_err(|error| chain(&error)),
            Ok(Err(error)) => Err(chain(&error)),
            Err(_) => Err("no answer".to_owned()),
        };
        match answer {
            Ok(Heard::Welcome) if introduce => {
                info!(%member, "let in");
                introduce = false;
            }
            Ok(Heard::Welcome) => {}
            Ok(Heard::Introduce) => introduce = true,
            Ok(Heard::Refused(reason)) => return Err(NodeError::Refused { member, reason }),
            Ok(Heard::Drain) => line.take_no_sessions(),
            Ok(Heard::Leave) => return Ok(Farewell::SentAway),
            Ok(Heard::Over) => return Ok(Farewell::Over),
            Err(cause) if heard.elapsed() > patience => {
                warn!(cause, "the supervisor does not answer");
                return Err(NodeError::NoSupervisor { after: patience });
            }
            Err(cause) => {
                warn!(cause, "the supervisor does not answer");
                // The client library tries to come back for ever, also where it is no longer let in.
                line.check_admission().await?;
                continue;
            }
        }
        heard = tokio::time::Instant::now();
    }
}

/// Hears of the end of the node's own actor.
struct Warden {
    ended: Option<oneshot::Sender<()>>,
}

impl Actor for Warden {
    type Context = Context<Self>;
}

impl Handler<MemberEnded> for Warden {
    type Result = ();

    fn handle(&mut self, _message: MemberEnded, _ctx: &mut Self::Context) {
        if let Some(ended) = self.ended.take() {
            // The node is ending already.
            let _ = ended.send(());
        }
    }
}
