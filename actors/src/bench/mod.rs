//! Measures federated LoRA rounds on random tokens: time, memory, arithmetic.
//!
//! Nothing here is timed against another machine or another day: the rate of matrix products and the
//! plain loop without actors are measured in the same process, between the rounds.

#[cfg(feature = "nodes")]
mod link;
mod plain;
mod products;
mod step;
mod work;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use fellrec::blueprint::Blueprint;
use fellrec::config::Config;
use fellrec::history::{ClientRound, EventKind};
use fellrec::training::RandomTokens;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::folder::RunFolder;
use crate::journal::{Notice, Observer};
use crate::memory::peak_memory_bytes;
use crate::system::{Federation, Launch};
use plain::PlainLoop;
use products::product_rate;
use work::token_flops;

#[cfg(feature = "nodes")]
pub use link::{Control, LinkTimes, RoundTrip, link_times};
pub use step::{Role, StepBench, StepFigures, Weights};

/// What is measured.
#[derive(Clone, Debug)]
pub struct RoundBench {
    /// Model, split and runtime; data and evaluation are not used.
    pub config: Config,
    /// Clients.
    pub clients: u32,
    /// Steps of a client in a round.
    pub steps: u32,
    /// Tokens of a sequence.
    pub seq: i64,
    /// Tokens of the vocabulary.
    pub vocab: i64,
    /// Rounds that are measured, after one that is not.
    pub rounds: u32,
    /// Interleave every measured round with the same steps in a plain unsplit loop.
    pub compare: bool,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct RoundFigures {
    /// Compute threads.
    pub threads: u32,
    /// Wall time of every measured round.
    pub round_seconds: Vec<f64>,
    /// Their median.
    pub median_seconds: f64,
    /// Labels trained on, a second of a median round.
    pub tokens_per_second: f64,
    /// Highest resident memory, in MiB; with a comparison it includes the plain loop's.
    pub peak_resident_mib: f64,
    /// Arithmetic of a median round, in GFLOP/s (counted once, recomputation not).
    pub gflops: f64,
    /// Matrix products of the same shapes on all threads at once, in GFLOP/s.
    pub product_gflops: f64,
    /// `gflops / product_gflops`.
    pub share_of_products: f64,
    /// Processor time that was not spent in the model, as a share of all of it.
    pub share_outside_model: f64,
    /// Processor time over wall time and threads: 1 means that every core was busy.
    pub cores_busy: f64,
    /// The comparison with a plain loop.
    pub plain: Option<Comparison>,
}

/// Rounds with actors against the same steps without.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Wall time of every plain loop.
    pub plain_seconds: Vec<f64>,
    /// Mean over the pairs of (round / plain loop).
    pub mean_ratio: f64,
    /// 95 % interval of that mean.
    pub interval: (f64, f64),
}

/// A finished round.
#[derive(Clone, Copy, Debug)]
struct Sample {
    seconds: f64,
    model_seconds: f64,
    cpu_seconds: f64,
    labels: u64,
}

impl RoundBench {
    /// Runs the rounds in a temporary folder and measures.
    ///
    /// # Errors
    /// The federation could not start or could not go on.
    pub fn run(self) -> Result<RoundFigures> {
        let mut config = self.config.clone();
        config.federation.rounds = u64::from(self.rounds) + 1;
        let batch = config.training.batch.get() as usize;
        let tokens = RandomTokens {
            sequences: self.steps as usize * batch,
            length: self.seq,
            vocab: self.vocab,
            seed: config.run.seed,
        };
        let blueprint = Arc::new(Blueprint::random_tokens(config, self.clients, tokens)?);
        let threads = crate::system::compute_thread_count(&blueprint.config);
        let plain = self.compare.then(|| PlainLoop::new(&blueprint, threads)).transpose()?;
        let recorder = Rc::new(RefCell::new(Recorder { plain, ..Recorder::default() }));
        let folder = tempfile::tempdir().context("failed to create a temporary folder")?;
        let launch = Launch {
            blueprint: Arc::clone(&blueprint),
            folder: RunFolder::new(folder.path().join("run")),
            observer: observer(Rc::clone(&recorder)),
            rule: None,
        };
        let outcome = actix::System::new()
            .block_on(async { Federation::start(launch)?.done().await })
            .context("the measured federation failed")?;
        if !outcome.is_complete() {
            bail!("the measured federation ended early: {outcome:?}");
        }
        let peak_resident_mib = peak_memory_bytes() as f64 / f64::from(1 << 20);
        let recorder = recorder.borrow();
        let architecture = &blueprint.layout.architecture;
        let lora = &blueprint.config.lora;
        let token = token_flops(architecture, lora, architecture.layers, true, self.seq);
        let tokens = batch as f64 * self.seq as f64 * f64::from(self.steps);
        let flops = token * tokens * f64::from(self.clients);
        let product_gflops = product_rate(&blueprint.config, self.seq, self.vocab, threads);
        Ok(recorder.figures(threads, flops, product_gflops, peak_resident_mib))
    }
}

/// Collects rounds; runs the plain loop between them, while the compute threads rest.
#[derive(Default)]
struct Recorder {
    plain: Option<PlainLoop>,
    cpu_at_open: f64,
    samples: Vec<Sample>,
    plain_seconds: Vec<f64>,
}

fn observer(recorder: Rc<RefCell<Recorder>>) -> Observer {
    Box::new(move |notice| {
        let Notice::Event(event) = notice else { return };
        let mut recorder = recorder.borrow_mut();
        match &event.kind {
            EventKind::RoundOpened { .. } => recorder.cpu_at_open = cpu_seconds(),
            EventKind::RoundCommitted { seconds, clients, .. } => {
                let cpu_seconds = cpu_seconds() - recorder.cpu_at_open;
                let model =
                    |c: &ClientRound| c.cost.front_secs + c.cost.body_secs + c.cost.back_secs;
                recorder.samples.push(Sample {
                    seconds: *seconds,
                    model_seconds: clients.values().map(model).sum(),
                    cpu_seconds,
                    labels: clients.values().map(|c| c.report.labels).sum(),
                });
            }
            EventKind::RoundEvaluated { round, .. } if round.0 > 0 => {
                if let Some(plain) = &mut recorder.plain {
                    let seconds = plain.run();
                    recorder.plain_seconds.push(seconds);
                }
            }
            _ => {}
        }
    })
}

impl Recorder {
    fn figures(
        &self,
        threads: u32,
        flops: f64,
        product_gflops: f64,
        peak_resident_mib: f64,
    ) -> RoundFigures {
        // The first round loads code and warms caches.
        let samples = &self.samples[1..];
        let seconds: Vec<f64> = samples.iter().map(|sample| sample.seconds).collect();
        let median_seconds = median(&seconds);
        let gflops = flops / median_seconds / 1e9;
        let total = |select: fn(&Sample) -> f64| samples.iter().map(select).sum::<f64>();
        let (wall, cpu, model) =
            (total(|s| s.seconds), total(|s| s.cpu_seconds), total(|s| s.model_seconds));
        RoundFigures {
            threads,
            median_seconds,
            tokens_per_second: samples[0].labels as f64 / median_seconds,
            peak_resident_mib,
            gflops,
            product_gflops,
            share_of_products: gflops / product_gflops,
            share_outside_model: ((cpu - model) / cpu).max(0.0),
            cores_busy: cpu / wall / f64::from(threads),
            plain: (!self.plain_seconds.is_empty())
                .then(|| comparison(&seconds, &self.plain_seconds[1..])),
            round_seconds: seconds,
        }
    }
}

fn comparison(rounds: &[f64], plain: &[f64]) -> Comparison {
    let ratios: Vec<f64> = rounds.iter().zip(plain).map(|(round, plain)| round / plain).collect();
    let count = ratios.len() as f64;
    let mean = ratios.iter().sum::<f64>() / count;
    let variance =
        ratios.iter().map(|ratio| (ratio - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
    // Student's t for 19 degrees of freedom; a little too narrow below 20 pairs, too wide above.
    let half = 2.093 * (variance / count).sqrt();
    Comparison {
        plain_seconds: plain.to_vec(),
        mean_ratio: mean,
        interval: (mean - half, mean + half),
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

/// Processor time of this process, all threads.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
