//! Claims about what a run goes on from: every commit gives the same end, with sampling,
//! patience, heating and an operator's changes.

mod harness;

use std::rc::Rc;

use fellrec::federation::round::{Outcome, StateId};
use fellrec::ids::{ClientId, Round};
use harness::{RunEnd, Scenario, World, full, lora, run};

/// Everything that a round may depend on at once: sampling, a client's own heating, moments,
/// evaluation every other round, a warm-up of the step size.
const RICH: [&str; 7] = [
    "federation.rounds=5",
    "federation.participation=0.67",
    "evaluation.every=2",
    "heating.form=intended",
    "heating.overrides=[{ client = 2, alpha = 0.05 }]",
    "optimizer.warmup_steps=6",
    "checkpoint.keep=9",
];

/// An operator who closes everyone after round 2.
fn tuned(world: &World) -> Scenario {
    let mut heating = world.config().heating.clone();
    (heating.alpha, heating.beta) = (0.01, 50.0);
    Scenario { tuning: [(Round(2), heating)].into(), ..Scenario::default() }
}

/// The run as it was when `round` was the newest commit; files of later rounds lie about.
fn as_of(world: &World, round: u64) -> Rc<World> {
    let fork = world.fork();
    for later in fork.rounds_on_disk("rounds").into_iter().filter(|later| *later > round) {
        let folder = fork.folder().join(format!("rounds/round-{later:06}"));
        std::fs::remove_dir_all(folder).expect("the folder can be removed");
    }
    fork
}

fn openness(end: &RunEnd) -> Vec<(u64, u32, f64)> {
    let of_commit = |commit: &harness::Commit| {
        let round = commit.attempt.round.0;
        let rows = commit.participants.iter().map(move |(c, p)| (round, c.0, p.openness));
        rows.collect::<Vec<_>>()
    };
    end.commits.iter().flat_map(of_commit).collect()
}

#[test]
fn every_round_of_a_run_resumes_to_the_same_end() {
    for flavour in [full, lora] {
        let world = flavour(&RICH);
        let scenario = tuned(&world);
        let end = run(&world, &scenario);
        end.expect_done();
        for round in 1..5 {
            let resumed = run(&as_of(&world, round), &scenario);
            assert_eq!(resumed.expect_done().digest, end.digest, "from round {round}");
            assert_eq!(resumed.state, end.state, "from round {round}");
            let tail = openness(&end).into_iter().filter(|(at, ..)| *at >= round);
            assert_eq!(openness(&resumed), tail.collect::<Vec<_>>(), "from round {round}");
        }
    }
}

/// The change is in the manifest: a resume needs no operator to say it again.
#[test]
fn an_operators_change_is_part_of_the_run() {
    let world = full(&RICH);
    let scenario = tuned(&world);
    let end = run(&world, &scenario);
    let again = run(&as_of(&world, 3), &Scenario::default());
    assert_eq!(again.expect_done().digest, end.digest);
    let other = full(&RICH);
    let untouched = run(&other, &Scenario::default());
    let newest = |end: &RunEnd| end.state.current(ClientId(0));
    let theta = world.describe(ClientId(0), newest(&end));
    assert_ne!(other.describe(ClientId(0), newest(&untouched)), theta, "the change has an effect");
    let (before, after) = openness(&end).into_iter().partition::<Vec<_>, _>(|(r, ..)| *r < 2);
    assert!(before.iter().filter(|(_, client, _)| *client != 2).all(|(.., w)| *w > 0.5));
    assert!(after.iter().filter(|(_, client, _)| *client != 2).all(|(.., w)| *w < 0.1));
}

#[test]
fn a_clients_own_heating_holds_for_it_alone() {
    let sets = ["heating.form=scaled", "heating.overrides=[{ client = 2, alpha = 1e-9 }]"];
    let end = run(&full(&sets), &Scenario::default());
    for (round, client, w) in openness(end.expect_done()) {
        assert_eq!(w < 1e-6, client == 2, "round {round}, client {client}: {w}");
    }
}

/// Who had a part once keeps what is its own; who never had starts from the mean of the mixed models
/// (protocol.md 2). That the mean survives a resume: a run is resumed after every round.
#[test]
fn sampled_rounds_leave_the_others_as_they_are() {
    let world = full(&["federation.participation=0.67", "federation.rounds=4"]);
    let end = run(&world, &Scenario::default());
    let mut current = [Round(0); 3];
    let mut own = [false; 3];
    for commit in &end.expect_done().commits {
        assert_eq!(commit.participants.len(), 2, "two thirds of three clients");
        assert!(commit.absent.is_empty(), "who was not asked is not absent");
        for client in commit.participants.keys() {
            own[client.0 as usize] = true;
        }
        for client in world.clients() {
            if commit.participants.contains_key(&client) || !own[client.0 as usize] {
                current[client.0 as usize] = commit.attempt.round.next();
            }
        }
    }
    assert_eq!(end.state.slices.values().copied().collect::<Vec<_>>(), current);
    assert!(current.iter().any(|round| *round != Round(4)), "somebody sat out the last round");
}

#[test]
fn a_stopped_run_goes_on_as_if_it_had_not_been() {
    let world = full(&[]);
    let stop = Scenario { stop_after: Some(Round(2)), ..Scenario::default() };
    let stopped = run(&world, &stop);
    assert_eq!(stopped.outcome, Ok(Outcome::Stopped));
    assert_eq!(stopped.state.committed, Round(2));
    let end = run(&world, &Scenario::default());
    assert_eq!(end.opened[0].0.round, Round(2));
    assert_eq!(end.expect_done().digest, run(&full(&[]), &Scenario::default()).digest);
}

/// A run that is over is not trained further, whatever is asked of it.
#[test]
fn a_finished_run_stays_finished_and_a_longer_one_goes_on() {
    let world = full(&[]);
    let end = run(&world, &Scenario::default());
    let again = run(&world, &Scenario::default());
    assert_eq!((again.expect_done().digest.clone(), again.opened.len()), (end.digest, 0));
    let longer = world.with(|config| config.federation.rounds = 4);
    let expected = run(&full(&["federation.rounds=4"]), &Scenario::default());
    assert_eq!(run(&longer, &Scenario::default()).expect_done().digest, expected.digest);
}

#[test]
fn patience_ends_a_resumed_run_where_it_ends_the_undisturbed_one() {
    let sets = ["federation.rounds=30", "federation.patience=2", "checkpoint.keep=99"];
    let world = full(&sets);
    let end = run(&world, &Scenario::default());
    assert_eq!(end.outcome, Ok(Outcome::PatienceSpent));
    let last = end.state.committed.0;
    assert_eq!(end.evaluated, (0..=last).map(Round).collect::<Vec<_>>());
    for round in 1..last {
        let resumed = run(&as_of(&world, round), &Scenario::default());
        assert_eq!(resumed.outcome, Ok(Outcome::PatienceSpent));
        assert_eq!(resumed.state, end.state, "from round {round}");
    }
}

/// Moments are part of a state: a run that forgets them is another run.
#[test]
fn moments_go_with_the_state_unless_they_are_reset() {
    let kept = run(&full(&[]), &Scenario::default());
    let reset_each_round = full(&["optimizer.reset_each_round=true"]);
    let reset = run(&reset_each_round, &Scenario::default());
    assert_ne!(kept.digest, reset.expect_done().digest);
    let described = reset_each_round.describe(ClientId(0), StateId::own(Round(3)));
    let steps = described.split(' ').nth(2);
    assert_eq!(steps, Some("0"), "a reset optimiser has made no step: {described}");
}
