//! Carries the supervisor's commands to the members and waits for their answers.
//!
//! A member that has ended is reported, replaced and asked again; what a replacement cannot answer
//! (trained slices died with it) goes back as a failure, and the round is opened again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fellrec::federation::collection::CollectionError;
use fellrec::federation::round::{Attempt, Participant, TabledState};
use fellrec::history::TestResult;
use fellrec::ids::{ClientId, Round, ShardId};
use fellrec::ranking::Metrics;
use fellrec::told::chain;
use tokio::task::JoinSet;
use tracing::{error, warn};

use crate::aggregator::MixRoundError;
use crate::client::ClientError;
use crate::messages::{
    AbandonRound, CommitBodies, CommitRound, EvaluateRound, MixRound, OpenRound, ReportLost,
    RoundMixed, ScreenRound, SubmitAgain, TestModel,
};
use crate::peer::{AskError, Peer};
use crate::registry::{ClientPeers, Entry, Registry};

/// Times a question is put again to replacements before it counts as unanswered.
const TRIES: usize = 8;

/// The supervisor's hand: free of its state, so that it can wait.
#[derive(Clone)]
pub struct Courier {
    /// Where members are.
    pub registry: Arc<Registry>,
    /// The supervisor itself, which replaces members.
    pub lost: Peer<ReportLost>,
}

impl Courier {
    /// Opens a round at a client; `Err` is its refusal.
    pub async fn open(
        &self,
        client: ClientId,
        attempt: Attempt,
        base: TabledState,
    ) -> Result<(), String> {
        let message = OpenRound { attempt, base };
        let ask = async |peers: &ClientPeers| peers.open.ask(message.clone()).await;
        self.ask_client(client, ask).await?.map_err(|error| error.to_string())
    }

    /// Tells clients to drop an attempt.
    pub async fn abandon(&self, clients: Vec<ClientId>, attempt: Attempt) {
        for client in clients {
            if let Some(entry) = self.registry.client(client) {
                // A client that has ended has dropped it.
                let _ = entry.peers.abandon.ask(AbandonRound { attempt }).await;
            }
        }
    }

    /// Has the aggregator check all updates; asks senders again for what it lacks.
    pub async fn screen(
        &self,
        attempt: Attempt,
        participants: Vec<ClientId>,
    ) -> Result<BTreeMap<ClientId, String>, String> {
        for _ in 0..TRIES {
            let message = ScreenRound { attempt, participants: participants.clone() };
            let Some(entry) = self.registry.aggregator() else { break };
            match entry.peers.screen.ask(message).await {
                Ok(Ok(refused)) => return Ok(refused),
                Ok(Err(CollectionError::Missing { clients })) => {
                    self.submit_again(attempt, clients).await?;
                }
                Ok(Err(error)) => return Err(error.to_string()),
                Err(error) => self.report(&error, entry.generation).await?,
            }
        }
        Err("the aggregator does not stay up".to_owned())
    }

    /// Has the aggregator mix and stage.
    pub async fn mix(
        &self,
        attempt: Attempt,
        participants: BTreeMap<ClientId, Participant>,
        shared: Option<BTreeSet<Round>>,
    ) -> Result<RoundMixed, String> {
        for _ in 0..TRIES {
            let (participants, shared) = (participants.clone(), shared.clone());
            let message = MixRound { attempt, participants, shared };
            let Some(entry) = self.registry.aggregator() else { break };
            match entry.peers.mix.ask(message).await {
                Ok(Ok(mixed)) => return Ok(mixed),
                Ok(Err(MixRoundError::Collection(CollectionError::Missing { clients }))) => {
                    self.submit_again(attempt, clients).await?;
                }
                Ok(Err(error)) => return Err(chain(&error)),
                Err(error) => self.report(&error, entry.generation).await?,
            }
        }
        Err("the aggregator does not stay up".to_owned())
    }

    async fn submit_again(&self, attempt: Attempt, clients: Vec<ClientId>) -> Result<(), String> {
        warn!(round = %attempt.round, clients = clients.len(), "asking for slices again");
        for client in clients {
            let ask =
                async |peers: &ClientPeers| peers.submit_again.ask(SubmitAgain { attempt }).await;
            self.ask_client(client, ask).await?.map_err(|error| format!("{client}: {error}"))?;
        }
        Ok(())
    }

    /// Tells every member that a round is committed. The manifest is what counts: a member that does
    /// not hear it finds the same in its store.
    pub async fn commit(
        &self,
        clients: BTreeMap<ClientId, BTreeSet<Round>>,
        bodies: BTreeMap<ShardId, BTreeMap<ClientId, BTreeSet<Round>>>,
    ) {
        for (shard, retain) in bodies {
            let Some(entry) = self.registry.shard(shard) else { continue };
            match entry.peers.commit.ask(CommitBodies { retain }).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => warn!(%shard, %error, "old states stay on disk"),
                Err(error) => warn!(%shard, %error, "commit not heard"),
            }
        }
        for (client, retain) in clients {
            let Some(entry) = self.registry.client(client) else { continue };
            match entry.peers.commit.ask(CommitRound { retain }).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => warn!(%client, %error, "old states stay on disk"),
                Err(error) => warn!(%client, %error, "commit not heard"),
            }
        }
    }

    /// Validates every client's state.
    pub async fn evaluate(
        &self,
        states: BTreeMap<ClientId, TabledState>,
    ) -> BTreeMap<ClientId, Option<Metrics>> {
        self.for_each(states, async |courier: Courier, client, state| {
            let message = EvaluateRound { state };
            let ask = async |peers: &ClientPeers| peers.evaluate.ask(message.clone()).await;
            courier.ask_client(client, ask).await
        })
        .await
    }

    /// Tests every client's chosen state.
    pub async fn test(
        &self,
        best: BTreeMap<ClientId, TabledState>,
    ) -> BTreeMap<ClientId, Option<TestResult>> {
        self.for_each(best, async |courier: Courier, client, best| {
            let message = TestModel { best };
            let ask = async |peers: &ClientPeers| peers.test.ask(message.clone()).await;
            courier.ask_client(client, ask).await
        })
        .await
    }

    /// Puts one question to every client at once. A failed answer is logged and counts as nothing.
    async fn for_each<T: 'static>(
        &self,
        states: BTreeMap<ClientId, TabledState>,
        ask: impl AsyncFn(
            Courier,
            ClientId,
            TabledState,
        ) -> Result<Result<Option<T>, ClientError>, String>
        + Clone
        + 'static,
    ) -> BTreeMap<ClientId, Option<T>> {
        let mut tasks = JoinSet::new();
        for (client, state) in states {
            let (courier, ask) = (self.clone(), ask.clone());
            tasks.spawn_local(async move { (client, ask(courier, client, state).await) });
        }
        let mut answers = BTreeMap::new();
        while let Some(joined) = tasks.join_next().await {
            match joined {
                Ok((client, Ok(Ok(answer)))) => {
                    answers.insert(client, answer);
                }
                Ok((client, Ok(Err(error)))) => {
                    error!(%client, error = chain(&error), "evaluation failed");
                    answers.insert(client, None);
                }
                Ok((client, Err(reason))) => {
                    error!(%client, reason, "evaluation failed");
                    answers.insert(client, None);
                }
                Err(error) => error!(%error, "evaluation failed"),
            }
        }
        answers
    }

    /// Asks a client, and its replacement if it has ended.
    async fn ask_client<T>(
        &self,
        client: ClientId,
        ask: impl AsyncFn(&ClientPeers) -> Result<T, AskError>,
    ) -> Result<T, String> {
        for _ in 0..TRIES {
            let Some(entry): Option<Arc<Entry<ClientPeers>>> = self.registry.client(client) else {
                return Err(format!("{client} is not in the registry"));
            };
            match ask(&entry.peers).await {
                Ok(answer) => return Ok(answer),
                Err(error) => self.report(&error, entry.generation).await?,
            }
        }
        Err(format!("{client} does not stay up"))
    }

    async fn report(&self, error: &AskError, generation: u64) -> Result<(), String> {
        let message = ReportLost { member: error.member(), generation, cause: error.to_string() };
        self.lost.ask(message).await.map_err(|error| error.to_string())?
    }
}
