//! Claims about the supervisor's decisions (protocol.md 2, architecture.md 4), one event at a time.

#[path = "round_machine/adoption.rs"]
mod adoption;
#[path = "round_machine/driver.rs"]
mod driver;
#[path = "round_machine/nonsense.rs"]
mod nonsense;

use driver::*;
use fellrec::config::HeatingForm;
use fellrec::federation::round::{
    Absence, Attempt, Command, Event, FederationState, LocalRoundReport, Outcome, RoundMachine,
};
use fellrec::ids::{ClientId, Round};

fn attempt(round: u64, attempt: u32) -> Attempt {
    Attempt { round: Round(round), attempt }
}

#[test]
fn a_round_goes_open_screen_mix_commit_evaluate() {
    let mut machine = machine(2, &["federation.rounds=1"]);
    let (first, asked) = open(&mut machine, Event::Start, &[0.1, 0.2]);
    assert_eq!((first, asked), (attempt(0, 0), clients(2)));
    assert_eq!(machine.handle(0, done(first, 1, 2.0)), []);
    let participants = clients(2);
    let screen = Command::Screen { attempt: first, participants };
    assert_eq!(machine.handle(0, done(first, 0, 1.0)), [screen]);
    let mix = machine.handle(0, screened(first, &[]));
    let [Command::Mix { participants, .. }] = &mix[..] else { panic!("got {mix:?}") };
    assert_eq!(participants[&ClientId(1)].report, report(2.0));
    let commit = machine.handle(0, Event::Staged { attempt: first });
    let [Command::Commit { state, absent, .. }] = &commit[..] else { panic!("got {commit:?}") };
    assert_eq!((state.committed, absent.len()), (Round(1), 0));
    assert!(state.slices.values().all(|round| *round == Round(1)));
    let evaluate = machine.handle(0, Event::Committed { attempt: first });
    assert_eq!(evaluate, [Command::Evaluate { round: Round(1) }]);
    let end = machine.handle(0, evaluated(1, &[0.3, 0.1]));
    assert_eq!(end, [Command::Finish(Outcome::RoundsDone)]);
    assert_eq!(machine.state().best[&ClientId(0)].round, Round(1));
    assert_eq!(machine.state().best[&ClientId(1)].round, Round(0));
}

/// A tie keeps the earlier state; at 0 it says nothing, and the state that learnt longer is kept.
#[test]
fn the_best_state_of_a_client_is_the_earliest_of_the_best_unless_nothing_was_found() {
    let mut machine = machine(2, &["federation.rounds=2"]);
    let (first, _) = open(&mut machine, Event::Start, &[0.0, 0.2]);
    commit(&mut machine, first, &clients(2));
    let (second, _) = open(&mut machine, Event::Committed { attempt: first }, &[0.0, 0.2]);
    commit(&mut machine, second, &clients(2));
    finish(&mut machine, Event::Committed { attempt: second }, &[0.0, 0.1]);
    let best = |client| machine.state().best[&ClientId(client)].round;
    assert_eq!((best(0), best(1)), (Round(2), Round(0)));
}

/// The sampled share is the config's: rounded, at least one (`FederationConfig::participants`).
#[test]
fn as_many_clients_are_sampled_as_the_config_says() {
    for (count, share) in [(5, 0.3), (5, 0.5), (10, 0.25), (3, 0.1), (7, 0.34), (4, 1.0)] {
        let share = format!("federation.participation={share}");
        let sets = [share.as_str(), "federation.quorum=all"];
        let (_, asked) = open(&mut machine(count, &sets), Event::Start, &[]);
        let expected = config(&sets).federation.participants(count);
        assert_eq!(asked.len() as u32, expected, "{share} of {count}");
        assert!(asked.is_sorted());
    }
}

#[test]
fn sampling_changes_with_the_round_and_not_with_the_attempt_or_a_resume() {
    let sets = ["federation.participation=0.5", "federation.rounds=8"];
    let mut machine = machine(8, &sets);
    let (mut now, mut asked) = open(&mut machine, Event::Start, &[]);
    let mut drawn = vec![asked.clone()];
    for _ in 0..7 {
        let again = machine.handle(0, lost(now, asked[0].0));
        assert_eq!(again, [], "a majority is left");
        for client in &asked[1..] {
            machine.handle(0, lost(now, client.0));
        }
        let reopened = Attempt { attempt: 1, ..now };
        let (state, _) = commit(&mut machine, reopened, &asked);
        let mut resumed = RoundMachine::new(rules(&config(&sets)), state);
        let (_, by_resumed) = open(&mut resumed, Event::Start, &[]);
        (now, asked) = open(&mut machine, Event::Committed { attempt: reopened }, &[]);
        assert_eq!(asked, by_resumed);
        drawn.push(asked.clone());
    }
    drawn.sort();
    drawn.dedup();
    assert!(drawn.len() > 4, "rounds draw anew: {drawn:?}");
}

#[test]
fn a_quorum_that_holds_goes_on_without_the_absent() {
    for (quorum, lost_clients, holds) in
        [("all", 1, false), ("majority", 1, true), ("majority", 2, false), ("1", 3, true)]
    {
        let mut machine = machine(4, &[&format!("federation.quorum={quorum}")]);
        let (now, _) = open(&mut machine, Event::Start, &[]);
        let mut commands = Vec::new();
        for client in 0..4 {
            let gone = client < lost_clients;
            let event = if gone { lost(now, client) } else { done(now, client, 1.0) };
            commands = machine.handle(0, event);
        }
        let went_on = matches!(commands[..], [Command::Screen { .. }]);
        assert_eq!(went_on, holds, "quorum {quorum}, {lost_clients} of 4 lost: {commands:?}");
    }
}

#[test]
fn an_absent_client_keeps_its_state_and_joins_the_next_round() {
    let mut machine = machine(3, &["federation.rounds=2"]);
    let (now, _) = open(&mut machine, Event::Start, &[]);
    let reason = "closed on mondays".to_owned();
    machine.handle(0, Event::Refused { attempt: now, client: ClientId(1), reason: reason.clone() });
    let (state, absent) = commit(&mut machine, now, &[ClientId(0), ClientId(2)]);
    assert_eq!(absent[&ClientId(1)], Absence::Refused(reason));
    assert_eq!(state.slices[&ClientId(1)], Round(0));
    assert_eq!(state.slices[&ClientId(2)], Round(1));
    let (_, asked) = open(&mut machine, Event::Committed { attempt: now }, &[]);
    assert_eq!(asked, clients(3));
}

/// Deadlines count missing progress: a heartbeat starts the count anew.
#[test]
fn silence_is_measured_from_the_last_progress() {
    let sets = ["runtime.deterministic=false", "federation.progress_deadline_secs=10"];
    let mut machine = machine(3, &sets);
    let (now, _) = open(&mut machine, Event::Start, &[]);
    for client in clients(2) {
        machine.handle(9_000, Event::Progress { attempt: now, client });
    }
    assert_eq!(machine.handle(10_000, Event::Tick), [], "at the deadline, not past it");
    let abandon = Command::Abandon { attempt: now, clients: vec![ClientId(2)] };
    assert_eq!(machine.handle(10_001, Event::Tick), [abandon]);
    assert_eq!(machine.handle(10_002, done(now, 2, 1.0)), [], "it answers too late");
    let (_, absent) = commit(&mut machine, now, &clients(2));
    assert_eq!(absent[&ClientId(2)], Absence::Silent);
}

#[test]
fn nobody_is_excluded_by_time_in_deterministic_mode() {
    let mut machine = machine(3, &["runtime.deterministic=true"]);
    open(&mut machine, Event::Start, &[]);
    assert_eq!(machine.handle(u64::MAX, Event::Tick), []);
}

#[test]
fn a_missed_quorum_reopens_the_round_until_the_budget_is_spent() {
    let mut machine = machine(2, &["federation.quorum=all", "federation.reopen_budget=2"]);
    open(&mut machine, Event::Start, &[]);
    for number in 0..2 {
        machine.handle(0, done(attempt(0, number), 0, 1.0));
        let commands = machine.handle(0, lost(attempt(0, number), 1));
        let [Command::Abandon { .. }, Command::OpenRound { attempt: next, .. }] = &commands[..]
        else {
            panic!("got {commands:?}");
        };
        assert_eq!(*next, attempt(0, number + 1));
    }
    let before = machine.state().clone();
    machine.handle(0, done(attempt(0, 2), 0, 1.0));
    let end = machine.handle(0, lost(attempt(0, 2), 1));
    let [Command::Finish(Outcome::RoundFailed(reason))] = &end[..] else { panic!("got {end:?}") };
    assert!(reason.contains("1 of 2 clients finished, 2 needed"), "{reason}");
    assert!(reason.contains("client-1"), "{reason}");
    assert_eq!(machine.state(), &before);
}

/// The budget is a round's own: a round that needed it leaves the next one a full one.
#[test]
fn every_round_has_the_whole_budget() {
    let mut machine = machine(2, &["federation.quorum=all", "federation.reopen_budget=1"]);
    let (now, _) = open(&mut machine, Event::Start, &[]);
    machine.handle(0, lost(now, 0));
    machine.handle(0, lost(now, 1));
    commit(&mut machine, attempt(0, 1), &clients(2));
    let (now, _) = open(&mut machine, Event::Committed { attempt: attempt(0, 1) }, &[]);
    assert_eq!(now, attempt(1, 0));
    machine.handle(0, lost(now, 0));
    let reopened = machine.handle(0, lost(now, 1));
    assert!(matches!(reopened[..], [_, Command::OpenRound { .. }]), "{reopened:?}");
}

#[test]
fn losses_that_are_not_finite_and_refused_updates_are_absent_by_name() {
    let mut machine = machine(5, &["federation.quorum=3"]);
    let (now, _) = open(&mut machine, Event::Start, &[]);
    for client in 0..5 {
        machine.handle(0, done(now, client, if client == 1 { f64::NAN } else { 1.0 }));
    }
    let mix = machine.handle(0, screened(now, &[3]));
    let [Command::Mix { participants, .. }] = &mix[..] else { panic!("got {mix:?}") };
    let mixed: Vec<u32> = participants.keys().map(|client| client.0).collect();
    assert_eq!(mixed, [0, 2, 4]);
    let commit = machine.handle(0, Event::Staged { attempt: now }).pop();
    let Some(Command::Commit { absent, .. }) = commit else { panic!("got {commit:?}") };
    let nan = "its loss is NaN, expected a finite number".to_owned();
    assert_eq!(absent[&ClientId(1)], Absence::Screened(nan));
    assert_eq!(absent[&ClientId(3)], Absence::Screened("odd".to_owned()));
}

#[test]
fn a_screening_that_breaks_the_quorum_reopens_the_round() {
    let mut machine = machine(3, &["federation.quorum=all"]);
    let (now, _) = open(&mut machine, Event::Start, &[]);
    for client in 0..3 {
        machine.handle(0, done(now, client, 1.0));
    }
    let commands = machine.handle(0, screened(now, &[2]));
    assert!(matches!(commands[..], [_, Command::OpenRound { .. }]), "{commands:?}");
}

#[test]
fn a_second_start_changes_nothing() {
    let mut machine = machine(2, &["federation.rounds=1"]);
    let (now, _) = open(&mut machine, Event::Start, &[]);
    machine.handle(0, done(now, 0, 1.0));
    assert_eq!(machine.handle(0, Event::Start), []);
    commit(&mut machine, now, &[ClientId(1)]);
    assert_eq!(finish(&mut machine, Event::Committed { attempt: now }, &[]), Outcome::RoundsDone);
    assert_eq!(machine.handle(0, Event::Start), []);
}

/// A supervisor that takes over numbers its attempts above those of the one before.
#[test]
fn a_successor_hears_nothing_of_its_predecessors_attempts() {
    let sets = ["federation.quorum=all", "federation.reopen_budget=1"];
    let mut machine = machine(2, &sets).starting_at(1000);
    let (now, _) = open(&mut machine, Event::Start, &[]);
    assert_eq!(now, attempt(0, 1000));
    for client in 0..2 {
        assert_eq!(machine.handle(0, done(attempt(0, 0), client, 1.0)), []);
    }
    machine.handle(0, lost(now, 0));
    let again = machine.handle(0, lost(now, 1));
    assert!(
        matches!(again[..], [_, Command::OpenRound { .. }]),
        "the budget is as ever: {again:?}"
    );
    commit(&mut machine, attempt(0, 1001), &clients(2));
    let (next, _) = open(&mut machine, Event::Committed { attempt: attempt(0, 1001) }, &[]);
    assert_eq!(next, attempt(1, 1000));
}

#[test]
fn patience_counts_evaluations_without_gain() {
    let mut machine = machine(1, &["federation.rounds=9", "federation.patience=2"]);
    let (mut now, asked) = open(&mut machine, Event::Start, &[0.2]);
    for mean in [0.5, 0.5, 0.6, 0.4] {
        commit(&mut machine, now, &asked);
        (now, _) = open(&mut machine, Event::Committed { attempt: now }, &[mean]);
    }
    commit(&mut machine, now, &asked);
    let end = finish(&mut machine, Event::Committed { attempt: now }, &[0.6]);
    assert_eq!(end, Outcome::PatienceSpent, "a tie is no gain");
    assert_eq!(machine.state().best[&ClientId(0)].round, Round(3));
}

#[test]
fn evaluation_is_due_every_nth_round_and_at_the_end() {
    let mut machine = machine(1, &["federation.rounds=5", "evaluation.every=2"]);
    let mut states = Vec::new();
    let mut commands = machine.handle(0, Event::Start);
    loop {
        commands = match commands[..] {
            [Command::Evaluate { round }] => {
                states.push(round.0);
                machine.handle(0, evaluated(round.0, &[0.1]))
            }
            [Command::OpenRound { attempt, .. }] => {
                commit(&mut machine, attempt, &clients(1));
                machine.handle(0, Event::Committed { attempt })
            }
            _ => break,
        };
    }
    assert_eq!(states, [0, 2, 4, 5]);
}

/// A best that is NaN would never be beaten, and JSON has no NaN to store it by.
#[test]
fn a_validation_that_is_not_finite_or_of_a_stranger_does_not_count() {
    let mut machine = machine(2, &[]);
    open(&mut machine, Event::Start, &[f64::NAN, 0.4, 0.9]);
    let FederationState { best, best_mean, .. } = machine.state();
    assert_eq!(best.keys().copied().collect::<Vec<_>>(), [ClientId(1)]);
    assert_eq!(*best_mean, Some(0.4));
}

/// A local round under way is given up, since a resumed run repeats it; a mix is carried through.
#[test]
fn a_stop_gives_up_training_and_finishes_a_mix() {
    let mut training = machine(1, &[]);
    open(&mut training, Event::Start, &[]);
    let stopped = training.handle(0, Event::StopRequested);
    assert!(matches!(stopped[..], [Command::Abandon { .. }, Command::Finish(Outcome::Stopped)]));

    let mut mixing = machine(1, &[]);
    let (now, asked) = open(&mut mixing, Event::Start, &[]);
    mixing.handle(0, done(now, 0, 1.0));
    assert_eq!(mixing.handle(0, Event::StopRequested), []);
    commit(&mut mixing, now, &asked);
    assert_eq!(finish(&mut mixing, Event::Committed { attempt: now }, &[]), Outcome::Stopped);
    assert_eq!(mixing.state().committed, Round(1));

    let mut failing = machine(1, &[]);
    let (now, _) = open(&mut failing, Event::Start, &[]);
    failing.handle(0, done(now, 0, 1.0));
    failing.handle(0, Event::StopRequested);
    let failed = Event::MixFailed { attempt: now, reason: "a member died".to_owned() };
    assert_eq!(failing.handle(0, failed), [Command::Finish(Outcome::Stopped)], "no further try");
}

/// A loss of 0 over no label is no loss: it moves neither the others' median nor their shares.
#[test]
fn a_client_without_rows_is_open_and_leaves_the_others_openness_alone() {
    for form in ["intended", "reference", "scaled"] {
        let form = format!("heating.form={form}");
        let openness = |without_rows: &[u32]| {
            let clients = 3 + without_rows.len() as u32;
            let mut machine = machine(clients, &[&form]);
            let (now, _) = open(&mut machine, Event::Start, &[]);
            for client in 0..3 {
                machine.handle(0, done(now, client, 1.0 + f64::from(client)));
            }
            for client in without_rows {
                let report = LocalRoundReport { loss: 0.0, labels: 0, steps: 0, rows: 0 };
                let client = ClientId(*client);
                machine.handle(0, Event::LocalRoundDone { attempt: now, client, report });
            }
            let mix = machine.handle(0, screened(now, &[]));
            let [Command::Mix { participants, .. }] = &mix[..] else { panic!("got {mix:?}") };
            participants.values().map(|p| p.openness).collect::<Vec<_>>()
        };
        let (alone, among) = (openness(&[]), openness(&[3, 4, 5, 6]));
        assert!(alone.iter().any(|w| *w < 1.0), "{form}: not all are open: {alone:?}");
        assert_eq!(among[..3], alone, "{form}");
        assert_eq!(among[3..], [1.0; 4], "{form}");
    }
}

/// An operator's change while a commit is being written is not overwritten by that commit.
#[test]
fn heating_changed_during_a_commit_is_in_force_in_the_next_round() {
    let mut machine = machine(2, &["heating.form=off"]);
    let (now, asked) = open(&mut machine, Event::Start, &[]);
    commit(&mut machine, now, &asked);
    let mut closed = machine.state().heating.clone();
    (closed.form, closed.alpha) = (HeatingForm::Scaled, 1e-9);
    machine.set_heating(closed.clone()).expect("a curve");
    closed.alpha = -1.0;
    assert!(machine.set_heating(closed).is_err(), "no curve: the one in force stays");
    let (now, _) = open(&mut machine, Event::Committed { attempt: now }, &[]);
    machine.handle(0, done(now, 0, 1.0));
    machine.handle(0, done(now, 1, 1.0));
    let mix = machine.handle(0, screened(now, &[]));
    let [Command::Mix { participants, .. }] = &mix[..] else { panic!("got {mix:?}") };
    assert!(participants.values().all(|p| p.openness < 1e-6), "{participants:?}");
}
