//! The client's way to the shards: every half step is sent until it is answered.

use std::rc::Rc;

use fellrec::federation::round::{Attempt, Event};
use fellrec::ids::{ClientId, StepId};
use fellrec::split::{BodyGradient, DecodeTurn, HiddenStates, SplitError, StepPlan};
use fellrec::training::{BodyLink, Timed};

use super::cluster::Cluster;

/// One local round's sessions with the stages.
pub struct Link {
    pub cluster: Rc<Cluster>,
    pub client: ClientId,
    pub attempt: Attempt,
    pub session: u64,
}

fn timed<T>(value: T) -> Timed<T> {
    Timed { value, seconds: 0.0 }
}

impl BodyLink for Link {
    type Error = SplitError;
    type Permit = ();

    async fn permit(&mut self) -> Result<(), SplitError> {
        Ok(())
    }

    async fn forward(
        &mut self,
        stage: usize,
        step: StepId,
        hidden: HiddenStates,
    ) -> Result<Timed<HiddenStates>, SplitError> {
        let (client, session) = (self.client, self.session);
        let shard = &self.cluster.shards[stage];
        let answer = shard.call(move |shard| shard.forward(client, session, step, &hidden)).await;
        answer.map(timed)
    }

    async fn backward(
        &mut self,
        stage: usize,
        step: StepId,
        grad: HiddenStates,
    ) -> Result<Timed<BodyGradient>, SplitError> {
        let (client, session) = (self.client, self.session);
        let shard = &self.cluster.shards[stage];
        let answer = shard.call(move |shard| shard.backward(client, session, step, &grad)).await;
        answer.map(timed)
    }

    async fn step(
        &mut self,
        stage: usize,
        step: StepId,
        plan: StepPlan,
    ) -> Result<Timed<()>, SplitError> {
        let (client, session) = (self.client, self.session);
        let shard = &self.cluster.shards[stage];
        shard.call(move |shard| shard.step(client, session, step, plan)).await.map(timed)
    }

    async fn evaluate(
        &mut self,
        _stage: usize,
        _hidden: HiddenStates,
    ) -> Result<Timed<HiddenStates>, SplitError> {
        unreachable!("the harness ranks by a number made of the state's bits")
    }

    async fn decode(
        &mut self,
        _stage: usize,
        _turn: DecodeTurn,
        _hidden: HiddenStates,
    ) -> Result<Option<Timed<HiddenStates>>, SplitError> {
        unreachable!("the harness ranks by a number made of the state's bits")
    }

    fn progress(&mut self, _step: StepId, _of: u64) {
        let (client, attempt) = (self.client, self.attempt);
        let event = Event::Progress { attempt, client };
        self.cluster.supervisor.tell(move |supervisor| supervisor.feed(event.clone()));
    }
}
