//! Claims about the two phases on one member and about the aggregator's collection (protocol.md 2):
//! messages that come twice, late or to the wrong one change nothing.

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use fellrec::checkpoint::CheckpointError;
use fellrec::federation::collection::{Collection, CollectionError, SubmittedSlice};
use fellrec::federation::member::{Member, MemberError};
use fellrec::federation::round::{Attempt, StateId};
use fellrec::federation::track::Track;
use fellrec::ids::{ClientId, Round};
use fellrec::model::cut::Place;
use fellrec::model::slice::{NamedTensor, Slice};
use harness::{World, full};
use tch::{Device, Kind, Tensor};

const CLIENT: ClientId = ClientId(0);

fn attempt(round: u64, attempt: u32) -> Attempt {
    Attempt { round: Round(round), attempt }
}

fn own(round: u64) -> StateId {
    StateId::own(Round(round))
}

fn world() -> Rc<World> {
    full(&[])
}

/// Pretends that a local round added `change` to every number.
fn train(member: &mut Member, now: Attempt, base: StateId, change: f64) {
    train_track(member, Track::Global, now, base, change);
}

fn train_track(member: &mut Member, track: Track, now: Attempt, base: StateId, change: f64) {
    let parts = [Place::Front, Place::Back].map(|place| {
        let mut state = member.load(track, place, base).expect("the base is there");
        state.slice = moved(&state.slice, change);
        (place, state.into_trainable(Device::Cpu))
    });
    member.finish(track, now, base, parts);
}

fn moved(slice: &Slice, change: f64) -> Slice {
    let moved = |t: &NamedTensor| NamedTensor::new(&t.name, &t.tensor + change);
    Slice::new(slice.tensors.iter().map(moved).collect())
}

fn mixed(member: &Member, now: Attempt, change: f64) -> BTreeMap<Place, Slice> {
    let slice = |place| member.submission(now, place).expect("trained").trained;
    [Place::Front, Place::Back].map(|place| (place, moved(&slice(place), change))).into()
}

fn rounds(numbers: &[u64]) -> BTreeSet<Round> {
    numbers.iter().copied().map(Round).collect()
}

fn digest(member: &Member, round: u64) -> String {
    digest_of(member, Track::Global, round)
}

fn digest_of(member: &Member, track: Track, round: u64) -> String {
    let front = member.load(track, Place::Front, own(round)).expect("the state is there");
    front.slice.digest().to_string()
}

#[test]
fn staging_leaves_the_current_state_alone_and_repeats_with_the_same_receipt() {
    let world = world();
    let mut member = world.client_member(CLIENT);
    let (now, before) = (attempt(0, 0), digest(&world.client_member(CLIENT), 0));
    train(&mut member, now, own(0), 0.25);
    let receipt = member.stage(now, mixed(&member, now, 0.5)).expect("staged");
    assert_eq!(digest(&member, 0), before);
    assert_ne!(digest(&member, 1), before);
    assert_eq!(member.stage(now, mixed(&member, now, 0.5)).expect("staged again"), receipt);
    assert_ne!(member.stage(now, mixed(&member, now, 0.75)).expect("another mix"), receipt);
}

/// The crash between stage and commit: both sides of it are on disk, whole.
#[test]
fn a_member_started_again_between_stage_and_commit_can_take_either_side() {
    let world = world();
    let mut member = world.client_member(CLIENT);
    train(&mut member, attempt(0, 0), own(0), 0.25);
    member.stage(attempt(0, 0), mixed(&member, attempt(0, 0), 0.5)).expect("staged");
    let (before, staged) = (digest(&member, 0), digest(&member, 1));
    drop(member);
    let mut restarted = world.client_member(CLIENT);
    assert_eq!((digest(&restarted, 0), digest(&restarted, 1)), (before, staged.clone()));
    let error = restarted.submission(attempt(0, 0), Place::Front).expect_err("it was in memory");
    assert!(matches!(error, MemberError::NotTrained { .. }), "{error}");
    restarted.commit(&rounds(&[1])).expect("committed");
    assert_eq!(digest(&restarted, 1), staged);
}

#[test]
fn a_late_word_to_abandon_an_attempt_leaves_the_later_one() {
    let world = world();
    let mut member = world.client_member(CLIENT);
    train(&mut member, attempt(2, 1), own(0), 0.25);
    member.abandon(attempt(2, 0));
    member.submission(attempt(2, 1), Place::Front).expect("it was not meant");
    member.abandon(attempt(2, 1));
    let error = member.submission(attempt(2, 1), Place::Front).expect_err("dropped");
    assert!(matches!(error, MemberError::NotTrained { .. }), "{error}");
}

/// A commit that arrives once more, when the next round is staged already.
#[test]
fn a_late_commit_takes_nothing_of_the_round_after_it() {
    let world = world();
    let mut member = world.client_member(CLIENT);
    for round in 0..2 {
        let now = attempt(round, 0);
        train(&mut member, now, own(round), 0.25);
        member.stage(now, mixed(&member, now, 0.5)).expect("staged");
        member.commit(&rounds(&[round, round + 1])).expect("committed");
    }
    let now = attempt(2, 0);
    train(&mut member, now, own(2), 0.25);
    member.stage(now, mixed(&member, now, 0.5)).expect("staged");
    member.commit(&rounds(&[1, 2])).expect("late");
    member.submission(now, Place::Front).expect("what was trained is still here");
    assert_eq!(world.rounds_on_disk("clients/0"), [1, 2, 3]);
    member.commit(&rounds(&[2, 3])).expect("its own");
    assert_eq!(world.rounds_on_disk("clients/0"), [2, 3]);
    member.submission(now, Place::Front).expect_err("nothing is in memory between rounds");
}

#[test]
fn what_was_not_trained_here_is_refused_by_attempt() {
    let world = world();
    let mut member = world.client_member(CLIENT);
    let trained = attempt(0, 1);
    train(&mut member, trained, own(0), 0.25);
    for other in [attempt(0, 0), attempt(0, 2), attempt(1, 1)] {
        let staged = member.stage(other, mixed(&member, trained, 0.5));
        let error = staged.expect_err("another attempt");
        assert!(error.to_string().contains("no trained state of round"), "{error}");
    }
    let wrong = BTreeMap::from([(Place::Front, Slice::default())]);
    let error = member.stage(trained, wrong).expect_err("no tensors");
    assert!(matches!(error, MemberError::Layout { place: Place::Front, .. }), "{error}");
    let missing = member.load(Track::Global, Place::Front, own(7)).expect_err("never staged");
    assert!(matches!(missing, CheckpointError::Missing { round: Round(7), .. }), "{missing}");
    assert_eq!(world.rounds_on_disk("clients/0"), [0u64; 0], "nothing was written");
}

/// protocol.md 2: own state and mean of one round are both on disk; the one that is named is loaded,
/// trained from and submitted as the start, and one that is not there is not replaced by the other.
#[test]
fn of_two_states_of_a_round_the_one_that_was_named_is_taken() {
    let world = world();
    let mut member = world.client_member(CLIENT);
    let now = attempt(0, 0);
    train(&mut member, now, own(0), 0.25);
    let mean = mixed(&member, now, 4.0);
    let digest_of_mean = mean[&Place::Front].digest();
    let load = |member: &Member, state| member.load(Track::Global, Place::Front, state);
    let (own, shared) = (own(1), StateId::shared(Round(1)));

    world.shared_store().stage(Round(1), mean, &rounds(&[])).expect("staged");
    load(&member, own).expect_err("the mean does not stand in for it");
    member.stage(now, mixed(&member, now, 0.5)).expect("staged");
    assert_eq!(load(&member, shared).expect("there").slice.digest(), digest_of_mean);
    assert_ne!(load(&member, own).expect("there").slice.digest(), digest_of_mean);

    train(&mut member, attempt(1, 0), shared, 0.25);
    let submitted = member.submission(attempt(1, 0), Place::Front).expect("trained");
    assert_eq!(submitted.start.digest(), digest_of_mean);

    std::fs::remove_dir_all(world.folder().join("shared")).expect("removable");
    let missing = load(&member, shared).expect_err("its own does not stand in for the mean");
    assert!(matches!(missing, CheckpointError::Missing { round: Round(1), .. }), "{missing}");
}

/// method.md 9, Ditto: both models are staged in one folder under one receipt; the personal one is
/// what was trained, whatever the mix, and nothing is handed on without it.
#[test]
fn the_personal_track_is_staged_beside_the_global_one() {
    let world = full(&["mixing.rule=fedavg", "training.ditto_lambda=0.5"]);
    let mut member = world.client_member(CLIENT);
    let now = attempt(0, 0);
    assert_eq!(digest_of(&member, Track::Personal, 0), digest(&member, 0), "one start");
    train(&mut member, now, own(0), 0.25);
    let error = member.submission(now, Place::Front).expect_err("half a local round");
    assert!(matches!(error, MemberError::NotTrained { .. }), "{error}");
    train_track(&mut member, Track::Personal, now, own(0), 2.0);
    let receipt = member.stage(now, mixed(&member, now, 0.5)).expect("staged");
    member.commit(&rounds(&[1])).expect("committed");
    let front = |track, round| {
        member.load(track, Place::Front, own(round)).expect("the state is there").slice
    };
    let start = front(Track::Global, 0);
    assert_eq!(front(Track::Personal, 1).digest(), moved(&start, 2.0).digest());
    assert_eq!(front(Track::Global, 1).digest(), moved(&moved(&start, 0.25), 0.5).digest());

    let mut other = world.fork().client_member(CLIENT);
    train(&mut other, now, own(0), 0.25);
    train_track(&mut other, Track::Personal, now, own(0), 3.0);
    let differs = other.stage(now, mixed(&other, now, 0.5)).expect("staged");
    assert_ne!(differs, receipt, "the receipt covers the personal model");
}

fn submitted(value: f64) -> SubmittedSlice {
    let slice = |value| {
        let tensor = Tensor::full([2], value, (Kind::Float, Device::Cpu));
        Slice::new(vec![NamedTensor::new("w", tensor)])
    };
    SubmittedSlice { trained: slice(value), start: slice(0.0) }
}

#[test]
fn the_collection_keeps_to_the_newest_attempt() {
    let places = [Place::Front, Place::Stage(0), Place::Back];
    let layout = places.map(|place| (place, submitted(0.0).trained));
    let mut collection = Collection::new(layout.into());
    let rules = &world().config().screening.clone();
    let now = attempt(4, 1);
    for place in &places {
        collection.submit(now, CLIENT, *place, submitted(1.0)).expect("taken in");
    }
    let receipt = collection.submit(now, CLIENT, Place::Front, submitted(1.0)).expect("repeated");
    assert_eq!(receipt, submitted(1.0).trained.digest());
    for late in [attempt(4, 0), attempt(3, 9)] {
        let error = collection.submit(late, CLIENT, Place::Back, submitted(9.0));
        assert!(matches!(error, Err(CollectionError::StaleAttempt { .. })), "{error:?}");
    }
    let other = collection.submit(now, CLIENT, Place::Stage(7), submitted(1.0));
    assert!(matches!(other, Err(CollectionError::UnknownPlace { .. })), "{other:?}");
    assert!(collection.screen(now, &[CLIENT], rules).expect("complete").is_empty());
    let strangers = collection.screen(now, &[CLIENT, ClientId(5)], rules);
    let Err(CollectionError::Missing { clients }) = strangers else { panic!("{strangers:?}") };
    assert_eq!(clients, [ClientId(5)]);
    for late in [attempt(4, 0), attempt(3, 9)] {
        let error = collection.screen(late, &[CLIENT], rules);
        assert!(matches!(error, Err(CollectionError::StaleAttempt { .. })), "{error:?}");
    }
    // A supervisor that took another's place goes on from an earlier commit.
    let back = attempt(3, Attempt::PER_SUPERVISOR);
    collection.submit(back, ClientId(9), Place::Front, submitted(1.0)).expect("a later attempt");
    collection.submit(attempt(4, 2), CLIENT, Place::Front, submitted(1.0)).expect("a new attempt");
    let dropped = collection.screen(attempt(4, 2), &[CLIENT], rules);
    assert!(matches!(dropped, Err(CollectionError::Missing { .. })), "{dropped:?}");
}

#[test]
fn a_client_harms_no_slices_but_its_own() {
    let places = [Place::Front, Place::Stage(0), Place::Back];
    let layout = places.map(|place| (place, submitted(0.0).trained));
    let mut collection = Collection::new(layout.into());
    let (now, rules, other) = (attempt(4, 0), world().config().screening.clone(), ClientId(5));
    for place in places {
        collection.submit(now, CLIENT, place, submitted(1.0)).expect("taken in");
        collection.submit(now, other, place, submitted(1.0)).expect("taken in");
    }
    // An attempt that there will not be for long, and tensors that the model does not have.
    collection.submit(attempt(99, 0), other, Place::Front, submitted(1.0)).expect("its own");
    assert!(collection.screen(now, &[CLIENT], &rules).expect("complete").is_empty());
    let strange = SubmittedSlice { trained: Slice::default(), start: Slice::default() };
    let error = collection.submit(now, CLIENT, Place::Back, strange);
    assert!(matches!(error, Err(CollectionError::Layout { .. })), "{error:?}");
    assert!(collection.screen(now, &[CLIENT], &rules).expect("complete").is_empty());
    let missing = collection.screen(now, &[CLIENT, other], &rules);
    assert!(matches!(missing, Err(CollectionError::Missing { .. })), "{missing:?}");
}
