//! A client: its local round as a job, and its part in the commit.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use fellrec::checkpoint::CheckpointError;
use fellrec::federation::collection::SubmittedSlice;
use fellrec::federation::member::{Member, MemberError};
use fellrec::federation::round::{Attempt, Event, LocalRoundReport, StateId};
use fellrec::federation::track::Track;
use fellrec::ids::{ClientId, Round};
use fellrec::model::cut::Place;
use fellrec::model::slice::{Digest, NamedTensor, Slice};
use fellrec::training::{LocalWork, local_round};
use tch::{Device, Kind, Tensor};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::cluster::Cluster;
use super::link::Link;
use super::shard::CloseError;
use super::supervisor::text;
use super::world::client_folder;
use super::{Conduct, Spoil};

pub struct Client {
    cluster: Rc<Cluster>,
    id: ClientId,
    member: Member,
    attempt: Option<Attempt>,
    jobs: JoinSet<()>,
}

/// Why a local round did not come to its end.
enum Setback {
    /// A shard does not know of it: it starts over.
    Lost,
    /// It is over for good.
    Over(String),
}

impl Client {
    pub fn new(cluster: Rc<Cluster>, id: ClientId) -> Self {
        let member = cluster.world.client_member(id);
        Self { cluster, id, member, attempt: None, jobs: JoinSet::new() }
    }

    fn conduct(&self, attempt: Attempt) -> Option<Conduct> {
        self.cluster.scenario.conduct.get(&(self.id, attempt.round)).copied()
    }

    /// Starts to train; for the attempt under way or an older one it changes nothing.
    pub fn open_round(&mut self, attempt: Attempt, base: StateId) -> Result<(), String> {
        if self.attempt.is_some_and(|current| current >= attempt) {
            return Ok(());
        }
        let conduct = self.conduct(attempt);
        let refuses = match conduct {
            Some(Conduct::Refuses) => true,
            Some(Conduct::RefusesFrom { attempt: first }) => attempt.attempt >= first,
            _ => false,
        };
        if refuses {
            return Err("the shop is closed".to_owned());
        }
        self.jobs.abort_all();
        self.attempt = Some(attempt);
        if let Some(Conduct::FallsSilent { until_attempt }) = conduct
            && attempt.attempt < until_attempt
        {
            return Ok(());
        }
        self.jobs.spawn_local(train(Rc::clone(&self.cluster), self.id, attempt, base));
        Ok(())
    }

    pub fn abandon(&mut self, attempt: Attempt) {
        if self.attempt == Some(attempt) {
            self.jobs.abort_all();
        }
        self.member.abandon(attempt);
    }

    /// Sends the slices of an attempt to the aggregator once more, if they are still here.
    pub fn submit_again(&mut self, attempt: Attempt) -> Result<(), MemberError> {
        self.member.submission(attempt, Place::Front)?;
        let (cluster, id) = (Rc::clone(&self.cluster), self.id);
        self.jobs.spawn_local(async move {
            if submit(&cluster, id, attempt, 0).await.is_err() {
                let reason = format!("the body of {id} is gone");
                let event = Event::MixFailed { attempt, reason };
                cluster.supervisor.call(move |supervisor| supervisor.feed(event.clone())).await;
            }
        });
        Ok(())
    }

    pub fn stage(
        &mut self,
        attempt: Attempt,
        slices: &BTreeMap<Place, Slice>,
    ) -> Result<Digest, MemberError> {
        if let Some(Conduct::CannotStage { until_attempt }) = self.conduct(attempt)
            && attempt.attempt < until_attempt
        {
            let (path, source) = (client_folder(self.id).into(), ErrorKind::StorageFull.into());
            return Err(CheckpointError::Io { path, source }.into());
        }
        let slices = slices.iter().map(|(place, slice)| (*place, slice.share())).collect();
        self.member.stage(attempt, slices)
    }

    pub fn commit(&mut self, retain: &BTreeSet<Round>) {
        self.member.commit(retain).expect("the store can be cleaned");
    }

    /// A number in [0, 1) made of the state's bits: equal for equal states only.
    pub fn evaluate(&self, state: StateId) -> f64 {
        let front = self.member.load(Track::Global, Place::Front, state);
        let front = front.expect("a committed state is there");
        let digest = front.slice.digest();
        let bits = u32::from_str_radix(&digest.as_str()[..8], 16).expect("a digest is hex");
        f64::from(bits) / 2f64.powi(32)
    }

    fn submission(&self, attempt: Attempt, place: Place) -> Result<SubmittedSlice, MemberError> {
        let mut slice = self.member.submission(attempt, place)?;
        if let (Some(Conduct::Sends(spoil)), Place::Front) = (self.conduct(attempt), place) {
            slice.trained = spoil.apply(slice.trained);
        }
        Ok(slice)
    }
}

/// The job behind `OpenRound`.
async fn train(cluster: Rc<Cluster>, id: ClientId, attempt: Attempt, base: StateId) {
    let event = loop {
        match try_train(&cluster, id, attempt, base).await {
            Ok(report) => break Event::LocalRoundDone { attempt, client: id, report },
            Err(Setback::Lost) => cluster.log.borrow_mut().replays += 1,
            Err(Setback::Over(reason)) => {
                break Event::ClientLost { attempt, client: id, reason };
            }
        }
    };
    cluster.supervisor.call(move |supervisor| supervisor.feed(event.clone())).await;
}

async fn try_train(
    cluster: &Rc<Cluster>,
    id: ClientId,
    attempt: Attempt,
    base: StateId,
) -> Result<LocalRoundReport, Setback> {
    let node = &cluster.clients[id.0 as usize];
    let (world, session) = (&cluster.world, cluster.network.stamp());
    for shard in &cluster.shards {
        let opened = shard.call(move |shard| shard.open(id, session, base)).await;
        opened.map_err(Setback::Over)?;
    }
    let model = node.with(|client| world.client_model(&client.member, base));
    let mut model = model.map_err(|error| Setback::Over(text(&error)))?;
    let work = LocalWork {
        run_seed: world.config().run.seed,
        client: id,
        round: attempt.round,
        training: world.config().training.clone(),
        optimizer: world.config().optimizer.clone(),
        stages: world.stages(),
        device: Device::Cpu,
        table: None,
    };
    let examples = world.blueprint.examples(id);
    let mut link = Link { cluster: Rc::clone(cluster), client: id, attempt, session };
    let trained = local_round(&mut model, examples.as_ref(), &mut link, &work).await;
    let (mut report, _) = trained.map_err(|error| {
        if error.is_retryable() { Setback::Lost } else { Setback::Over(text(&error)) }
    })?;
    let (front, back) = model.close();
    let parts = [(Place::Front, front), (Place::Back, back)];
    node.with(|client| client.member.finish(Track::Global, attempt, base, parts));
    submit(cluster, id, attempt, session).await?;
    if node.with(|client| client.conduct(attempt)) == Some(Conduct::Sends(Spoil::NanLoss)) {
        report.loss = f64::NAN;
    }
    Ok(report)
}

/// Front and back from here, the body through its shards; done when all have receipts.
async fn submit(
    cluster: &Rc<Cluster>,
    id: ClientId,
    attempt: Attempt,
    session: u64,
) -> Result<(), Setback> {
    let node = &cluster.clients[id.0 as usize];
    for place in [Place::Front, Place::Back] {
        let slice = node.with(|client| client.submission(attempt, place));
        let slice = slice.map_err(|error| Setback::Over(text(&error)))?;
        let send = cluster.aggregator.call(move |aggregator| {
            let (trained, start) = (slice.trained.share(), slice.start.share());
            aggregator.submit(attempt, id, place, SubmittedSlice { trained, start })
        });
        send.await.map_err(Setback::Over)?;
    }
    for shard in &cluster.shards {
        let ticket = cluster.network.stamp();
        loop {
            let close = shard.call(move |shard| shard.close(id, session, attempt, ticket));
            match close.await {
                Ok(Some(_receipt)) => break,
                Ok(None) => sleep(Duration::from_millis(5)).await,
                Err(CloseError::Lost) => return Err(Setback::Lost),
                Err(CloseError::Refused(reason)) => return Err(Setback::Over(reason)),
            }
        }
    }
    Ok(())
}

impl Spoil {
    fn apply(self, slice: Slice) -> Slice {
        let mut tensors = slice.deep_copy().tensors;
        let options = (Kind::Float, Device::Cpu);
        let first = &mut tensors[0].tensor;
        match self {
            Spoil::NanTensor => drop(first.view([-1]).narrow(0, 0, 1).fill_(f64::NAN)),
            Spoil::InfiniteTensor => drop(first.view([-1]).narrow(0, 0, 1).fill_(f64::INFINITY)),
            Spoil::WrongShape => *first = first.unsqueeze(0),
            Spoil::ExtraTensor => {
                tensors.push(NamedTensor::new("model.surprise", Tensor::zeros([4096], options)));
            }
            Spoil::MissingTensor => drop(tensors.pop()),
            Spoil::HugeNorm => *first = &*first + 1e6,
            Spoil::NanLoss => {}
        }
        Slice::new(tensors)
    }
}
