//! Each member killed between what it staged and the commit (protocol.md 2): the state of the commit is there or
//! the one before is, and the run ends as if nobody had been killed.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::nodes::{incidents, trace, up, wait_until};
use crate::support::Place;

const ROUNDS: &str = "federation.rounds=60";
/// How long a member may take to be met between the two.
const PATIENCE: Duration = Duration::from_secs(60);

fn state(place: &Place, of: &str, round: usize) -> PathBuf {
    place.path(&format!("up/nodes/{of}/round-{round:06}"))
}

/// Rounds that are committed.
fn committed(place: &Place) -> usize {
    let folders = std::fs::read_dir(place.path("up/nodes/supervisor/rounds")).into_iter().flatten();
    let names = folders.filter_map(|folder| folder.ok()?.file_name().into_string().ok());
    names.filter_map(|name| name.strip_prefix("round-")?.parse().ok()).max().unwrap_or_default()
}

/// Kills `victim` when the next round is staged at `at` and not committed. `false` if the commit was faster.
fn kill_between(place: &Place, victim: &str, at: &str) -> bool {
    let round = committed(place) + 1;
    let (staged, commit) = (state(place, at, round), state(place, "supervisor/rounds", round));
    let started = Instant::now();
    while !staged.exists() && !commit.exists() {
        assert!(started.elapsed() < PATIENCE, "round {round} does not end");
        // From the one to the other it is a few milliseconds.
        sleep(Duration::from_micros(50));
    }
    let Ok(pid) = place.read(&format!("up/pids/{victim}")).trim().parse() else { return false };
    let pid = Pid::from_raw(pid).expect("a process");
    // It may have ended just now, or the commit come: then the next round has another try.
    !commit.exists() && kill_process(pid, Signal::KILL).is_ok() && !commit.exists()
}

#[test]
fn whoever_dies_between_stage_and_commit_nothing_is_lost() {
    let place = Place::new();
    let process = up(&place, &["--quiet", "--set", ROUNDS, "--set", "federation.reopen_budget=6"]);
    wait_until(|| (committed(&place) > 0).then_some(()));
    // With each: what it stages, or for those who stage nothing what others do.
    let victims = [
        ("client-2", "client-2/clients/client-2"),
        ("shard-0-0", "shards/shards/stage-0/client-0"),
        ("shard-0-1", "shards/shards/stage-0/client-1"),
        ("aggregator", "client-0/clients/client-0"),
        ("supervisor", "client-4/clients/client-4"),
    ];
    for (victim, at) in victims {
        let started = Instant::now();
        while !kill_between(&place, victim, at) {
            assert!(started.elapsed() < PATIENCE, "{victim} was never met between the two");
        }
    }
    process.succeed();
    place.simulate(&["--quiet", "--set", ROUNDS]).succeed();
    assert_eq!(trace(&place), place.trace(), "{:#?}", incidents(&place));
}
