//! Runs whole federations of actors on small synthetic data.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use fellrec::blueprint::Blueprint;
use fellrec::config::{Config, Layers, Loaded};
use fellrec::federation::round::Outcome;
use fellrec::history::{EventKind, RunEvent};
use fellrec_actors::folder::RunFolder;
use fellrec_actors::journal::Notice;
use fellrec_actors::recovery::RuleFactory;
use fellrec_actors::registry::Registry;
use fellrec_actors::system::{Federation, Launch};

/// Five clients with 120 users, a model of three blocks cut 1/1/1, three rounds: a second or two.
const SMALL: [&str; 14] = [
    "data.synthetic.users=120",
    "data.synthetic.items=60",
    "data.synthetic.mean_history=12",
    "model.hidden=16",
    "model.layers=3",
    "model.heads=2",
    "model.kv_heads=2",
    "model.ffn=32",
    "model.vocab=256",
    "model.max_history=12",
    "training.batch=8",
    "federation.rounds=3",
    "federation.restart_budget=20",
    "checkpoint.fsync=false",
];

pub fn small_config(sets: &[&str]) -> Config {
    let sets = SMALL.iter().chain(sets).map(|set| (*set).to_owned()).collect();
    let layers = Layers { sets, ..Layers::default() };
    Loaded::load(&layers).expect("the test's config is valid").config
}

/// A preset, with the settings of one test.
pub fn preset(name: &str, sets: &[String]) -> Config {
    let mut sets = sets.to_vec();
    sets.push("checkpoint.fsync=false".to_owned());
    let layers = Layers { file: Some(name.to_owned()), sets, ..Layers::default() };
    Loaded::load(&layers).expect("the preset is valid").config
}

/// Everything of a run that equal runs must share: no times, no memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// Digest of all slices after every round.
    pub slices: Vec<String>,
    /// Metrics of every evaluation and the final test, as JSON.
    pub metrics: Vec<String>,
}

/// A run that has ended.
pub struct Ended {
    pub outcome: Outcome,
    pub events: Vec<RunEvent>,
}

impl Ended {
    pub fn trace(&self) -> Trace {
        let mut trace = Trace { slices: Vec::new(), metrics: Vec::new() };
        for event in &self.events {
            match &event.kind {
                EventKind::RoundCommitted { slices, .. } => trace.slices.push(slices.to_string()),
                EventKind::RoundEvaluated { round, clients, .. } => {
                    trace.metrics.push(format!("{round} {}", json(clients)));
                }
                EventKind::RunFinished { test, .. } => trace.metrics.push(json(test)),
                _ => {}
            }
        }
        trace
    }
}

fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("plain data")
}

/// What a test does while a federation runs.
pub type Meddler = Box<dyn FnMut(&Registry, &Notice<'_>) -> Meddle>;

/// What the meddler wants of the run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Meddle {
    GoOn,
    Stop,
}

pub fn run(config: Config, folder: &Path, meddler: Meddler) -> Ended {
    launch(config, folder, None, Federation::start, meddler)
}

pub fn resume(config: Config, folder: &Path) -> Ended {
    launch(config, folder, None, Federation::resume, Box::new(|_, _| Meddle::GoOn))
}

/// A run that mixes by a rule of the test's own.
pub fn ruled(config: Config, rule: RuleFactory) -> Ended {
    let folder = tempfile::tempdir().expect("a temporary folder");
    launch(config, folder.path(), Some(rule), Federation::start, Box::new(|_, _| Meddle::GoOn))
}

pub fn undisturbed(config: Config) -> Ended {
    let folder = tempfile::tempdir().expect("a temporary folder");
    run(config, folder.path(), Box::new(|_, _| Meddle::GoOn))
}

fn launch(
    config: Config,
    folder: &Path,
    rule: Option<RuleFactory>,
    start: impl FnOnce(Launch) -> Result<Federation, fellrec_actors::system::SystemError>,
    mut meddler: Meddler,
) -> Ended {
    let blueprint = Arc::new(Blueprint::new(config).expect("the synthetic data fits"));
    let folder = RunFolder::new(folder.join("run"));
    let running: Rc<RefCell<Option<Federation>>> = Rc::default();
    let watched = Rc::clone(&running);
    let observer = Box::new(move |notice: Notice<'_>| {
        // Empty while the federation starts and while the test waits for the last word.
        if let Ok(running) = watched.try_borrow()
            && let Some(federation) = running.as_ref()
            && meddler(&federation.registry(), &notice) == Meddle::Stop
        {
            federation.stop();
        }
    });
    let launch = Launch { blueprint, folder: folder.clone(), observer, rule };
    let outcome = actix::System::new().block_on(async {
        let mut federation = start(launch).expect("the federation starts");
        let done = federation.done();
        running.replace(Some(federation));
        done.await.expect("the federation ends in order")
    });
    let text = std::fs::read_to_string(folder.events()).expect("a run writes its history");
    let events = text.lines().map(|line| serde_json::from_str(line).expect("our own events"));
    Ended { outcome, events: events.collect() }
}
