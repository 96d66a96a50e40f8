//! Claims about a shard's session (protocol.md 2 and 3): half steps may be repeated, late ones
//! change nothing, and a session that is not where the client is says so.

mod common;

use common::{Ends, Party, SEED, optimizer, split, step_id};
use fellrec::config::{OrNone, Trainable};
use fellrec::ids::StepId;
use fellrec::seed;
use fellrec::split::{BodySession, HiddenStates, SplitError, StepPlan};
use fellrec::training::learning_rate;
use rand::Rng;
use tch::{Device, Kind, Tensor};

const STEPS: u64 = 3;

fn session() -> BodySession {
    tch::set_num_threads(1);
    // With a proximal term, so that one added twice shows.
    let cut = split(1, 1, OrNone::None);
    let party = Party::proximal(Ends::Items, Trainable::Full, &cut, false, 0.5);
    party.stages.into_iter().next().expect("the cut leaves blocks to a shard")
}

/// From a generator of our own: libtorch's is shared between the threads of a test binary.
fn hidden(step: u64) -> HiddenStates {
    let mut rng = seed::rng(SEED, "test hidden states", &[step]);
    let values: Vec<f32> = (0..2 * 5 * 16).map(|_| rng.random_range(-1.0..1.0)).collect();
    HiddenStates::new(&Tensor::from_slice(&values).view([2, 5, 16]))
}

fn plan() -> StepPlan {
    StepPlan { learning_rate: learning_rate(&optimizer(), 9), grad_scale: 1.0 }
}

/// Runs all steps; `meddle` is called after every half step with the step under way.
fn train(mut meddle: impl FnMut(&mut BodySession, u64)) -> String {
    let mut session = session();
    for number in 0..STEPS {
        let step = step_id(number);
        session.forward(step, &hidden(number)).expect("its turn");
        meddle(&mut session, number);
        session.backward(step, &hidden(number + 10)).expect("pending");
        meddle(&mut session, number);
        session.step(step, plan()).expect("pending");
        meddle(&mut session, number);
    }
    session.close().into_parts().0.digest().to_string()
}

/// A message that the network delivers once more, whenever that is, leaves no trace.
#[test]
fn late_and_repeated_half_steps_change_nothing() {
    let expected = train(|_, _| ());
    let replayed = train(|session, newest| {
        for number in 0..=newest {
            // Refused or answered, either is fine.
            let _ = session.forward(step_id(number), &hidden(number));
        }
        for number in 0..newest {
            let _ = session.backward(step_id(number), &hidden(number + 10));
            let _ = session.step(step_id(number), plan());
        }
    });
    assert_eq!(replayed, expected);
}

#[test]
fn a_repeated_half_step_answers_the_same() {
    let mut session = session();
    let step = step_id(0);
    let mut forward = || session.forward(step, &hidden(0)).expect("its turn");
    let (first, second) = (forward(), forward());
    let answer = session.backward(step, &hidden(1)).expect("pending");
    let late = session.forward(step, &hidden(0)).expect("late");
    assert_eq!(first.tensor(), second.tensor());
    assert_eq!(first.tensor(), late.tensor());
    let again = session.backward(step, &hidden(1)).expect("pending still");
    assert_eq!(answer.hidden.tensor(), again.hidden.tensor());
    assert_eq!(answer.squared_norm, again.squared_norm);
}

/// A session opened after a crash must not go on from the middle of a local round: its slice is
/// the one of the round's start.
#[test]
fn a_session_that_missed_steps_sends_the_client_back() {
    let mut session = session();
    let ahead = StepId { step: 5, ..step_id(0) };
    let error = session.forward(ahead, &hidden(5)).expect_err("the steps before are missing");
    assert!(matches!(error, SplitError::UnknownStep { .. }) && error.is_retryable(), "{error}");
    session.forward(step_id(0), &hidden(0)).expect("the first one");
    let skipped = session.forward(step_id(1), &hidden(1)).expect_err("step 0 was never made");
    assert!(skipped.is_retryable(), "{skipped}");
    session.backward(step_id(0), &hidden(10)).expect("pending");
    session.step(step_id(0), plan()).expect("pending");
    let stale = session.forward(step_id(0), &hidden(0)).expect_err("made already");
    assert!(matches!(stale, SplitError::StaleStep { .. }) && !stale.is_retryable(), "{stale}");
}

/// A gradient of another batch is refused, not a panic, and the pending step goes on.
#[test]
fn shapes_that_do_not_belong_together_are_refused() {
    let mut session = session();
    let of = |shape: [i64; 3]| HiddenStates::new(&Tensor::zeros(shape, (Kind::Float, Device::Cpu)));
    let narrow = session.forward(step_id(0), &of([2, 5, 8])).expect_err("another width");
    assert!(matches!(narrow, SplitError::ShapeMismatch { .. }), "{narrow}");
    session.forward(step_id(0), &hidden(0)).expect("its turn");
    let other = session.backward(step_id(0), &of([2, 4, 16])).expect_err("another batch");
    assert!(matches!(other, SplitError::OtherShape { .. }), "{other}");
    session.backward(step_id(0), &hidden(10)).expect("still pending");
}
