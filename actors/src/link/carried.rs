//! Messages that cross between nodes: the name of each, its lane, and who may send it.
//!
//! A sender is who the broker says; where a message names its sender as well, the two must agree.

use actix::Message;
use fellrec::federation::round::{StateId, TabledState};
use fellrec::ids::ClientId;
use fellrec::model::cut::Place;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::subjects::Lane;
use crate::messages::{
    AbandonRound, AskStatus, BackwardBody, Beat, CloseLocalRound, CloseSession, CommitBodies,
    CommitRound, DecodeBody, Drain, EvaluateBody, EvaluateRound, FetchMean, ForwardBody,
    KeepPersonal, LocalRoundEnded, MixRound, OpenRound, OpenSession, ReportLost, ScreenRound,
    StageBody, StageSlices, StepBody, StepDone, SubmitAgain, SubmitSlice, TestModel, TuneHeating,
};
use crate::registry::MemberName;

/// A message that crosses between nodes, and so does its answer.
pub trait Carried:
    Message<Result: Serialize + DeserializeOwned + Send> + Serialize + DeserializeOwned + Send + 'static
{
    /// Its name in the head of a call.
    const NAME: &'static str;
    /// Which connection it takes.
    const LANE: Lane;

    /// Whether `from` may send it as it is.
    fn may_come_from(&self, from: MemberName) -> bool;

    /// States that its receiver is to work with.
    fn states(&self) -> Vec<StateId> {
        Vec::new()
    }
}

fn tabled(state: TabledState) -> Vec<StateId> {
    std::iter::once(state.state).chain(state.table).collect()
}

fn is(from: MemberName, client: ClientId) -> bool {
    from == MemberName::Client(client)
}

impl Carried for OpenRound {
    const NAME: &'static str = "open-round";
    const LANE: Lane = Lane::Control;
    fn may_come_from(&self, from: MemberName) -> bool {
        from == MemberName::Supervisor
    }
    fn states(&self) -> Vec<StateId> {
        tabled(self.base)
    }
}

impl Carried for AbandonRound {
    const NAME: &'static str = "abandon-round";
    const LANE: Lane = Lane::Control;
    fn may_come_from(&self, from: MemberName) -> bool {
        from == MemberName::Supervisor
    }
}

impl Carried for SubmitAgain {
    const NAME: &'static str = "submit-again";
    const LANE: Lane = Lane::Control;
    fn may_come_from(&self, from: MemberName) -> bool {
        from == MemberName::Supervisor
    }
}

impl Carried for CommitRound {
    const NAME: &'static str = "commit-round";
    const LANE: Lane = Lane::Control;
    fn may_come_from(&self, from: MemberName) -> bool {
        from == MemberName::Supervisor
    }
}

impl Carried for EvaluateRound {
    const NAME: &'static str = "evaluate-round";
    const LANE: Lane = Lane::Control;
    fn may_come_from(&self, from: MemberName) -> bool {
        from == MemberName::Supervisor
    }
    fn states(&self) -> Vec<StateId> {
        tabled(self.state)
    }
}

impl Carried for TestModel {
    const NAME: &'static str = "test-model";
    const LANE: Lane = Lane::Control;
    fn may_come_from(&self, from: MemberName) -> bool {
        from == MemberName::Supervisor
    }
    fn states(&self) -> Vec<StateId> {
        tabled(self.best)
    }
}

impl Carried for CommitBodies {
    const NAME: &'static str = "commit-bodies";
    const LANE: Lane = Lane::Control;
    fn may_come_from(&self, from: MemberName) -> bool {
        from == MemberName::Supervisor
    }
}

impl Carried for ScreenRound {
    const NAME: &'static str = "screen-round";
    const LANE: Lane = Lane::Control;
    fn may_come_from(&self, from: MemberName) -> bool {
        from == MemberName::Supervisor
    }
}

impl Carried for MixRound {
    const NAME: &'static str = "mix-round";
    const LANE: Lane = Lane::Control;
    fn may_come_from(&self, from: MemberName) -> bool {
        from == MemberName::Supervisor
    }
}

impl Carried for StageSlices {
    const NAME: &'static str = "stage-slices";
    const LANE: Lane = Lane::Bulk;
    fn may_come_from(&self, from: MemberName) -> bool {
        from == MemberName::Aggregator
    }
}

impl Carried for StageBody {
    const NAME: &'static str = "stage-body";
    const LANE: Lane = Lane::Bulk;
    fn may_come_from(&self, from: MemberName) -> bool {
        from == MemberName::Aggregator
    }
}

impl Carried for SubmitSlice {
    const NAME: &'static str = "submit-slice";
    const LANE: Lane = Lane::Bulk;

    /// A client brings its own front and back, a shard the slices of its stage.
    fn may_come_from(&self, from: MemberName) -> bool {
        match (self.place, self.holder) {
            (Place::Front | Place::Back, None) => is(from, self.client),
            (Place::Stage(stage), Some(shard)) => {
                from == MemberName::Shard(shard) && stage == shard.stage as usize
            }
            _ => false,
        }
    }
}

impl Carried for FetchMean {
    const NAME: &'static str = "fetch-mean";
    const LANE: Lane = Lane::Bulk;

    /// Of what it holds itself.
    fn may_come_from(&self, from: MemberName) -> bool {
        self.places.iter().all(|place| match (from, *place) {
            (MemberName::Client(_), Place::Front | Place::Back) => true,
            (MemberName::Shard(shard), Place::Stage(stage)) => stage == shard.stage as usize,
            _ => false,
        })
    }
}

impl Carried for OpenSession {
    const NAME: &'static str = "open-session";
    const LANE: Lane = Lane::Control;
    fn may_come_from(&self, from: MemberName) -> bool {
        is(from, self.client)
    }
    fn states(&self) -> Vec<StateId> {
        vec![self.opening.base]
    }
}

impl Carried for ForwardBody {
    const NAME: &'static str = "forward-body";
    const LANE: Lane = Lane::Bulk;
    fn may_come_from(&self, from: MemberName) -> bool {
        is(from, self.client)
    }
}

impl Carried for BackwardBody {
    const NAME: &'static str = "backward-body";
    const LANE: Lane = Lane::Bulk;
    fn may_come_from(&self, from: MemberName) -> bool {
        is(from, self.client)
    }
}

impl Carried for StepBody {
    const NAME: &'static str = "step-body";
    const LANE: Lane = Lane::Bulk;
    fn may_come_from(&self, from: MemberName) -> bool {
        is(from, self.client)
    }
}

impl Carried for EvaluateBody {
    const NAME: &'static str = "evaluate-body";
    const LANE: Lane = Lane::Bulk;
    fn may_come_from(&self, from: MemberName) -> bool {
        is(from, self.client)
    }
}

impl Carried for DecodeBody {
    const NAME: &'static str = "decode-body";
    const LANE: Lane = Lane::Bulk;
    fn may_come_from(&self, from: MemberName) -> bool {
        is(from, self.client)
    }
}

impl Carried for CloseSession {
    const NAME: &'static str = "close-session";
    const LANE: Lane = Lane::Control;
    fn may_come_from(&self, from: MemberName) -> bool {
        is(from, self.client)
    }
}

impl Carried for KeepPersonal {
    const NAME: &'static str = "keep-personal";
    const LANE: Lane = Lane::Control;
    fn may_come_from(&self, from: MemberName) -> bool {
        is(from, self.client)
    }
}

impl Carried for CloseLocalRound {
    const NAME: &'static str = "close-local-round";
    const LANE: Lane = Lane::Control;
    fn may_come_from(&self, from: MemberName) -> bool {
        is(from, self.client)
    }
}

impl Carried for Beat {
    const NAME: &'static str = "beat";
    const LANE: Lane = Lane::Control;
    fn may_come_from(&self, from: MemberName) -> bool {
        from == self.member
    }
}

impl Carried for AskStatus {
    const NAME: &'static str = "ask-status";
    const LANE: Lane = Lane::Control;
    fn may_come_from(&self, from: MemberName) -> bool {
        from == MemberName::Operator
    }
}

impl Carried for Drain {
    const NAME: &'static str = "drain";
    const LANE: Lane = Lane::Control;
    fn may_come_from(&self, from: MemberName) -> bool {
        from == MemberName::Operator
    }
}

impl Carried for TuneHeating {
    const NAME: &'static str = "tune-heating";
    const LANE: Lane = Lane::Control;
    fn may_come_from(&self, from: MemberName) -> bool {
        from == MemberName::Operator
    }
}

impl Carried for StepDone {
    const NAME: &'static str = "step-done";
    const LANE: Lane = Lane::Control;
    fn may_come_from(&self, from: MemberName) -> bool {
        is(from, self.client)
    }
}

impl Carried for LocalRoundEnded {
    const NAME: &'static str = "local-round-ended";
    const LANE: Lane = Lane::Control;
    fn may_come_from(&self, from: MemberName) -> bool {
        is(from, self.client)
    }
}

impl Carried for ReportLost {
    const NAME: &'static str = "report-lost";
    const LANE: Lane = Lane::Control;

    /// Whoever calls others can find them lost.
    fn may_come_from(&self, from: MemberName) -> bool {
        matches!(from, MemberName::Client(_) | MemberName::Shard(_) | MemberName::Aggregator)
    }
}
