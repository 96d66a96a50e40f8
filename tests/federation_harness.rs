//! Claims of protocol.md 8 about delivery and crashes: whatever the network does and whoever
//! dies, the run ends with the same bits.

mod harness;

use std::collections::BTreeSet;
use std::rc::Rc;

use fellrec::ids::ClientId;
use harness::{Chaos, Fault, Moment, NodeId, RunEnd, Scenario, World, full, lora, run};

/// Makes a federation with some keys set besides.
type Flavour = fn(&[&str]) -> Rc<World>;

const FLAVOURS: [Flavour; 2] = [full, lora];

/// Crashes spread over a node's run.
const MOMENTS: u64 = 8;

/// Messages at the end of a node's run on each of which it crashes.
const LAST: u64 = 8;

fn undisturbed(flavour: Flavour) -> RunEnd {
    let end = run(&flavour(&[]), &Scenario::default());
    end.expect_done();
    assert_eq!(end.replays, 0);
    end
}

#[test]
fn delivery_in_any_order_late_twice_or_lost_changes_no_bit() {
    for flavour in FLAVOURS {
        let expected = undisturbed(flavour);
        for seed in 0..20 {
            let scenario = Scenario { chaos: Chaos::wild(seed), ..Scenario::default() };
            let end = run(&flavour(&[]), &scenario);
            assert_eq!(end.expect_done().digest, expected.digest, "seed {seed}");
            // Late and repeated messages cost nothing either: no local round starts over.
            assert_eq!(end.replays, 0, "seed {seed}");
        }
    }
}

/// Both sides of a difference: the oracle must see one.
#[test]
fn another_run_seed_gives_another_digest() {
    let other = run(&full(&["run.seed=43"]), &Scenario::default());
    assert_ne!(other.expect_done().digest, undisturbed(full).digest);
}

/// Kills a node on messages spread over all that reach it in an undisturbed run, and on each of
/// the last ones, from the end of a local round over the staging to the commit: before it acts on
/// the message, or after it did but before anybody hears of it.
fn dies_at_any_moment(flavour: Flavour, node: NodeId) {
    let expected = undisturbed(flavour);
    let reached = expected.deliveries[&node];
    let spread = (0..MOMENTS).map(|number| reached * number / MOMENTS);
    let messages: BTreeSet<u64> = spread.chain(reached.saturating_sub(LAST)..reached).collect();
    for message in messages {
        let moment = if message % 2 == 0 { Moment::Before } else { Moment::After };
        let fault = Fault { node, message, moment, down_ms: 50 + 700 * (message % 3) };
        let scenario = Scenario { faults: vec![fault], ..Scenario::default() };
        let end = run(&flavour(&[]), &scenario);
        assert_eq!(end.expect_done().digest, expected.digest, "{fault:?}");
        assert_eq!(end.crashes, 1, "{fault:?}");
    }
}

#[test]
fn a_client_dies() {
    dies_at_any_moment(full, NodeId::Client(ClientId(1)));
    dies_at_any_moment(lora, NodeId::Client(ClientId(1)));
}

/// The client replays its local round from the round's start: same seeds, same result.
#[test]
fn a_shard_dies() {
    dies_at_any_moment(full, NodeId::Shard(0));
    dies_at_any_moment(lora, NodeId::Shard(1));
}

/// Slices are still held by their senders until the commit.
#[test]
fn the_aggregator_dies() {
    dies_at_any_moment(full, NodeId::Aggregator);
}

/// The next one goes on from the last commit.
#[test]
fn the_supervisor_dies() {
    dies_at_any_moment(full, NodeId::Supervisor);
    dies_at_any_moment(lora, NodeId::Supervisor);
}

/// Several nodes in one run, on a bad network.
#[test]
fn everyone_dies_once() {
    let expected = undisturbed(full);
    let nodes: Vec<(NodeId, u64)> = expected.deliveries.iter().map(|(n, m)| (*n, *m)).collect();
    for seed in 0..8 {
        let fault = |(index, (node, messages)): (usize, &(NodeId, u64))| Fault {
            node: *node,
            message: (messages * (seed + 3 * index as u64) / 24).min(messages - 1),
            moment: if seed % 2 == 0 { Moment::Before } else { Moment::After },
            down_ms: 300,
        };
        let faults = nodes.iter().enumerate().map(fault).collect();
        let scenario = Scenario { chaos: Chaos::wild(seed), faults, ..Scenario::default() };
        let end = run(&full(&["federation.reopen_budget=9"]), &scenario);
        assert_eq!(end.expect_done().digest, expected.digest, "seed {seed}");
        assert!(end.crashes >= 5, "seed {seed}: {} crashes", end.crashes);
    }
}
