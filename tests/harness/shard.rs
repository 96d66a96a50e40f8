//! A shard: sessions over one stage of the body, and its part in the commit.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use fellrec::federation::collection::SubmittedSlice;
use fellrec::federation::member::{Member, MemberError, Opening, Purpose};
use fellrec::federation::round::{Attempt, StateId};
use fellrec::federation::track::Track;
use fellrec::ids::{ClientId, Round, StepId};
use fellrec::model::cut::Place;
use fellrec::model::slice::{Digest, Slice};
use fellrec::split::{BodyGradient, BodySession, HiddenStates, SplitError, StepPlan};
use tch::Device;
use tokio::task::JoinSet;

use super::cluster::Cluster;
use super::supervisor::text;

pub struct Shard {
    cluster: Rc<Cluster>,
    stage: usize,
    members: BTreeMap<ClientId, Member>,
    sessions: BTreeMap<ClientId, Session>,
    submissions: BTreeMap<ClientId, Submission>,
    jobs: JoinSet<()>,
}

/// One local round of one client; a session with a higher number takes its place.
struct Session {
    number: u64,
    base: StateId,
    body: Option<BodySession>,
}

/// A slice on its way to the aggregator.
struct Submission {
    ticket: u64,
    receipt: Rc<RefCell<Option<Result<Digest, String>>>>,
}

/// Why a local round could not be closed.
pub enum CloseError {
    /// Neither a session nor a trained slice is here, as after a crash.
    Lost,
    /// The aggregator refused.
    Refused(String),
}

impl Shard {
    pub fn new(cluster: Rc<Cluster>, stage: usize) -> Self {
        let clients = cluster.world.clients().into_iter();
        let members = clients.map(|c| (c, cluster.world.stage_member(stage, c))).collect();
        let (sessions, submissions) = Default::default();
        Self { cluster, stage, members, sessions, submissions, jobs: JoinSet::new() }
    }

    pub fn open(&mut self, client: ClientId, number: u64, base: StateId) -> Result<(), String> {
        if self.sessions.get(&client).is_some_and(|session| session.number >= number) {
            return Ok(());
        }
        let world = &self.cluster.world;
        let place = Place::Stage(self.stage);
        let opening = Opening { track: Track::Global, base, purpose: Purpose::Training };
        let part = self.members[&client].open(place, opening, Device::Cpu);
        let part = part.map_err(|error| text(&error))?;
        let body = BodySession::new(&world.stage(place), client, part);
        self.sessions.insert(client, Session { number, base, body: Some(body) });
        Ok(())
    }

    fn session(
        &mut self,
        client: ClientId,
        number: u64,
        step: StepId,
    ) -> Result<&mut BodySession, SplitError> {
        let session = self.sessions.get_mut(&client).filter(|session| session.number == number);
        session.and_then(|session| session.body.as_mut()).ok_or(SplitError::UnknownStep { step })
    }

    pub fn forward(
        &mut self,
        client: ClientId,
        session: u64,
        step: StepId,
        hidden: &HiddenStates,
    ) -> Result<HiddenStates, SplitError> {
        self.session(client, session, step)?.forward(step, hidden)
    }

    pub fn backward(
        &mut self,
        client: ClientId,
        session: u64,
        step: StepId,
        grad: &HiddenStates,
    ) -> Result<BodyGradient, SplitError> {
        self.session(client, session, step)?.backward(step, grad)
    }

    pub fn step(
        &mut self,
        client: ClientId,
        session: u64,
        step: StepId,
        plan: StepPlan,
    ) -> Result<(), SplitError> {
        self.session(client, session, step)?.step(step, plan)
    }

    /// Ends a local round and submits its slice; `None` while no receipt is there. A new ticket
    /// submits once more.
    pub fn close(
        &mut self,
        client: ClientId,
        session: u64,
        attempt: Attempt,
        ticket: u64,
    ) -> Result<Option<Digest>, CloseError> {
        let place = Place::Stage(self.stage);
        let member = self.members.get_mut(&client).expect("every client is a member");
        let open = self.sessions.get_mut(&client).filter(|open| open.number == session);
        if let Some((base, body)) = open.and_then(|s| s.body.take().map(|body| (s.base, body))) {
            member.finish(Track::Global, attempt, base, [(place, body.close())]);
        }
        let slice = member.submission(attempt, place).map_err(|_| CloseError::Lost)?;
        match self.submissions.get(&client) {
            Some(newer) if newer.ticket > ticket => return Ok(None),
            Some(same) if same.ticket == ticket => {
                return same.receipt.borrow().clone().transpose().map_err(CloseError::Refused);
            }
            _ => {}
        }
        let receipt = Rc::new(RefCell::new(None));
        self.submissions.insert(client, Submission { ticket, receipt: Rc::clone(&receipt) });
        let aggregator = self.cluster.aggregator.clone();
        self.jobs.spawn_local(async move {
            let send = aggregator.call(move |aggregator| {
                let slice =
                    SubmittedSlice { trained: slice.trained.share(), start: slice.start.share() };
                aggregator.submit(attempt, client, place, slice)
            });
            let answer = send.await;
            *receipt.borrow_mut() = Some(answer);
        });
        Ok(None)
    }

    pub fn stage(
        &mut self,
        client: ClientId,
        attempt: Attempt,
        slice: &Slice,
    ) -> Result<Digest, MemberError> {
        let slices = BTreeMap::from([(Place::Stage(self.stage), slice.share())]);
        self.members[&client].stage(attempt, slices)
    }

    pub fn commit(&mut self, client: ClientId, retain: &BTreeSet<Round>) {
        let member = self.members.get_mut(&client).expect("every client is a member");
        member.commit(retain).expect("the store can be cleaned");
    }
}
