//! A client's local round: trained through the split model, submitted with receipts, trained again
//! where a shard was lost.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use fellrec::federation::member::{Opening, Purpose};
use fellrec::federation::round::Attempt;
use fellrec::ids::Round;
use fellrec::model::cut::Place;
use fellrec::training::{LocalWork, local_round};

use super::desk::{ClientError, Desk};
use super::link::lost;
use crate::messages::{CloseLocalRound, FinishedRound, SubmitSlice};
use crate::registry::{Entry, MemberName, ShardPeers};
use crate::shard::ShardError;

impl Desk {
    /// Trains a local round and submits it. When a shard is lost the round starts again from the
    /// last commit, with the same seeds and so with the same result.
    pub(super) async fn train(
        &mut self,
        attempt: Attempt,
        base: Round,
        cancel: Arc<AtomicBool>,
    ) -> Result<FinishedRound, ClientError> {
        loop {
            match self.try_train(attempt, base, &cancel).await {
                Err(error) => self.replace_lost(error).await?,
                finished => return finished,
            }
        }
    }

    async fn try_train(
        &mut self,
        attempt: Attempt,
        base: Round,
        cancel: &Arc<AtomicBool>,
    ) -> Result<FinishedRound, ClientError> {
        let heartbeat = Some((attempt, self.seat.supervisor.step_done.clone()));
        let opening = Opening { base, purpose: Purpose::Training };
        let mut link = self.open_link(opening, Arc::clone(cancel), heartbeat).await?;
        let mut model = self.model(opening)?;
        let config = &self.seat.blueprint.config;
        let work = LocalWork {
            run_seed: config.run.seed,
            client: self.seat.id,
            round: attempt.round,
            training: config.training.clone(),
            optimizer: config.optimizer.clone(),
            stages: link.stages.len(),
            device: self.seat.blueprint.client_device(),
        };
        let (report, mut cost) =
            local_round(&mut model, self.examples.as_ref(), &mut link, &work).await?;
        let (front, back) = model.close();
        self.member.finish(attempt, base, [(Place::Front, front), (Place::Back, back)]);
        let slice_bytes = self.submit_through(attempt, &link.stages).await?;
        cost.bytes_up += slice_bytes;
        cost.bytes_down += slice_bytes;
        Ok(FinishedRound { report, cost })
    }

    /// Submits front, back and, through the shards, the body once more.
    pub(super) async fn submit(&mut self, attempt: Attempt) -> Result<(), ClientError> {
        let stages = self.shards()?;
        self.submit_through(attempt, &stages).await.map(|_| ())
    }

    /// Returns the bytes of front and back.
    async fn submit_through(
        &self,
        attempt: Attempt,
        stages: &[Arc<Entry<ShardPeers>>],
    ) -> Result<u64, ClientError> {
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
        for entry in stages {
            let message = CloseLocalRound { client, attempt };
            let answer = entry.peers.close_round.ask(message).await;
            match answer.map_err(|error| lost(&error, entry.generation))? {
                Err(ShardError::Aggregator(error)) => {
                    return Err(lost(&error, aggregator.generation).into());
                }
                receipt => receipt?,
            };
        }
        Ok(bytes)
    }
}

/// The aggregator's restart budget is spent: there is nobody to submit to.
fn no_aggregator() -> ClientError {
    let reason = "it has no restarts left".to_owned();
    ClientError::NotReplaced { member: MemberName::Aggregator, reason }
}
