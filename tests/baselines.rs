//! Claims about the baselines of method.md 9 over whole federations of actors.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::federation::{Ended, small_config, undisturbed};
use fellrec::blueprint::Blueprint;
use fellrec::federation::round::{LocalRoundReport, Outcome};
use fellrec::history::{EventKind, TestResult};
use fellrec::ids::{ClientId, UserId};
use fellrec::model::slice::Part;

/// Whether every client kept its own tensors, round by round.
fn nobody_mixed(ended: &Ended) -> Vec<bool> {
    let of_round = |event: &fellrec::history::RunEvent| match &event.kind {
        EventKind::RoundCommitted { mixing, .. } => {
            let rows = mixing.matrices().of(Part::Front).rows().enumerate();
            Some(rows.into_iter().all(|(client, row)| row[client] == 1.0))
        }
        _ => None,
    };
    ended.events.iter().filter_map(of_round).collect()
}

/// Fine-tuning takes rounds from the end and touches none before; each of them is as long as another.
#[test]
fn fine_tuning_is_fedavg_until_its_rounds_begin() {
    let plain = undisturbed(small_config(&["mixing.rule=fedavg"]));
    let tuned = undisturbed(small_config(&["mixing.rule=fedavg", "mixing.fine_tune_rounds=1"]));
    assert_eq!(nobody_mixed(&plain), [false; 3]);
    assert_eq!(nobody_mixed(&tuned), [false, false, true]);
    let (plain, tuned) = (plain.trace().slices, tuned.trace().slices);
    assert_eq!(tuned[..2], plain[..2]);
    assert_ne!(tuned[2], plain[2]);
}

/// Reports of every round by client.
fn reports(ended: &Ended) -> Vec<BTreeMap<ClientId, LocalRoundReport>> {
    let of_round = |event: &fellrec::history::RunEvent| match &event.kind {
        EventKind::RoundCommitted { clients, .. } => {
            Some(clients.iter().map(|(client, part)| (*client, part.report.clone())).collect())
        }
        _ => None,
    };
    ended.events.iter().filter_map(of_round).collect()
}

fn test_results(ended: &Ended) -> BTreeMap<ClientId, TestResult> {
    match &ended.events.last().expect("a run has events").kind {
        EventKind::RunFinished { test, .. } => test.clone(),
        other => panic!("the run did not finish: {other:?}"),
    }
}

#[test]
fn a_pooled_run_is_one_client_with_everybodys_users() {
    let pooled = undisturbed(small_config(&["clients.pooled=true"]));
    let apart = undisturbed(small_config(&[]));
    let users = |ended: &Ended| -> u64 {
        test_results(ended).values().map(|result| result.after.users).sum()
    };
    let rows = |round: &BTreeMap<ClientId, LocalRoundReport>| -> u64 {
        round.values().map(|report| report.rows).sum()
    };
    assert_eq!(pooled.outcome, Outcome::RoundsDone);
    assert_eq!(test_results(&pooled).len(), 1);
    assert_eq!(users(&pooled), users(&apart), "everybody is tested");
    assert_eq!(rows(&reports(&pooled)[0]), rows(&reports(&apart)[0]), "the same tokens a round");
}

/// Three rows on five clients: those without any go along.
#[test]
fn clients_without_rows_take_part_and_are_tested() {
    for rule in ["fellrec", "fedavg"] {
        let rule = format!("mixing.rule={rule}");
        let sets = ["training.rows=3", "heating.form=intended", &rule];
        let ended = undisturbed(small_config(&sets));
        assert_eq!(ended.outcome, Outcome::RoundsDone);
        for round in reports(&ended) {
            assert_eq!(round.len(), 5);
            assert_eq!(round.values().map(|report| report.rows).sum::<u64>(), 3);
            let idle: Vec<_> = round.values().filter(|report| report.rows == 0).collect();
            assert!(idle.len() >= 2, "five clients share three rows");
            assert!(idle.iter().all(|report| (report.loss, report.steps) == (0.0, 0)));
        }
        assert_eq!(test_results(&ended).len(), 5, "all are tested");
    }
}

/// Rounds that sample nobody with a row commit all the same.
#[test]
fn a_round_of_clients_without_rows_is_committed() {
    let sets = [
        "training.rows=1",
        "clients.assignment=uniform",
        "clients.count=20",
        "federation.participation=0.05",
        "mixing.rule=fedavg",
    ];
    let ended = undisturbed(small_config(&sets));
    assert_eq!(ended.outcome, Outcome::RoundsDone);
    let idle = |round: &BTreeMap<ClientId, LocalRoundReport>| round.values().all(|r| r.rows == 0);
    assert!(reports(&ended).iter().any(idle), "one of twenty clients is asked, one has a row");
}

#[test]
fn pooled_and_federated_runs_train_on_the_same_few_rows() {
    let trained = |sets: &[&str]| -> BTreeSet<UserId> {
        let plan = Blueprint::new(small_config(sets)).expect("the synthetic data fits");
        let clients = plan.clients().into_iter().filter_map(|client| plan.client_data(client));
        let users = clients.flat_map(|data| data.users.clone());
        users.filter(|user| plan.trains_on(user)).map(|user| user.user).collect()
    };
    let apart = trained(&["training.rows=7"]);
    assert_eq!(apart.len(), 7);
    assert_eq!(trained(&["training.rows=7", "clients.pooled=true"]), apart);
    assert_eq!(trained(&["training.rows=7", "clients.assignment=per-user"]), apart);
    assert_ne!(trained(&["training.rows=7", "run.seed=43"]), apart);
}
