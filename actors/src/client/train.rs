//! A client's local round: trained through the split model, submitted with receipts, trained again
//! where a shard was lost.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use fellrec::cost::ClientCost;
use fellrec::federation::member::{Opening, Purpose};
use fellrec::federation::round::{Attempt, LocalRoundReport, TabledState};
use fellrec::federation::track::Track;
use fellrec::model::cut::Place;
use fellrec::training::{LocalWork, local_round};

use super::desk::{ClientError, Desk};
use super::link::{Heartbeat, Line, LinkError, lost};
use crate::messages::{CloseLocalRound, FinishedRound, KeepPersonal, SubmitSlice};
use crate::registry::{Entry, MemberName, ShardPeers};
use crate::shard::ShardError;

/// One try at a local round.
struct LocalAttempt {
    attempt: Attempt,
    base: TabledState,
    /// The shards that serve all of it.
    stages: Vec<Arc<Entry<ShardPeers>>>,
    cancel: Arc<AtomicBool>,
}

impl LocalAttempt {
    fn line(&self, heartbeat: Heartbeat) -> Line {
        let (stages, cancel) = (self.stages.clone(), Arc::clone(&self.cancel));
        Line { stages, cancel, heartbeat: Some(heartbeat) }
    }
}

impl Desk {
    /// Trains a local round and submits it. When a shard is lost the round starts again from the
    /// last commit, with the same seeds and so with the same result.
    pub(super) async fn train(
        &mut self,
        attempt: Attempt,
        base: TabledState,
        cancel: Arc<AtomicBool>,
    ) -> Result<FinishedRound, ClientError> {
        let mut losses = 0;
        loop {
            match self.try_train(attempt, base, &cancel).await {
                Err(error) => self.replace_lost(error, &mut losses).await?,
                finished => return finished,
            }
        }
    }

    async fn try_train(
        &mut self,
        attempt: Attempt,
        base: TabledState,
        cancel: &Arc<AtomicBool>,
    ) -> Result<FinishedRound, ClientError> {
        // The same life of every shard in both passes: a successor would hold only the second one's.
        let stages = self.shards().await?;
        let local = LocalAttempt { attempt, base, stages, cancel: Arc::clone(cancel) };
        let mut cost = ClientCost::default();
        if Track::all(&self.seat.blueprint.config.training).contains(&Track::Personal) {
            let (_, spent) = self.pass(Track::Personal, &local).await?;
            self.keep_personal(&local).await?;
            cost += spent;
        }
        let (report, spent) = self.pass(Track::Global, &local).await?;
        cost += spent;
        self.holders = local.stages;
        let slice_bytes = self.submit(attempt).await?;
        cost.bytes_up += slice_bytes;
        cost.bytes_down += slice_bytes;
        Ok(FinishedRound { report, cost })
    }

    /// Trains one of the client's models over its rows. The passes of a round have the same seeds:
    /// the same batches and masks.
    async fn pass(
        &mut self,
        track: Track,
        local: &LocalAttempt,
    ) -> Result<(LocalRoundReport, ClientCost), ClientError> {
        let LocalAttempt { attempt, base, .. } = local;
        let tracks = Track::all(&self.seat.blueprint.config.training);
        let heartbeat = Heartbeat {
            attempt: *attempt,
            supervisor: self.seat.supervisor.step_done.clone(),
            passes_done: tracks.iter().take_while(|earlier| **earlier != track).count() as u64,
            passes: tracks.len() as u64,
            told: (0, 0),
        };
        let candidates = self.table(track, *base, local.line(heartbeat.clone())).await?;
        let opening = Opening { track, base: base.state, purpose: Purpose::Training };
        let mut link = self.open_link(local.line(heartbeat), opening).await?;
        let mut model = self.model(opening)?;
        if let Some(candidates_vd) = candidates {
            model.set_candidates(candidates_vd);
        }
        let config = &self.seat.blueprint.config;
        let work = LocalWork {
            run_seed: config.run.seed,
            client: self.seat.id,
            round: attempt.round,
            training: config.training.clone(),
            optimizer: config.optimizer.clone(),
            stages: link.stages.len(),
            device: self.seat.blueprint.client_device(),
            table: self.item_table.clone().filter(|_| base.table.is_none()),
        };
        let (report, mut cost) =
            local_round(&mut model, self.examples.as_ref(), &mut link, &work).await?;
        let (front, back) = model.close();
        let parts = [(Place::Front, front), (Place::Back, back)];
        self.member.finish(track, *attempt, base.state, parts);
        cost += self.tables.book(track);
        Ok((report, cost))
    }

    /// Has every shard keep the body of the personal model.
    async fn keep_personal(&self, local: &LocalAttempt) -> Result<(), ClientError> {
        for entry in &local.stages {
            let message = KeepPersonal { client: self.seat.id, attempt: local.attempt };
            let answer = entry.peers.keep_personal.ask(message).await;
            answer
                .map_err(|error| lost(&error, entry.generation))?
                .map_err(|error| refused(error, entry))?;
        }
        Ok(())
    }

    /// Submits front, back and, through the shards that trained it, the body; as often as it is asked for.
    /// Returns the bytes of front and back.
    pub(super) async fn submit(&self, attempt: Attempt) -> Result<u64, ClientError> {
        let client = self.seat.id;
        let aggregator = self.seat.registry.aggregator().ok_or_else(no_aggregator)?;
        let mut bytes = 0;
        for place in [Place::Front, Place::Back] {
            let slice = self.member.submission(attempt, place)?;
            bytes += slice.trained.bytes() as u64;
            let message = SubmitSlice { attempt, client, place, holder: None, slice };
            let answer = aggregator.peers.submit.ask(message).await;
            answer.map_err(|error| lost(&error, aggregator.generation))??;
        }
        for entry in &self.holders {
            let message = CloseLocalRound { client, attempt };
            let answer = entry.peers.close_round.ask(message).await;
            match answer.map_err(|error| lost(&error, entry.generation))? {
                Err(ShardError::Aggregator(error)) => {
                    return Err(lost(&error, aggregator.generation).into());
                }
                receipt => receipt.map_err(|error| refused(error, entry))?,
            };
        }
        Ok(bytes)
    }
}

/// A shard that no longer holds what it trained is lost, though it answers.
fn refused(error: ShardError, entry: &Entry<ShardPeers>) -> ClientError {
    if !error.is_lost() {
        return error.into();
    }
    let (member, generation) = (entry.peers.close_round.member(), entry.generation);
    LinkError::Lost { member, generation, cause: error.to_string() }.into()
}

/// The aggregator's restart budget is spent: there is nobody to submit to.
fn no_aggregator() -> ClientError {
    let reason = "it has no restarts left".to_owned();
    ClientError::NotReplaced { member: MemberName::Aggregator, reason }
}
