//! A client's local round over whatever carries its half steps: mailboxes, a network, a direct call.

use std::sync::Arc;
use std::time::Instant;

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use tch::Device;

use super::examples::Examples;
use super::item_table::{ItemTable, encode_table};
use super::optimizer::{clip_scale, learning_rate};
use crate::config::{OptimizerConfig, TrainingConfig};
use crate::cost::ClientCost;
use crate::federation::round::LocalRoundReport;
use crate::ids::{ClientId, Round, StepId};
use crate::model::backbone::Batch;
use crate::model::mask::MaskSeed;
use crate::seed;
use crate::split::{BodyGradient, ClientModel, DecodeTurn, HiddenStates, SplitError, StepPlan};

/// An answer with the time its sender computed for it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Timed<T> {
    /// The answer.
    pub value: T,
    /// Seconds of computation, queues not counted.
    pub seconds: f64,
}

/// How a client reaches the stages of the body. Every call may be repeated for the same step.
#[allow(async_fn_in_trait, reason = "links live on one thread: their futures need not be Send")]
pub trait BodyLink {
    /// Why a call failed for good: the local round is over.
    type Error: From<SplitError>;
    /// Held while a step is in flight (protocol.md 3).
    type Permit;

    /// Waits for the right to compute a step.
    async fn permit(&mut self) -> Result<Self::Permit, Self::Error>;

    /// Runs a stage forward and keeps its graph.
    async fn forward(
        &mut self,
        stage: usize,
        step: StepId,
        hidden: HiddenStates,
    ) -> Result<Timed<HiddenStates>, Self::Error>;

    /// Runs a stage backward.
    async fn backward(
        &mut self,
        stage: usize,
        step: StepId,
        grad: HiddenStates,
    ) -> Result<Timed<BodyGradient>, Self::Error>;

    /// Makes the optimiser step of a stage's slice.
    async fn step(
        &mut self,
        stage: usize,
        step: StepId,
        plan: StepPlan,
    ) -> Result<Timed<()>, Self::Error>;

    /// Runs a stage forward without keeping anything.
    async fn evaluate(
        &mut self,
        stage: usize,
        hidden: HiddenStates,
    ) -> Result<Timed<HiddenStates>, Self::Error>;

    /// Runs one turn of a decoding on a stage; `None` if the stage no longer holds the turns before.
    async fn decode(
        &mut self,
        stage: usize,
        turn: DecodeTurn,
        hidden: HiddenStates,
    ) -> Result<Option<Timed<HiddenStates>>, Self::Error>;

    /// Tells whoever watches that a step of `of` is done: the heartbeat that deadlines count from.
    fn progress(&mut self, step: StepId, of: u64);

    /// Tells it that the client is at work on something else than a step, as on its item table.
    fn working(&mut self) {}
}

/// What a local round consists of.
#[derive(Clone, Debug)]
pub struct LocalWork {
    /// Seed of the run.
    pub run_seed: u64,
    /// Whose round.
    pub client: ClientId,
    /// Which one.
    pub round: Round,
    /// Epochs, batch size, bound on steps.
    pub training: TrainingConfig,
    /// Step size and clipping.
    pub optimizer: OptimizerConfig,
    /// Stages of the body.
    pub stages: usize,
    /// Where the client computes.
    pub device: Device,
    /// Item table that is encoded anew when an epoch begins. The first epoch takes the candidates
    /// that the model brings.
    pub table: Option<Arc<ItemTable>>,
}

impl LocalWork {
    fn rng(&self, purpose: &str, number: u64) -> ChaCha8Rng {
        let parts = [u64::from(self.client.0), self.round.0, number];
        seed::rng(self.run_seed, purpose, &parts)
    }

    /// Epoch and rows of every step's batch, in order.
    fn steps(&self, examples: &dyn Examples) -> Vec<(u64, Vec<usize>)> {
        let batch = self.training.batch.get() as usize;
        let epochs = 0..self.training.local_epochs.get();
        let batches = epochs.flat_map(|epoch| {
            let rows = examples.epoch(batch, &mut self.rng("batch order", epoch));
            rows.into_iter().map(move |rows| (epoch, rows))
        });
        let limit = self.training.max_steps.get().map_or(usize::MAX, |steps| steps.get() as usize);
        batches.take(limit).collect()
    }
}

/// Trains for one round: every step runs front, body, back and the same backwards.
pub async fn local_round<L: BodyLink>(
    model: &mut ClientModel,
    examples: &dyn Examples,
    link: &mut L,
    work: &LocalWork,
) -> Result<(LocalRoundReport, ClientCost), L::Error> {
    let steps = work.steps(examples);
    let mut cost = ClientCost::default();
    let (mut loss_sum, mut labels, mut begun) = (0.0, 0, 0);
    for (number, (epoch, rows)) in steps.iter().enumerate() {
        if let Some(table) = work.table.as_deref().filter(|_| *epoch > begun) {
            let (table_vd, spent) =
                encode_table(model, link, table, work.stages, work.device).await?;
            model.set_candidates(table_vd);
            cost += spent;
            begun = *epoch;
        }
        let step = StepId { round: work.round, step: number as u64 };
        let started = Instant::now();
        let permit = link.permit().await?;
        cost.wait_secs += started.elapsed().as_secs_f64();
        let batch = examples.batch(rows, &mut work.rng("batch rows", step.step), work.device);
        loss_sum += train_step(model, &batch, link, work, step, &mut cost).await?;
        labels += batch.labels();
        drop(permit);
        link.progress(step, steps.len() as u64);
    }
    let report = LocalRoundReport {
        loss: loss_sum / labels.max(1) as f64,
        labels,
        steps: steps.len() as u64,
        rows: examples.rows() as u64,
    };
    Ok((report, cost))
}

/// One step over the cut; returns the summed loss of the batch.
async fn train_step<L: BodyLink>(
    model: &mut ClientModel,
    batch: &Batch,
    link: &mut L,
    work: &LocalWork,
    step: StepId,
    cost: &mut ClientCost,
) -> Result<f64, L::Error> {
    let masks = MaskSeed { run_seed: work.run_seed, client: work.client, step };
    let started = Instant::now();
    let (mut hidden, pending) = model.forward_front(batch, masks);
    cost.front_secs += started.elapsed().as_secs_f64();

    for stage in 0..work.stages {
        cost.bytes_up += hidden.bytes();
        hidden = timed(link.forward(stage, step, hidden), cost).await?;
        cost.bytes_down += hidden.bytes();
    }

    let started = Instant::now();
    let back = model.run_back(&pending, &hidden, batch)?;
    drop(hidden);
    cost.back_secs += started.elapsed().as_secs_f64();

    let mut grad = back.hidden;
    let mut body_norms = vec![0.0; work.stages];
    for stage in (0..work.stages).rev() {
        cost.bytes_up += grad.bytes();
        let answer = timed(link.backward(stage, step, grad), cost).await?;
        grad = answer.hidden;
        cost.bytes_down += grad.bytes();
        body_norms[stage] = answer.squared_norm;
    }

    let started = Instant::now();
    model.backward_front(pending, &grad)?;
    let (front_norm, back_norm) = model.squared_grad_norms();
    let squared_norm = front_norm + body_norms.iter().sum::<f64>() + back_norm;
    let plan = StepPlan {
        learning_rate: learning_rate(&work.optimizer, model.steps()),
        grad_scale: clip_scale(squared_norm, work.optimizer.clip_norm.get()),
    };
    cost.front_secs += started.elapsed().as_secs_f64();
    for stage in 0..work.stages {
        timed(link.step(stage, step, plan), cost).await?;
    }
    let started = Instant::now();
    model.step(plan);
    cost.front_secs += started.elapsed().as_secs_f64();
    Ok(back.loss_sum)
}

/// Books an answer's computation as the body's and the rest of its delay as waiting.
pub(super) async fn timed<T, E>(
    answer: impl Future<Output = Result<Timed<T>, E>>,
    cost: &mut ClientCost,
) -> Result<T, E> {
    let started = Instant::now();
    let Timed { value, seconds } = answer.await?;
    cost.body_secs += seconds;
    cost.wait_secs += (started.elapsed().as_secs_f64() - seconds).max(0.0);
    Ok(value)
}
