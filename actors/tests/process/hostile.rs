//! A client with a good kit that takes part and lies: each lie is screened out or refused, said with its name and
//! reason, and costs the others nothing (architecture.md 5).

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use actix::{Actor, Context, Handler, Message, Recipient, ResponseFuture};
use fellrec::blueprint::Blueprint;
use fellrec::config::{Layers, Loaded};
use fellrec::data::Holdings;
use fellrec::federation::round::Absence;
use fellrec::history::EventKind;
use fellrec::ids::{ClientId, Round, ShardId};
use fellrec::model::slice::{NamedTensor, Slice};
use fellrec::split::HiddenStates;
use fellrec_actors::folder::RunFolder;
use fellrec_actors::link::line::Line;
use fellrec_actors::link::remote::StandIn;
use fellrec_actors::messages::{
    BackwardBody, CloseLocalRound, CloseSession, CommitBodies, Crash, DecodeBody, EvaluateBody,
    FetchMean, ForwardBody, KeepPersonal, LocalRoundEnded, MixRound, OpenSession, ScreenRound,
    StageBody, StepBody, SubmitSlice,
};
use fellrec_actors::node::{Farewell, Kit, Node};
use fellrec_actors::peer::{Peer, Takes};
use fellrec_actors::registry::{AggregatorAddress, MemberName, Registry, ShardAddress};
use tch::Tensor;

use super::nodes::{supervise, trace, up_without_supervisor};
use crate::support::{Place, event};

const LIAR: ClientId = ClientId(4);
const PATIENCE: Duration = Duration::from_secs(60);

/// What it does in a round, and a word of the reason why the round goes on without it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lie {
    /// A slice of NaN.
    NanSlice,
    /// A slice of 1e30.
    HugeSlice,
    /// An update a hundred times its own.
    HundredFold,
    /// Says that it started from NaN.
    NanStart,
    /// A loss of NaN.
    NanLoss,
    /// Gradients of NaN for the shard, so that its body is NaN there.
    NanGradient,
    /// Hidden states of more rows than the config has.
    ManyRows,
    /// Slices of the round before.
    OldRound,
    /// Slices of a round that is far away.
    FarRound,
    /// None.
    Honest,
}

const LIES: [(Lie, &str); 11] = [
    (Lie::NanSlice, "not finite"),
    (Lie::HugeSlice, "the update's norm"),
    (Lie::HundredFold, "the update's norm"),
    (Lie::NanStart, "not finite"),
    (Lie::NanLoss, "its loss is NaN"),
    (Lie::NanGradient, "NaN"),
    (Lie::ManyRows, "expected at most"),
    (Lie::Honest, ""),
    (Lie::OldRound, "is over"),
    (Lie::FarRound, "refused the body slice"),
    (Lie::Honest, ""),
];

fn lie(round: Round) -> Lie {
    LIES[round.0 as usize].0
}

/// Stands between an honest client and the others.
struct Liar<M: Message<Result: Send> + Send + 'static> {
    other: Peer<M>,
    twist: fn(M) -> M,
}

impl<M: Message<Result: Send> + Send + 'static> Actor for Liar<M> {
    type Context = Context<Self>;
}

impl<M: Message<Result: Send> + Send + 'static> Handler<M> for Liar<M> {
    type Result = ResponseFuture<M::Result>;

    fn handle(&mut self, message: M, _ctx: &mut Self::Context) -> Self::Result {
        let (other, message) = (self.other.clone(), (self.twist)(message));
        Box::pin(async move { other.ask(message).await.expect("the others are there") })
    }
}

fn through<M: Message<Result: Send> + Send + 'static>(
    member: MemberName,
    other: Recipient<M>,
    twist: fn(M) -> M,
) -> Recipient<M> {
    Liar { other: Peer::new(member, other, PATIENCE), twist }.start().recipient()
}

fn twist_submission(mut message: SubmitSlice) -> SubmitSlice {
    let filled = |slice: &Slice, value: f64| {
        let fill = |named: &NamedTensor| {
            NamedTensor::new(named.name.clone(), named.tensor.full_like(value))
        };
        Slice::new(slice.tensors.iter().map(fill).collect())
    };
    let SubmitSlice { attempt, slice, .. } = &mut message;
    match lie(attempt.round) {
        Lie::OldRound => attempt.round = Round(attempt.round.0 - 1),
        Lie::FarRound => attempt.round = Round(attempt.round.0 + 1000),
        Lie::NanSlice => slice.trained = filled(&slice.trained, f64::NAN),
        Lie::HugeSlice => slice.trained = filled(&slice.trained, 1e30),
        Lie::NanStart => slice.start = filled(&slice.start, f64::NAN),
        Lie::HundredFold => {
            let pairs = slice.trained.tensors.iter().zip(&slice.start.tensors);
            let grown = pairs.map(|(now, before)| {
                let grown = &before.tensor + (&now.tensor - &before.tensor) * 100.0;
                NamedTensor::new(now.name.clone(), grown)
            });
            slice.trained = Slice::new(grown.collect());
        }
        _ => {}
    }
    message
}

fn twist_report(mut message: LocalRoundEnded) -> LocalRoundEnded {
    if lie(message.attempt.round) == Lie::NanLoss
        && let Ok(finished) = &mut message.outcome
    {
        finished.report.loss = f64::NAN;
    }
    message
}

fn twist_forward(mut message: ForwardBody) -> ForwardBody {
    if lie(message.step.round) == Lie::ManyRows {
        let hidden = message.hidden.tensor();
        message.hidden = HiddenStates::new(&Tensor::cat(&vec![hidden; 1000], 0));
    }
    message
}

fn twist_gradient(mut message: BackwardBody) -> BackwardBody {
    if lie(message.step.round) == Lie::NanGradient {
        message.grad = HiddenStates::new(&message.grad.tensor().full_like(f64::NAN));
    }
    message
}

/// The aggregator as the client sees it.
struct Aggregator {
    submit: Recipient<SubmitSlice>,
    real: StandIn,
}

/// A shard as the client sees it.
struct Shard {
    forward: Recipient<ForwardBody>,
    backward: Recipient<BackwardBody>,
    real: StandIn,
}

/// Which messages go where.
macro_rules! takes {
    ($address:ty, $($message:ty => $field:ident),+) => {
        $(impl Takes<$message> for $address {
            fn recipient(&self) -> Recipient<$message> {
                Takes::<$message>::recipient(&self.$field)
            }
        })+
    };
}

takes!(Aggregator, FetchMean => real, ScreenRound => real, MixRound => real, Crash => real);
takes!(
    Shard,
    OpenSession => real, StepBody => real, EvaluateBody => real, DecodeBody => real,
    CloseSession => real, KeepPersonal => real, CloseLocalRound => real, StageBody => real,
    CommitBodies => real, Crash => real
);

impl Takes<SubmitSlice> for Aggregator {
    fn recipient(&self) -> Recipient<SubmitSlice> {
        self.submit.clone()
    }
}

impl Takes<ForwardBody> for Shard {
    fn recipient(&self) -> Recipient<ForwardBody> {
        self.forward.clone()
    }
}

impl Takes<BackwardBody> for Shard {
    fn recipient(&self) -> Recipient<BackwardBody> {
        self.backward.clone()
    }
}

impl AggregatorAddress for Aggregator {}
impl ShardAddress for Shard {}

fn lie_to(line: &Line, registry: &Registry, replicas: u32) {
    let name = MemberName::Aggregator;
    let real = line.stand_in(name);
    let submit = through(name, real.recipient(), twist_submission);
    registry.enter_aggregator(0, &Aggregator { submit, real });
    for replica in 0..replicas {
        let shard = ShardId { stage: 0, replica };
        let name = MemberName::Shard(shard);
        let real = line.stand_in(name);
        let forward = through(name, real.recipient(), twist_forward);
        let backward = through(name, real.recipient(), twist_gradient);
        registry.enter_shard(shard, 0, &Shard { forward, backward, real });
    }
}

/// Takes part as client-4 until the run is over.
fn take_part(place: &Place) -> thread::JoinHandle<Farewell> {
    let kit = Kit::read(&place.path("up/federation/kits/client-4")).expect("made");
    let layers = Layers { file: Some(kit.config().display().to_string()), ..Layers::default() };
    let folder = RunFolder::new(place.path("liar")).with_means_of(kit.member);
    thread::spawn(move || {
        tch::set_num_threads(1);
        let config = Loaded::load(&layers).expect("as it came").config;
        let blueprint = Blueprint::holding(config, Holdings::Of(LIAR)).expect("as the others'");
        let replicas = kit.replicas;
        let node = Node { kit, blueprint: Arc::new(blueprint), folder, life: 1 };
        let see = move |line: &Line, registry: &Registry, supervisor: &mut _| {
            lie_to(line, registry, replicas);
            let fellrec_actors::client::SupervisorPeers { ended, .. } = supervisor;
            let (name, real) = (MemberName::Supervisor, line.stand_in(MemberName::Supervisor));
            *ended = Peer::new(name, through(name, real.recipient(), twist_report), PATIENCE);
        };
        actix::System::new().block_on(node.run_seeing(see)).expect("it is let in")
    })
}

#[test]
fn a_client_that_lies_is_left_out_for_as_long_as_it_does() {
    let place = Place::new();
    let rounds = format!("federation.rounds={}", LIES.len());
    let members = up_without_supervisor(&place, &["--leave-out", "client-4", "--set", &rounds]);
    let liar = take_part(&place);
    supervise(&place, "up/nodes/supervisor").succeed();
    assert_eq!(liar.join().expect("it does not panic"), Farewell::Over);
    members.succeed();

    let history = place.read("up/nodes/supervisor/events.jsonl");
    let mut rounds = 0;
    for line in history.lines() {
        let EventKind::RoundCommitted { attempt, absent, clients, .. } = event(line) else {
            continue;
        };
        let (lie, reason) = LIES[attempt.round.0 as usize];
        let said = absent.get(&LIAR).map(Absence::to_string).unwrap_or_default();
        assert_eq!(said.is_empty(), lie == Lie::Honest, "{lie:?}: {said:?}");
        assert!(said.contains(reason), "{lie:?}: {said}");
        assert_eq!(absent.len(), usize::from(lie != Lie::Honest), "{lie:?}: {absent:?}");
        assert_eq!(clients.len() + absent.len(), 5);
        rounds += 1;
    }
    assert_eq!(rounds, LIES.len());
    let test = trace(&place).test.expect("the run ends with a test");
    let test: serde_json::Value = serde_json::from_str(&test).expect("JSON");
    for client in ["0", "1", "2", "3"] {
        let ndcg = |model: &str| test[client][model]["ndcg"]["10"].as_f64().expect("a number");
        assert!(ndcg("after") > 1.5 * ndcg("before"), "client {client} has learned: {test}");
    }
    let logs = ["shard-0-0", "shard-0-1"].map(|shard| place.read(&format!("up/logs/{shard}.log")));
    let refused = |log: &String| log.contains("client-4") && log.contains("expected at most");
    assert!(logs.iter().any(refused), "a shard says whom it refused: {logs:#?}");
}
