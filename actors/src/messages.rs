//! Every message that crosses an actor boundary: the protocol on a page (protocol.md 2).
//!
//! Commands are verbs, events past participles. Tensors travel only inside `HiddenStates`, `Slice`
//! and `SubmittedSlice`: inside a process by handle, never encoded.

use std::collections::{BTreeMap, BTreeSet};

use actix::Message;
use actix::dev::MessageResponse;
use fellrec::cost::ClientCost;
use fellrec::federation::collection::{CollectionError, SubmittedSlice};
use fellrec::federation::member::{MemberError, Opening};
use fellrec::federation::mixing::MixingWeights;
use fellrec::federation::round::{Attempt, LocalRoundReport, Participant, TabledState};
use fellrec::history::TestResult;
use fellrec::ids::{ClientId, Round, ShardId, StepId};
use fellrec::model::cut::Place;
use fellrec::model::slice::{Digest, Slice};
use fellrec::ranking::Metrics;
use fellrec::split::{BodyGradient, DecodeTurn, HiddenStates, SplitError, StepPlan};
use fellrec::training::Timed;
use serde::{Deserialize, Serialize};

use crate::aggregator::MixRoundError;
use crate::as_json;
use crate::client::ClientError;
use crate::registry::MemberName;
use crate::shard::ShardError;
use crate::supervisor::{Door, Heard};

// ---- Supervisor to client -------------------------------------------------------------------

/// Train a local round. From: supervisor. Answer: accepted, or why not; then [`StepDone`] events and
/// [`LocalRoundEnded`]. Repeated for the attempt under way it is accepted and changes nothing.
#[derive(Clone, Debug, Message, Serialize, Deserialize)]
#[rtype(result = "Result<(), ClientError>")]
pub struct OpenRound {
    /// Round and attempt.
    pub attempt: Attempt,
    /// The client's current state, its own or the mean, and the item table it trains with.
    pub base: TabledState,
}

/// Stop working on an attempt and drop what it trained. From: supervisor.
#[derive(Clone, Debug, Message, Serialize, Deserialize)]
#[rtype(result = "()")]
pub struct AbandonRound {
    /// Attempt that is over.
    pub attempt: Attempt,
}

/// Submit the trained slices once more: the aggregator lost them. From: supervisor. Answer: when the
/// receipts are there.
#[derive(Clone, Debug, Message, Serialize, Deserialize)]
#[rtype(result = "Result<(), ClientError>")]
pub struct SubmitAgain {
    /// Attempt the slices belong to.
    pub attempt: Attempt,
}

/// A round is committed: what is staged is current. From: supervisor.
#[derive(Clone, Debug, Message, Serialize, Deserialize)]
#[rtype(result = "Result<(), MemberError>")]
pub struct CommitRound {
    /// States that stay on disk.
    pub retain: BTreeSet<Round>,
}

/// Rank the validation rows. From: supervisor. Answer: metrics; `None` without such rows.
#[derive(Clone, Debug, Message, Serialize, Deserialize)]
#[rtype(result = "Result<Option<Metrics>, ClientError>")]
pub struct EvaluateRound {
    /// State to rank with.
    pub state: TabledState,
}

/// Rank the test rows by popularity, by the start and by a chosen state. From: supervisor, at the end.
#[derive(Clone, Debug, Message, Serialize, Deserialize)]
#[rtype(result = "Result<Option<TestResult>, ClientError>")]
pub struct TestModel {
    /// Chosen state.
    pub best: TabledState,
}

// ---- Client to shard ------------------------------------------------------------------------

/// Load a client's body slice and moments. From: client, before a local round or an evaluation. It
/// replaces the client's earlier session.
#[derive(Clone, Debug, Message, Serialize, Deserialize)]
#[rtype(result = "Result<(), ShardError>")]
pub struct OpenSession {
    /// Whose slice.
    pub client: ClientId,
    /// Which state of it, and what for.
    pub opening: Opening,
}

/// Run the server-held layers on one client batch. From: client. Answer: what its next stage starts from.
#[derive(Debug, Message, Serialize, Deserialize)]
#[rtype(result = "Result<Timed<HiddenStates>, SplitError>")]
pub struct ForwardBody {
    /// Client the batch belongs to.
    pub client: ClientId,
    /// Ties this pass to the [`BackwardBody`] that follows it.
    pub step: StepId,
    /// Hidden states, `[B, T, D]`.
    pub hidden: HiddenStates,
}

/// Back-propagate through the server-held layers. From: client. Answer: gradient at their input.
#[derive(Debug, Message, Serialize, Deserialize)]
#[rtype(result = "Result<Timed<BodyGradient>, SplitError>")]
pub struct BackwardBody {
    /// Client the step belongs to.
    pub client: ClientId,
    /// Step of the forward pass.
    pub step: StepId,
    /// Gradient at the output, `[B, T, D]`.
    pub grad: HiddenStates,
}

/// Make the optimiser step of the body slice. From: client.
#[derive(Clone, Debug, Message, Serialize, Deserialize)]
#[rtype(result = "Result<Timed<()>, SplitError>")]
pub struct StepBody {
    /// Client the step belongs to.
    pub client: ClientId,
    /// Step of the passes.
    pub step: StepId,
    /// Step size and clipping, equal on every part.
    pub plan: StepPlan,
}

/// Run the server-held layers without keeping anything. From: client, in evaluation.
#[derive(Debug, Message, Serialize, Deserialize)]
#[rtype(result = "Result<Timed<HiddenStates>, SplitError>")]
pub struct EvaluateBody {
    /// Client the batch belongs to.
    pub client: ClientId,
    /// Hidden states, `[B, T, D]`.
    pub hidden: HiddenStates,
}

/// Run the server-held layers for one turn of a decoding: a batch of prompts, then token by token.
/// From: client, in evaluation. Answer: what its next stage starts from; `None` if what the turns
/// before left was evicted, and the decoding has to start over.
#[derive(Debug, Message, Serialize, Deserialize)]
#[rtype(result = "Result<Option<Timed<HiddenStates>>, SplitError>")]
pub struct DecodeBody {
    /// Client the prompts belong to.
    pub client: ClientId,
    /// Which turn; repeated it is answered as before.
    pub turn: DecodeTurn,
    /// Hidden states: `[B, T, D]` with lengths for the prompts, `[B, 1, D]` for the tokens.
    pub hidden: HiddenStates,
}

/// End an evaluation's session. From: client.
#[derive(Clone, Debug, Message, Serialize, Deserialize)]
#[rtype(result = "()")]
pub struct CloseSession {
    /// Whose session.
    pub client: ClientId,
}

/// End the pass of the personal model and keep what it trained until the commit; it goes to nobody
/// (method.md 9, Ditto). From: client, before the pass of the global model. Answer: it is kept.
#[derive(Clone, Debug, Message, Serialize, Deserialize)]
#[rtype(result = "Result<(), ShardError>")]
pub struct KeepPersonal {
    /// Whose.
    pub client: ClientId,
    /// Attempt that was trained.
    pub attempt: Attempt,
}

/// End the local round and submit the body slice to the aggregator. From: client. Answer: its receipt.
/// Repeated, the slice is submitted again.
#[derive(Clone, Debug, Message, Serialize, Deserialize)]
#[rtype(result = "Result<Digest, ShardError>")]
pub struct CloseLocalRound {
    /// Whose.
    pub client: ClientId,
    /// Attempt that was trained.
    pub attempt: Attempt,
}

// ---- To and from the aggregator -------------------------------------------------------------

/// A trained slice for the open round. From: client (front, back), shard (body). Answer: a receipt,
/// never the mix.
#[derive(Debug, Message, Serialize, Deserialize)]
#[rtype(result = "Result<Digest, CollectionError>")]
pub struct SubmitSlice {
    /// Attempt it was trained in.
    pub attempt: Attempt,
    /// Whose.
    pub client: ClientId,
    /// Place of its tensors.
    pub place: Place,
    /// Replica that holds the place's moments; `None` where the client itself does.
    pub holder: Option<ShardId>,
    /// The tensors.
    pub slice: SubmittedSlice,
}

/// Hand out the mean that a mix left. From: a member of another node that is told to follow it. Answer: its
/// slices at these places.
#[derive(Clone, Debug, Message, Serialize, Deserialize)]
#[rtype(result = "Result<BTreeMap<Place, Slice>, MemberError>")]
pub struct FetchMean {
    /// Round that starts from it.
    pub round: Round,
    /// Places that the member holds.
    pub places: Vec<Place>,
}

/// Check the submitted updates. From: supervisor. Answer: the refused ones with the reason.
#[derive(Clone, Debug, Message, Serialize, Deserialize)]
#[rtype(result = "Result<BTreeMap<ClientId, String>, CollectionError>")]
pub struct ScreenRound {
    /// The attempt.
    pub attempt: Attempt,
    /// Clients that finished.
    pub participants: Vec<ClientId>,
}

/// Mix and stage. From: supervisor, when every slice is receipted. Answer: when all members have staged.
#[derive(Clone, Debug, Message, Serialize, Deserialize)]
#[rtype(result = "Result<RoundMixed, MixRoundError>")]
pub struct MixRound {
    /// The attempt.
    pub attempt: Attempt,
    /// Openness and report of every participant.
    pub participants: BTreeMap<ClientId, Participant>,
    /// Present if somebody else goes on from the mean of the mixed models: it is staged as well, and
    /// of the earlier means those of these rounds stay.
    pub shared: Option<BTreeSet<Round>>,
}

/// A mix that every member has staged.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RoundMixed {
    /// Who took how much from whom.
    #[serde(with = "as_json")]
    pub weights: MixingWeights,
    /// Digest over all new slices.
    pub digest: Digest,
    /// Receipt of every staged state.
    pub receipts: BTreeMap<ClientId, StagedReceipts>,
    /// Receipt of the staged mean, if one was asked for.
    pub shared: Option<Digest>,
}

/// Where one client's next state is staged.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StagedReceipts {
    /// Receipt of front and back, held by the client.
    pub client: Option<Digest>,
    /// Receipt of each stage's slice and the replica that staged it.
    pub stages: BTreeMap<usize, (ShardId, Digest)>,
}

/// Stage a client's mixed front and back beside the current ones. From: aggregator. Answer: receipt.
#[derive(Debug, Message, Serialize, Deserialize)]
#[rtype(result = "Result<Digest, MemberError>")]
pub struct StageSlices {
    /// Attempt they were mixed from.
    pub attempt: Attempt,
    /// By place.
    pub slices: BTreeMap<Place, Slice>,
}

/// Stage a client's mixed body slice. From: aggregator. Answer: receipt.
#[derive(Debug, Message, Serialize, Deserialize)]
#[rtype(result = "Result<Digest, MemberError>")]
pub struct StageBody {
    /// Whose.
    pub client: ClientId,
    /// Attempt it was mixed from.
    pub attempt: Attempt,
    /// The slice.
    pub slice: Slice,
}

/// A round is committed. From: supervisor, to the replica that staged these clients' slices.
#[derive(Clone, Debug, Message, Serialize, Deserialize)]
#[rtype(result = "Result<(), MemberError>")]
pub struct CommitBodies {
    /// States that stay on disk, by client.
    pub retain: BTreeMap<ClientId, BTreeSet<Round>>,
}

// ---- To the supervisor ----------------------------------------------------------------------

/// A client finished a step: its heartbeat.
#[derive(Clone, Debug, Message, Serialize, Deserialize)]
#[rtype(result = "()")]
pub struct StepDone {
    /// Attempt it works on.
    pub attempt: Attempt,
    /// Who.
    pub client: ClientId,
    /// Steps done in this local round.
    pub done: u64,
    /// Steps of the local round.
    pub of: u64,
}

/// A client's local round is over: its slices have receipts, or it cannot finish.
#[derive(Debug, Message, Serialize, Deserialize)]
#[rtype(result = "()")]
pub struct LocalRoundEnded {
    /// Attempt it worked on.
    pub attempt: Attempt,
    /// Who.
    pub client: ClientId,
    /// What came of it.
    pub outcome: Result<FinishedRound, String>,
}

/// A finished local round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FinishedRound {
    /// Summary.
    pub report: LocalRoundReport,
    /// Time and traffic.
    pub cost: ClientCost,
}

/// An actor found another one dead. Answer: when a successor is in the registry, or why there is none.
#[derive(Clone, Debug, Message, Serialize, Deserialize)]
#[rtype(result = "Result<(), String>")]
pub struct ReportLost {
    /// Who ended.
    pub member: MemberName,
    /// Which life of it: a successor has a higher number.
    pub generation: u64,
    /// What was seen.
    pub cause: String,
}

/// A member of another node is alive. From: every one of them, once a second; with what it is until it is
/// let in. Answer: how it stands with the run.
#[derive(Clone, Debug, Message, Serialize, Deserialize)]
#[rtype(result = "Heard")]
pub struct Beat {
    /// Who.
    pub member: MemberName,
    /// Its life: drawn at its start.
    pub life: u64,
    /// What must agree.
    pub door: Option<Door>,
}

/// How does the run stand? From: an operator.
#[derive(Clone, Copy, Debug, Message, Serialize, Deserialize)]
#[rtype(result = "RunStatus")]
pub struct AskStatus;

/// How a run stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, MessageResponse)]
pub struct RunStatus {
    /// Rounds that are committed.
    pub committed: Round,
    /// Rounds of the run.
    pub rounds: u64,
    /// What is under way.
    pub phase: String,
    /// Clients at work on the open round.
    pub working: BTreeSet<ClientId>,
    /// Seconds since each member of another node was heard.
    pub heard_secs: BTreeMap<String, f64>,
    /// Members that are to leave.
    pub leaving: BTreeSet<String>,
    /// Members that were started again in this run.
    pub restarts: u32,
}

/// An operator's word: a member finishes what the round needs of it and leaves. Answer: why not, if not.
#[derive(Clone, Copy, Debug, Message, Serialize, Deserialize)]
#[rtype(result = "Result<(), String>")]
pub struct Drain {
    /// Which.
    pub member: MemberName,
}

/// An operator's word: new openness and warm-up from the next mix on. Answer: why not, if not.
#[derive(Clone, Debug, Message, Serialize, Deserialize)]
#[rtype(result = "Result<(), String>")]
pub struct TuneHeating {
    /// New alpha.
    pub alpha: f64,
    /// New beta, in rounds.
    pub beta: f64,
}

/// An operator's word: finish the step, keep the last commit, end.
#[derive(Clone, Debug, Message, Serialize, Deserialize)]
#[rtype(result = "()")]
pub struct StopRun;

/// Ends an actor as a defect would, by a panic: the failure tests send it to any member.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Crash;
