//! Starts a federation in this process and ends it: threads, spawn order, graceful stop.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, Arbiter};
use fellrec::blueprint::{Blueprint, BlueprintError};
use fellrec::checkpoint::{CheckpointError, Receipt, RoundManifest};
use fellrec::config::{Config, ConfigError};
use fellrec::federation::round::{Adoption, FederationState, Outcome, RoundMachine, RoundRules};
use fellrec::history::{ClientSummary, EventKind, SCHEMA};
use fellrec::ids::{ClientId, Round};
use fellrec::model::pretrained::PretrainedError;
use fellrec::told::chain;
use thiserror::Error;
use tokio::sync::{Semaphore, oneshot};
use tracing::{info, warn};

use crate::folder::{RunFolder, write_whole};
use crate::journal::{Journal, JournalError, Observer};
use crate::messages::StopRun;
use crate::recovery::{ComputeThread, RuleFactory, Spawner, Staff};
use crate::registry::Registry;
use crate::supervisor::{BEAT, Crew, Keeper, Lookout, RunError, Supervisor, SupervisorSeat};

/// Why a federation could not start or go on.
#[derive(Debug, Error)]
pub enum SystemError {
    /// The run folder could not be made.
    #[error("failed to create the run folder {path}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The folder holds a run already.
    #[error(
        "{path} holds a run already: `fellrec resume {path}` goes on with it, or give another folder"
    )]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// A resumed run would not give the same bits as the one before.
    #[error(
        "a resumed run would not end as it would have: {difference}; undo the change, or set \
         runtime.deterministic = false in the run's config.toml to go on all the same"
    )]
    OtherFingerprint {
        /// Field with both values.
        difference: String,
    },
    /// There are commits, but none can be used: starting over would overwrite the run.
    #[error("no commit of {path} is whole: {reasons}")]
    NoWholeCommit {
        /// The run folder.
        path: PathBuf,
        /// What is wrong with each, newest first.
        reasons: String,
    },
    /// The config or its data make no run.
    #[error(transparent)]
    Blueprint(#[from] BlueprintError),
    /// The model to start from could not be read.
    #[error("model.checkpoint")]
    Pretrained(#[source] Box<PretrainedError>),
    /// The config cannot be hashed or stored.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The history could not be opened.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The run could not go on.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The supervisor ended without a word.
    #[error("the supervisor ended by a defect; `fellrec resume` goes on from the last commit")]
    SupervisorLost,
}

impl From<PretrainedError> for SystemError {
    fn from(error: PretrainedError) -> Self {
        Self::Pretrained(Box::new(error))
    }
}

/// A federation that is running in this process.
pub struct Federation {
    supervisor: Addr<Supervisor>,
    registry: Arc<Registry>,
    done: Option<oneshot::Receiver<Result<Outcome, RunError>>>,
    arbiters: Vec<Arbiter>,
    /// Members of other nodes, who are to hear of the end.
    elsewhere: Option<Arc<Lookout>>,
}

/// What a federation starts from.
pub struct Launch {
    /// The run's plan.
    pub blueprint: Arc<Blueprint>,
    /// Where the run is kept.
    pub folder: RunFolder,
    /// Told of everything.
    pub observer: Observer,
    /// A mixing rule of one's own instead of the configured one.
    pub rule: Option<RuleFactory>,
}

/// Longest wait for members of other nodes to hear that the run is over.
const FAREWELL: Duration = BEAT.saturating_mul(15);

/// Members of other nodes.
pub struct Apart {
    /// Their stand-ins.
    pub registry: Arc<Registry>,
    /// Who of them is here.
    pub lookout: Arc<Lookout>,
    /// Replicas of each stage.
    pub replicas: u32,
    /// What makes this supervisor the only one.
    pub keeper: Rc<dyn Keeper>,
    /// Number of its first attempt at a round: above those of the supervisors before it, whose messages may
    /// still be under way.
    pub first_attempt: u32,
}

/// Where the members' states are, from where the supervisor stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stores {
    /// In the run folder.
    Here,
    /// On their own nodes, which answer for them.
    Apart,
}

/// Where a resumed run goes on.
struct Checkpoint {
    state: FederationState,
    receipts: BTreeMap<String, Receipt>,
    events_bytes: u64,
    opening: EventKind,
}

impl Federation {
    /// Starts a new run in an empty folder, its members in this process. To be called within an actix
    /// system.
    pub fn start(launch: Launch) -> Result<Self, SystemError> {
        let checkpoint = begin(&launch)?;
        Self::launch(launch, checkpoint, None)
    }

    /// Goes on with the run in a folder from its last whole commit.
    pub fn resume(launch: Launch) -> Result<Self, SystemError> {
        let checkpoint = last_commit(&launch.blueprint, &launch.folder, Stores::Here)?;
        Self::launch(launch, checkpoint, None)
    }

    /// Starts or goes on with a run whose members are on other nodes.
    pub fn start_apart(launch: Launch, apart: Apart) -> Result<Self, SystemError> {
        let checkpoint = match launch.folder.config().exists() {
            true => last_commit(&launch.blueprint, &launch.folder, Stores::Apart)?,
            false => begin(&launch)?,
        };
        Self::launch(launch, checkpoint, Some(apart))
    }

    fn launch(
        launch: Launch,
        checkpoint: Checkpoint,
        apart: Option<Apart>,
    ) -> Result<Self, SystemError> {
        let Launch { blueprint, folder, observer, rule } = launch;
        let Checkpoint { state, receipts, events_bytes, opening } = checkpoint;
        let journal = Journal::open(&folder.events(), events_bytes, observer)?;
        let fingerprint = blueprint.fingerprint()?;
        let mut machine = RoundMachine::new(rules(&blueprint), state);
        let elsewhere = apart.as_ref().map(|apart| Arc::clone(&apart.lookout));
        let (registry, crew, arbiters) = match apart {
            Some(Apart { registry, lookout, replicas, keeper, first_attempt }) => {
                machine = machine.starting_at(first_attempt);
                (registry, Crew::Apart { lookout, replicas, keeper }, Vec::new())
            }
            None => {
                let registry = Arc::new(Registry::new(answer_deadline(&blueprint.config)));
                let (threads, arbiters) = compute_threads(&blueprint);
                let staff = Staff::everybody(&blueprint, threads.len(), rule);
                let (plan, members) = (Arc::clone(&blueprint), Arc::clone(&registry));
                let spawner = Spawner::new(plan, folder.clone(), members, threads, staff)?;
                (registry, Crew::Here(Box::new(spawner)), arbiters)
            }
        };
        let (done, receiver) = oneshot::channel();
        let seat = SupervisorSeat {
            fingerprint,
            blueprint,
            folder,
            registry: Arc::clone(&registry),
            crew,
            machine,
            receipts,
            journal,
            opening,
            done,
        };
        let supervisor = Supervisor::new(seat).start();
        Ok(Self { supervisor, registry, done: Some(receiver), arbiters, elsewhere })
    }

    /// Where members are, for tests and tools.
    pub fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.registry)
    }

    /// The supervisor's address.
    pub fn supervisor(&self) -> Addr<Supervisor> {
        self.supervisor.clone()
    }

    /// Asks the run to finish its step, keep the last commit and end.
    pub fn stop(&self) {
        if self.supervisor.try_send(StopRun).is_err() {
            warn!("the supervisor does not take the request to stop");
        }
    }

    /// The end of the run, apart from the federation itself; to be taken once.
    pub fn done(&mut self) -> impl Future<Output = Result<Outcome, SystemError>> + use<> {
        let done = self.done.take();
        let (arbiters, elsewhere) = (std::mem::take(&mut self.arbiters), self.elsewhere.take());
        async move {
            let done = done.ok_or(SystemError::SupervisorLost)?;
            let outcome = done.await.map_err(|_| SystemError::SupervisorLost)?;
            for arbiter in arbiters {
                arbiter.stop();
                // A thread that is in the middle of a step ends after it.
                let _ = tokio::task::spawn_blocking(move || arbiter.join()).await;
            }
            let outcome = outcome?;
            if let (true, Some(members)) = (outcome.is_complete(), elsewhere) {
                members.wait_for_none(FAREWELL).await;
                // The last answer is on its way.
                tokio::time::sleep(BEAT).await;
            }
            Ok(outcome)
        }
    }
}

/// Writes the config of a new run into its folder, which holds none yet.
fn begin(launch: &Launch) -> Result<Checkpoint, SystemError> {
    let path = launch.folder.root().to_owned();
    if launch.folder.config().exists() || launch.folder.events().exists() {
        return Err(SystemError::Occupied { path });
    }
    let failed = |source| SystemError::Folder { path: path.clone(), source };
    std::fs::create_dir_all(&path).map_err(failed)?;
    let config = launch.blueprint.config.to_toml()?;
    write_whole(&launch.folder.config(), &config).map_err(failed)?;
    fresh(&launch.blueprint)
}

/// Longest wait for an answer: an ask waits in mailboxes and behind other clients' steps; only silence of
/// minutes is an end.
pub fn answer_deadline(config: &Config) -> Duration {
    Duration::from_secs(10 * config.federation.progress_deadline_secs.get())
}

/// Compute threads of a run: as configured, or one for each core.
pub fn compute_thread_count(config: &Config) -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
    config.runtime.compute_threads.get().map_or(cores, |threads| threads.get())
}

/// Threads that compute: one intra-op thread each, and as many steps at once as they may hold.
pub fn compute_threads(blueprint: &Blueprint) -> (Vec<ComputeThread>, Vec<Arbiter>) {
    let count = compute_thread_count(&blueprint.config);
    let steps = 1 + blueprint.config.runtime.pipeline_depth as usize;
    let start = |_| {
        let arbiter = Arbiter::new();
        // OpenMP keeps the number for each thread, so every compute thread sets its own.
        arbiter.spawn_fn(|| tch::set_num_threads(1));
        let handle = arbiter.handle();
        (ComputeThread { arbiter: handle, permits: Arc::new(Semaphore::new(steps)) }, arbiter)
    };
    (0..count).map(start).unzip()
}

fn rules(blueprint: &Blueprint) -> RoundRules {
    let config = &blueprint.config;
    RoundRules {
        federation: config.federation.clone(),
        evaluate_every: config.evaluation.every.get(),
        deterministic: config.runtime.deterministic,
        run_seed: config.run.seed,
        adoption: Adoption::of(config),
        tables_stay_from: config.tables_stay_from(),
    }
}

fn fresh(blueprint: &Blueprint) -> Result<Checkpoint, SystemError> {
    let clients = blueprint.clients();
    let summary = |client: &ClientId| {
        let Some(data) = blueprint.client_data(*client) else { return (*client, None) };
        let users = &data.users;
        let interactions = users.iter().map(|user| user.train.len() as u64).sum();
        let tested = users.iter().filter(|user| !user.test.is_empty()).count() as u64;
        let users = users.len() as u64;
        (*client, Some(ClientSummary { users, interactions, tested_users: tested }))
    };
    let opening = EventKind::RunStarted {
        schema: SCHEMA,
        fingerprint: blueprint.fingerprint()?,
        dataset: blueprint.dataset.clone(),
        items: blueprint.candidates(),
        clients: clients.iter().map(summary).collect(),
        plan: blueprint.cost_plan(),
    };
    let state = FederationState::initial(&clients, blueprint.config.heating.clone());
    Ok(Checkpoint { state, receipts: BTreeMap::new(), events_bytes: 0, opening })
}

/// The newest commit of which every member's state is whole; a fresh start if there is none.
fn last_commit(
    blueprint: &Blueprint,
    folder: &RunFolder,
    stores: Stores,
) -> Result<Checkpoint, SystemError> {
    let config = &blueprint.config;
    let path = folder.events();
    let logged = std::fs::metadata(&path).map_or(0, |file| file.len());
    let verify = |manifest: &RoundManifest| -> Result<(), CheckpointError> {
        let expected = manifest.events_bytes;
        if logged < expected {
            return Err(CheckpointError::Short { path: path.clone(), got: logged, expected });
        }
        let here = manifest.members.iter().filter(|_| stores == Stores::Here);
        for (path, receipt) in here {
            folder.member_store(path, config).verify(receipt.round, &receipt.digest)?;
        }
        Ok(())
    };
    let (newest, skipped) = folder.run_store(config).newest(verify);
    for broken in &skipped {
        // For the log; people read it in the event that opens the resumed part.
        info!(round = %broken.round, error = chain(&broken.error), "commit passed over");
    }
    let skipped: BTreeMap<Round, String> =
        skipped.iter().map(|broken| (broken.round, chain(&broken.error))).collect();
    let Some(manifest) = newest else {
        if skipped.is_empty() {
            // Before the first commit the history starts over.
            return fresh(blueprint);
        }
        let reasons = skipped.iter().rev().map(|(round, why)| format!("round {round}: {why}"));
        let reasons = reasons.collect::<Vec<_>>().join("; ");
        return Err(SystemError::NoWholeCommit { path: folder.root().to_owned(), reasons });
    };
    compare(&manifest, blueprint)?;
    let opening = EventKind::Resumed { round: manifest.state.committed, skipped };
    Ok(Checkpoint {
        state: manifest.state,
        receipts: manifest.members,
        events_bytes: manifest.events_bytes,
        opening,
    })
}

/// Equal bits are promised for equal fingerprints only (protocol.md 6).
fn compare(manifest: &RoundManifest, blueprint: &Blueprint) -> Result<(), SystemError> {
    let config = &blueprint.config;
    let here = blueprint.fingerprint()?;
    let Some(difference) = manifest.fingerprint.difference(&here) else { return Ok(()) };
    let keys = manifest.config.differences(config)?;
    let difference = if keys.is_empty() { difference } else { keys.join(", ") };
    if config.runtime.deterministic {
        return Err(SystemError::OtherFingerprint { difference });
    }
    warn!(difference, "this process differs from the one that wrote the run: bits may differ");
    Ok(())
}
