//! What comes in for a member of this node, handed to its actor: read, checked, asked, and the answer
//! written.

use std::sync::Arc;

use bytes::Bytes;
use fellrec::federation::round::Source;
use fellrec::federation::shared::SharedStore;
use fellrec::ids::Round;
use fellrec::model::cut::Place;
use fellrec::split::wire;
use fellrec::told::chain;
use futures::future::LocalBoxFuture;

use super::carried::Carried;
use super::inbox::Deliver;
use crate::client::SupervisorPeers;
use crate::messages::{
    AskStatus, Beat, Drain, FetchMean, LocalRoundEnded, ReportLost, StepDone, TuneHeating,
};
use crate::peer::Peer;
use crate::registry::{AggregatorPeers, ClientPeers, MemberName, Registry, ShardPeers};

/// Asks an actor what a frame says, if its sender may.
///
/// # Errors
/// Bytes that are no such message, a sender that may not send it, an actor that has ended.
pub async fn pass<M: Carried>(
    peer: &Peer<M>,
    from: MemberName,
    frame: &Bytes,
    means: Option<&Means>,
) -> Result<Vec<u8>, String> {
    let message: M = wire::decode(frame).map_err(|error| chain(&error))?;
    if !message.may_come_from(from) {
        return Err(format!("{} is not {from}'s to send as it is", M::NAME));
    }
    for state in message.states() {
        if let (Source::Shared, Some(means)) = (state.source, means) {
            means.bring(state.round).await?;
        }
    }
    let answer = peer.ask(message).await.map_err(|error| chain(&error))?;
    wire::encode(&answer).map_err(|error| chain(&error))
}

/// The means of mixes, which the aggregator keeps and whoever follows one needs.
#[derive(Clone)]
pub struct Means {
    places: Vec<Place>,
    store: SharedStore,
    registry: Arc<Registry>,
}

impl Means {
    /// Sees to it that the mean which `round` starts from is here.
    async fn bring(&self, round: Round) -> Result<(), String> {
        if round == Round(0) || self.store.holds(&self.places, round) {
            return Ok(());
        }
        let aggregator = self.registry.aggregator().ok_or("no aggregator is known")?;
        let message = FetchMean { round, places: self.places.clone() };
        let answer = aggregator.peers.fetch.ask(message).await.map_err(|error| chain(&error))?;
        let slices = answer.map_err(|error| chain(&error))?;
        self.store.receive(round, slices).map_err(|error| chain(&error))
    }
}

/// Hands over to the actors of this node.
pub struct Inlet {
    member: MemberName,
    registry: Arc<Registry>,
    means: Option<Means>,
}

impl Inlet {
    /// For `member`, which is in the registry; it keeps the means it is told to follow in `store`.
    pub fn new(member: MemberName, registry: Arc<Registry>, store: SharedStore) -> Self {
        let places = match member {
            MemberName::Client(_) => Some(vec![Place::Front, Place::Back]),
            MemberName::Shard(shard) => Some(vec![Place::Stage(shard.stage as usize)]),
            _ => None,
        };
        let means = places.map(|places| Means { places, store, registry: Arc::clone(&registry) });
        Self { member, registry, means }
    }
}

impl Deliver for Inlet {
    fn deliver(
        &self,
        from: MemberName,
        name: String,
        frame: Bytes,
    ) -> LocalBoxFuture<'static, Result<Vec<u8>, String>> {
        let (member, registry) = (self.member, Arc::clone(&self.registry));
        let means = self.means.clone();
        Box::pin(async move {
            let ended = || format!("{member} has ended");
            match member {
                MemberName::Client(client) => {
                    let entry = registry.client(client).ok_or_else(ended)?;
                    to_client(&entry.peers, from, &name, &frame, means.as_ref()).await
                }
                MemberName::Shard(shard) => {
                    let entry = registry.shard(shard).ok_or_else(ended)?;
                    to_shard(&entry.peers, from, &name, &frame, means.as_ref()).await
                }
                MemberName::Aggregator => {
                    let entry = registry.aggregator().ok_or_else(ended)?;
                    to_aggregator(&entry.peers, from, &name, &frame).await
                }
                MemberName::Supervisor | MemberName::Operator => Err(ended()),
            }
        })
    }
}

/// What members of other nodes ask the supervisor.
#[derive(Clone)]
pub struct SupervisorInlet {
    /// Heartbeats.
    pub beat: Peer<Beat>,
    /// What operators ask.
    pub status: Peer<AskStatus>,
    /// Whom operators send away.
    pub drain: Peer<Drain>,
    /// What operators change.
    pub tune: Peer<TuneHeating>,
    /// What clients report.
    pub peers: SupervisorPeers,
}

impl Deliver for SupervisorInlet {
    fn deliver(
        &self,
        from: MemberName,
        name: String,
        frame: Bytes,
    ) -> LocalBoxFuture<'static, Result<Vec<u8>, String>> {
        let (beat, status, peers) = (self.beat.clone(), self.status.clone(), self.peers.clone());
        let (drain, tune) = (self.drain.clone(), self.tune.clone());
        Box::pin(async move {
            match name.as_str() {
                Beat::NAME => pass(&beat, from, &frame, None).await,
                AskStatus::NAME => pass(&status, from, &frame, None).await,
                Drain::NAME => pass(&drain, from, &frame, None).await,
                TuneHeating::NAME => pass(&tune, from, &frame, None).await,
                StepDone::NAME => pass(&peers.step_done, from, &frame, None).await,
                LocalRoundEnded::NAME => pass(&peers.ended, from, &frame, None).await,
                ReportLost::NAME => pass(&peers.lost, from, &frame, None).await,
                _ => Err(unknown("the supervisor", &name)),
            }
        })
    }
}

/// No such message for this member.
pub fn unknown(member: &str, name: &str) -> String {
    format!("{member} takes no message {name:?}")
}

/// Hands a message to a client.
///
/// # Errors
/// As [`pass`]; a message that is not for clients.
pub async fn to_client(
    peers: &ClientPeers,
    from: MemberName,
    name: &str,
    frame: &Bytes,
    means: Option<&Means>,
) -> Result<Vec<u8>, String> {
    use crate::messages::*;
    match name {
        OpenRound::NAME => pass(&peers.open, from, frame, means).await,
        AbandonRound::NAME => pass(&peers.abandon, from, frame, means).await,
        SubmitAgain::NAME => pass(&peers.submit_again, from, frame, means).await,
        StageSlices::NAME => pass(&peers.stage, from, frame, means).await,
        CommitRound::NAME => pass(&peers.commit, from, frame, means).await,
        EvaluateRound::NAME => pass(&peers.evaluate, from, frame, means).await,
        TestModel::NAME => pass(&peers.test, from, frame, means).await,
        _ => Err(unknown("a client", name)),
    }
}

/// Hands a message to a shard.
///
/// # Errors
/// As [`pass`]; a message that is not for shards.
pub async fn to_shard(
    peers: &ShardPeers,
    from: MemberName,
    name: &str,
    frame: &Bytes,
    means: Option<&Means>,
) -> Result<Vec<u8>, String> {
    use crate::messages::*;
    match name {
        OpenSession::NAME => pass(&peers.open, from, frame, means).await,
        ForwardBody::NAME => pass(&peers.forward, from, frame, means).await,
        BackwardBody::NAME => pass(&peers.backward, from, frame, means).await,
        StepBody::NAME => pass(&peers.step, from, frame, means).await,
        EvaluateBody::NAME => pass(&peers.evaluate, from, frame, means).await,
        DecodeBody::NAME => pass(&peers.decode, from, frame, means).await,
        CloseSession::NAME => pass(&peers.close, from, frame, means).await,
        KeepPersonal::NAME => pass(&peers.keep_personal, from, frame, means).await,
        CloseLocalRound::NAME => pass(&peers.close_round, from, frame, means).await,
        StageBody::NAME => pass(&peers.stage, from, frame, means).await,
        CommitBodies::NAME => pass(&peers.commit, from, frame, means).await,
        _ => Err(unknown("a shard", name)),
    }
}

/// Hands a message to the aggregator.
///
/// # Errors
/// As [`pass`]; a message that is not for it.
pub async fn to_aggregator(
    peers: &AggregatorPeers,
    from: MemberName,
    name: &str,
    frame: &Bytes,
) -> Result<Vec<u8>, String> {
    use crate::messages::*;
    match name {
        SubmitSlice::NAME => pass(&peers.submit, from, frame, None).await,
        FetchMean::NAME => pass(&peers.fetch, from, frame, None).await,
        ScreenRound::NAME => pass(&peers.screen, from, frame, None).await,
        MixRound::NAME => pass(&peers.mix, from, frame, None).await,
        _ => Err(unknown("the aggregator", name)),
    }
}
