//! Claims of architecture.md 4 about clients that do not play along: the round goes on without
//! them if the quorum holds, they are named, and they join the next one.

mod harness;

use std::rc::Rc;

use fellrec::federation::round::{Absence, Outcome, StateId};
use fellrec::ids::{ClientId, Round};
use harness::{
    Chaos, Conduct, Fault, Moment, NodeId, RunEnd, Scenario, Spoil, World, full, lora, run,
};

/// The client that misbehaves, and the round in which it does.
const ODD: ClientId = ClientId(1);
const WHEN: Round = Round(1);

const IMPATIENT: [&str; 2] =
    ["runtime.deterministic=false", "federation.progress_deadline_secs=30"];

fn with_conduct(conduct: Conduct) -> Scenario {
    Scenario { conduct: [((ODD, WHEN), conduct)].into(), ..Scenario::default() }
}

/// What became of the odd client in its round.
fn absence(end: &RunEnd) -> &Absence {
    let commit = end.commits.iter().find(|commit| commit.attempt.round == WHEN);
    let absent = &commit.expect("the round is committed").absent;
    assert_eq!(absent.keys().collect::<Vec<_>>(), [&ODD], "nobody else is absent");
    &absent[&ODD]
}

/// A run in which the odd client says at once that it has no part in the round.
fn without_it() -> RunEnd {
    run(&full(&[]), &with_conduct(Conduct::Refuses))
}

#[test]
fn a_client_that_refuses_keeps_its_state_and_joins_the_next_round() {
    let world = full(&[]);
    let end = run(&world, &with_conduct(Conduct::Refuses));
    end.expect_done();
    assert_eq!(absence(&end), &Absence::Refused("the shop is closed".to_owned()));
    let took_part: Vec<bool> =
        end.commits.iter().map(|commit| commit.participants.contains_key(&ODD)).collect();
    assert_eq!(took_part, [true, false, true]);
    assert_eq!(end.state.slices[&ODD], Round(3));
    assert_ne!(end.digest, run(&full(&[]), &Scenario::default()).digest, "it was missed");
}

/// The others get what they would get had it declined.
#[test]
fn a_silent_client_is_left_behind_after_its_deadline() {
    let scenario = with_conduct(Conduct::FallsSilent { until_attempt: 9 });
    let end = run(&full(&IMPATIENT), &scenario);
    assert_eq!(absence(&end), &Absence::Silent);
    assert_eq!(end.expect_done().digest, without_it().digest);
}

#[test]
fn a_client_that_is_down_too_long_is_left_behind_and_joins_the_next_round() {
    let world = full(&IMPATIENT);
    let calm = run(&world.fork(), &Scenario::default());
    let second_round = calm.deliveries[&NodeId::Client(ODD)] * 2 / 5;
    let fault = Fault {
        node: NodeId::Client(ODD),
        message: second_round,
        moment: Moment::After,
        down_ms: 40_000,
    };
    let end = run(&world, &Scenario { faults: vec![fault], ..Scenario::default() });
    assert_eq!(absence(end.expect_done()), &Absence::Silent);
    assert_eq!(end.state.slices[&ODD], Round(3));
}

#[test]
fn a_missed_quorum_opens_the_round_again_and_nothing_shows_in_the_end() {
    let all = [&IMPATIENT[..], &["federation.quorum=all"]].concat();
    let end = run(&full(&all), &with_conduct(Conduct::FallsSilent { until_attempt: 2 }));
    let attempts = end.opened.iter().filter(|(attempt, _)| attempt.round == WHEN);
    assert_eq!(attempts.count(), 3);
    assert_eq!(end.expect_done().digest, run(&full(&[]), &Scenario::default()).digest);
}

/// The run stops with a clear error, what was committed is intact, and a resume finishes it.
#[test]
fn a_spent_budget_ends_the_run_and_loses_nothing() {
    let all = [&IMPATIENT[..], &["federation.quorum=all", "federation.reopen_budget=2"]].concat();
    let world = full(&all);
    let end = run(&world, &with_conduct(Conduct::FallsSilent { until_attempt: 9 }));
    let Ok(Outcome::RoundFailed(reason)) = &end.outcome else { panic!("{end:#?}") };
    assert!(
        reason.contains(
            "2 of 3 clients finished, 3 needed (client-1: no progress within the deadline)"
        ),
        "{reason}"
    );
    let (manifest, skipped) = world.newest();
    assert_eq!(manifest.expect("round 0 was committed").state.committed, WHEN);
    assert!(skipped.is_empty());
    let resumed = run(&world, &Scenario::default());
    let undisturbed = run(&full(&[]), &Scenario::default());
    assert_eq!(resumed.expect_done().digest, undisturbed.digest);
}

/// NaN, infinite, wrongly shaped, oversized: named, and the others go on as if it were absent. What is not even
/// of the model's shape is refused when it is submitted, the rest when the round is screened.
#[test]
fn a_spoilt_update_is_screened_out_and_named() {
    let expected = without_it().digest;
    for (spoil, because) in [
        (Spoil::NanTensor, "not finite"),
        (Spoil::InfiniteTensor, "not finite"),
        (Spoil::WrongShape, "shape"),
        (Spoil::ExtraTensor, "surprise"),
        (Spoil::MissingTensor, "missing"),
        (Spoil::HugeNorm, "times the median"),
        (Spoil::NanLoss, "loss is NaN"),
    ] {
        let end = run(&full(&[]), &with_conduct(Conduct::Sends(spoil)));
        let reason = match (spoil, absence(&end)) {
            (Spoil::WrongShape | Spoil::ExtraTensor | Spoil::MissingTensor, Absence::Lost(why)) => {
                why
            }
            (_, Absence::Screened(why)) => why,
            other => panic!("{other:?}: {end:#?}"),
        };
        assert!(reason.contains(because), "{spoil:?}: {reason}");
        assert_eq!(end.expect_done().digest, expected, "{spoil:?}");
    }
}

/// Under a deadline that is too short for the network, rounds are opened again and again, and
/// messages of earlier attempts arrive in later ones: they change nothing.
#[test]
fn messages_of_earlier_attempts_change_nothing() {
    let sets = [
        "runtime.deterministic=false",
        "federation.progress_deadline_secs=2",
        "federation.quorum=all",
        "federation.reopen_budget=1000",
    ];
    let expected = run(&full(&[]), &Scenario::default()).digest;
    let world: Rc<World> = full(&sets);
    let mut attempts = 0;
    for seed in 0..6 {
        let scenario = Scenario { chaos: Chaos::wild(seed), ..Scenario::default() };
        let end = run(&world.fork(), &scenario);
        assert_eq!(end.expect_done().digest, expected, "seed {seed}");
        attempts += end.opened.len();
    }
    assert!(attempts > 6 * 3 + 6, "only {attempts} attempts: the test shows nothing");
}

/// The odd client stages in attempt 0 of its round, which is then given up since another one cannot,
/// and declines attempt 1: under FedAvg it follows the mean of the others.
fn staged_in_vain() -> Scenario {
    let odd = ((ODD, WHEN), Conduct::RefusesFrom { attempt: 1 });
    let full_disk = ((ClientId(2), WHEN), Conduct::CannotStage { until_attempt: 1 });
    Scenario { conduct: [odd, full_disk].into(), ..Scenario::default() }
}

/// It trains from the mean, is evaluated with it and has it for its best state, as a client that has
/// nothing of its own on disk: what it staged in vain leaves no trace.
#[test]
fn what_was_staged_in_vain_never_stands_in_for_the_mean() {
    let followed = WHEN.next();
    let mut best_of_all = 0;
    for flavour in [full, lora] {
        for seed in 0..6 {
            let sets = ["mixing.rule=fedavg", &format!("run.seed={seed}")];
            let other = flavour(&sets);
            let expected = run(&other, &with_conduct(Conduct::Refuses));
            let world = flavour(&sets);
            let stopped = run(&world, &Scenario { stop_after: Some(followed), ..staged_in_vain() });
            assert_eq!(stopped.opened.len(), 3, "the round was opened twice");
            assert_eq!(stopped.state.current(ODD), StateId::shared(followed));
            let mean = world.describe(ODD, StateId::shared(followed));
            assert_eq!(mean, other.describe(ODD, StateId::shared(followed)));
            assert_ne!(mean, world.describe(ODD, StateId::own(followed)), "both are on disk");

            let through = run(&flavour(&sets), &staged_in_vain());
            let resumed = run(&world, &Scenario::default());
            for end in [&through, &resumed] {
                assert_eq!(end.expect_done().digest, expected.expect_done().digest);
                assert_eq!(end.state, expected.state);
            }
            let best = resumed.state.best_state(ODD);
            assert_eq!(world.describe(ODD, best), other.describe(ODD, best));
            best_of_all += u32::from(best == StateId::shared(followed));
        }
    }
    assert!(best_of_all > 0, "a mean was somebody's best");
}
