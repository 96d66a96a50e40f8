//! The scenario FELLRec exists for: four clients that are alike and an odd one whose data are sparse and
//! different (docs/odd-client.md has more methods and seeds).

mod common;

use common::federation::{preset, undisturbed};
use fellrec::history::EventKind;
use fellrec::ids::ClientId;

const ODD: ClientId = ClientId(4);
const SEEDS: [u64; 3] = [1, 2, 3];

/// What averaging costs the odd client at the least: in the last round on every seed, and in the test on
/// the mean over seeds. Unit: NDCG@10.
const LAST_ROUND_HARM: f64 = 0.05;
const TEST_HARM: f64 = 0.02;

/// What counts as even on one seed: a little less than one of the client's 120 users. Unit: NDCG@10.
const EVEN: f64 = 0.008;

/// NDCG@10 of the odd client over the full catalogue.
#[derive(Clone, Copy, Debug)]
struct Reached {
    /// Test of the state that validated best: an early one where averaging does harm.
    test: f64,
    /// Validation after the last round.
    last_round: f64,
}

fn odd_client(rule: &str, seed: u64) -> Reached {
    let sets = [format!("mixing.rule={rule}"), format!("run.seed={seed}")];
    let ended = undisturbed(preset("odd-client", &sets));
    let mut last_round = f64::NAN;
    for event in &ended.events {
        match &event.kind {
            EventKind::RoundEvaluated { clients, .. } => last_round = clients[&ODD].ndcg[&10],
            EventKind::RunFinished { test, .. } => {
                return Reached { test: test[&ODD].after.ndcg[&10], last_round };
            }
            _ => {}
        }
    }
    panic!("{rule} with seed {seed} did not finish")
}

#[test]
fn averaging_harms_the_odd_client_and_fellrec_does_not() {
    let (mut harm, mut gain) = (0.0, 0.0);
    for seed in SEEDS {
        let [local, fedavg, fellrec] =
            ["local", "fedavg", "fellrec"].map(|rule| odd_client(rule, seed));
        let shown = format!("seed {seed}: local {local:?}, fedavg {fedavg:?}, fellrec {fellrec:?}");
        println!("{shown}");
        assert!(fedavg.last_round < local.last_round - LAST_ROUND_HARM, "{shown}");
        assert!(fellrec.test > local.test - EVEN, "{shown}");
        harm += (local.test - fedavg.test) / SEEDS.len() as f64;
        gain += (fellrec.test - local.test) / SEEDS.len() as f64;
    }
    assert!(harm > TEST_HARM, "fedavg loses {harm} of local only's NDCG@10 on the mean");
    assert!(gain >= 0.0, "fellrec gains {gain} on local only's NDCG@10 on the mean");
}
