//! A federation over nodes, in real processes behind a real broker: the same result as the simulation, and
//! nothing lost when members die (protocol.md 6, architecture.md 4).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use fellrec::federation::round::Absence;
use fellrec::history::EventKind;
use fellrec::ids::ClientId;

use crate::support::{Place, Process, Trace, event};

/// Rounds of these runs: long enough for somebody to die in each of several.
pub const ROUNDS: &str = "federation.rounds=8";

/// The broker's binary: as `make test` names it, or where `scripts/nats.sh` put it, or the one on PATH.
pub static BROKER: LazyLock<String> = LazyLock::new(|| {
    let named = std::env::var("FELLREC_NATS_SERVER").ok();
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/nats-server");
    let kept = kept.exists().then(|| kept.display().to_string());
    let broker = named.or(kept).unwrap_or("nats-server".to_owned());
    let works = Command::new(&broker).arg("--version").output().is_ok();
    assert!(works, "no nats-server: run scripts/nats.sh once, or set FELLREC_NATS_SERVER");
    broker
});

/// The simulation that these runs must equal.
pub static SIMULATED: LazyLock<Trace> = LazyLock::new(|| {
    let place = Place::new();
    place.simulate(&["--quiet", "--set", ROUNDS]).succeed();
    let trace = place.trace();
    assert_eq!((trace.slices.len(), trace.test.is_some()), (8, true));
    trace
});

pub fn up(place: &Place, args: &[&str]) -> Process {
    let up =
        ["up", "--config", "small.toml", "--set", ROUNDS, "--out", "up", "--nats-server", &BROKER];
    place.process(&[&up, args].concat())
}

/// Everybody but the supervisor, and the federation's folder as soon as it is there.
pub fn up_without_supervisor(place: &Place, args: &[&str]) -> Process {
    let without = ["--leave-out", "supervisor", "-v"];
    let members = up(place, &[&without, args].concat());
    while !place.path("up/pids/aggregator").exists() {
        sleep(Duration::from_millis(20));
    }
    members
}

/// The supervisor by hand, from a folder of its own.
pub fn supervise(place: &Place, out: &str) -> Process {
    place.process(&["node", "--kit", "up/federation/kits/supervisor", "--out", out, "--json"])
}

pub fn trace(place: &Place) -> Trace {
    place.trace_of("up/nodes/supervisor")
}

/// What the history says of those who were missing or died; for whoever reads a failure.
pub fn incidents(place: &Place) -> Vec<String> {
    let history = place.read("up/nodes/supervisor/events.jsonl");
    let told = |line: &str| match event(line) {
        EventKind::RoundCommitted { attempt, absent, .. } if !absent.is_empty() => {
            Some(format!("round {} attempt {}: {absent:?}", attempt.round, attempt.attempt))
        }
        EventKind::MemberRestarted { member, cause, .. } => Some(format!("{member}: {cause}")),
        _ => None,
    };
    history.lines().filter_map(told).collect()
}

/// Looks again until there is something, or a minute is over.
pub fn wait_until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "it does not come");
        sleep(Duration::from_millis(50));
    }
}

fn assert_same(place: &Place) {
    assert_eq!(trace(place), *SIMULATED, "{:#?}", incidents(place));
}

pub fn signal(place: &Place, who: &str, name: &str) {
    let pid = place.read(&format!("up/pids/{who}"));
    // It may have ended just now.
    let _ = Command::new("kill").args(["-s", name, &pid]).status().expect("kill is there");
}

#[test]
fn the_same_bits_as_in_one_process() {
    let place = Place::new();
    up(&place, &["--quiet"]).succeed();
    assert_same(&place);
}

#[test]
fn whoever_is_killed_the_run_ends_as_if_nobody_had_been() {
    let place = Place::new();
    // Two of them may fall into one round on a machine that is busy.
    let patient = ["--set", "federation.reopen_budget=6"];
    let mut process = up(&place, &[&["--json", "--seal"], &patient[..]].concat());
    let victims = ["client-3", "shard-0-0", "aggregator", "supervisor", "shard-0-1", "broker"];
    for (round, victim) in (1..).zip(victims) {
        process.until_open(round);
        sleep(Duration::from_millis(40 * round));
        signal(&place, victim, "KILL");
    }
    process.succeed();
    assert_same(&place);
}

#[test]
fn a_frozen_shard_is_left_for_another() {
    let place = Place::new();
    let mut process = up(&place, &["--json", "--set", "nodes.lease_secs=2"]);
    process.until_open(2);
    signal(&place, "shard-0-0", "STOP");
    process.until_open(5);
    signal(&place, "shard-0-0", "CONT");
    process.succeed();
    assert_same(&place);
}

#[test]
fn a_client_that_comes_late_is_missed_until_it_is_there() {
    let place = Place::new();
    let late = ["--json", "--leave-out", "client-4", "--set", "nodes.absence_secs=3"];
    let rounds = ["--set", "federation.rounds=60"];
    let mut process = up(&place, &[&late[..], &rounds].concat());
    process.until_open(3);
    let (kit, out) = ("up/federation/kits/client-4", "up/nodes/client-4");
    let node = place.process(&["node", "--kit", kit, "--out", out, "--quiet"]);
    process.succeed();
    node.succeed();
    let absent: Vec<bool> = place
        .read("up/nodes/supervisor/events.jsonl")
        .lines()
        .filter_map(|line| match event(line) {
            EventKind::RoundCommitted { absent, clients, .. } => {
                let (client, said) = (ClientId(4), absent.contains_key(&ClientId(4)));
                assert_ne!(said, clients.contains_key(&client), "either there or missed");
                Some(said)
            }
            _ => None,
        })
        .collect();
    assert_eq!(absent[..3], [true; 3]);
    assert!(!absent[59], "it has long been there: {absent:?}");
}

#[test]
fn a_supervisor_that_lost_its_disk_goes_on_from_what_the_broker_kept() {
    let place = Place::new();
    let mut process = up(&place, &["--json"]);
    process.until_open(4);
    // The running one goes on writing where nobody will look.
    std::fs::rename(place.path("up/nodes/supervisor"), place.path("lost")).expect("renamed");
    signal(&place, "supervisor", "KILL");
    process.succeed();
    assert_same(&place);
}

#[test]
fn a_second_supervisor_is_refused_and_one_that_was_replaced_stops() {
    let place = Place::new();
    // Long enough for a right to be seen renewed, and taken over when it no longer is.
    let rounds = "federation.rounds=60";
    let members = up_without_supervisor(&place, &["--set", rounds]);
    let supervise = |out: &str| supervise(&place, out);
    let mut first = supervise("up/nodes/first");
    first.until_open(2);
    let (status, _, stderr) = supervise("up/nodes/second").end();
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("another supervisor of run up is alive"), "{stderr}");
    first.signal("STOP");
    let mut second = supervise("up/nodes/supervisor");
    second.until(|event| matches!(event, EventKind::RoundOpened { .. }));
    first.signal("CONT");
    let (status, _, stderr) = first.end();
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("has taken over"), "{stderr}");
    second.succeed();
    members.succeed();
    place.simulate(&["--quiet", "--set", rounds]).succeed();
    assert_eq!(trace(&place), place.trace(), "{:#?}", incidents(&place));
}

#[test]
fn a_stopped_run_goes_on() {
    let place = Place::new();
    let mut process = up(&place, &["--json"]);
    process.until_open(3);
    process.signal("INT");
    let (status, _, stderr) = process.end();
    assert_eq!(status.code(), Some(130), "{stderr}");
    up(&place, &["--quiet"]).succeed();
    assert_same(&place);
}

#[test]
fn without_a_broker_the_error_says_where_one_comes_from() {
    let place = Place::new();
    let process = place.process(&["up", "--config", "small.toml", "--nats-server", "./none"]);
    let (status, _, stderr) = process.end();
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("scripts/nats.sh") && stderr.contains("./none"), "{stderr}");
}

#[test]
fn kits_are_made_added_renewed_and_revoked() {
    let place = Place::new();
    let plan = "run = \"shops\"\nbroker = \"127.0.0.1:4222\"\nclients = 2\n";
    place.write("fed.toml", plan);
    let run = |args: &[&str]| place.process(args).end();
    run(&["provision", "fed.toml", "--out", "fed"]);
    let mode = |name: &str| {
        use std::os::unix::fs::PermissionsExt;
        let path: PathBuf = place.path(name);
        path.metadata().expect("made").permissions().mode() & 0o777
    };
    let [authority, client] = ["fed/ca", "fed/kits/client-1"];
    for secret in ["ca.key", "seal.toml"].map(|name| format!("{authority}/{name}")) {
        assert_eq!(mode(&secret), 0o600, "{secret}");
    }
    for secret in ["key.pem", "seal.toml"].map(|name| format!("{client}/{name}")) {
        assert_eq!(mode(&secret), 0o600, "{secret}");
    }
    assert_eq!(mode("fed/broker/server.key"), 0o600);
    assert!(!place.path("fed/broker/seal.toml").exists(), "the broker has no part in it");
    assert_eq!(mode("fed/kits/client-1"), 0o700);
    let config_is_good = || {
        let test = Command::new(&*BROKER)
            .args(["-t", "-c", "nats.conf"])
            .current_dir(place.path("fed/broker"))
            .output()
            .expect("the broker starts");
        assert!(test.status.success(), "{}", String::from_utf8_lossy(&test.stderr));
    };
    config_is_good();
    let before = place.read("fed/kits/client-0/cert.pem");
    let sealed = place.read("fed/kits/client-0/seal.toml");
    for change in [["renew", "client-0"], ["revoke", "client-1"], ["add", "client-2"]] {
        let (status, _, stderr) = run(&["provision", change[0], "fed", change[1]]);
        assert!(status.success() && stderr.contains("reload"), "{stderr}");
    }
    config_is_good();
    assert_ne!(place.read("fed/kits/client-0/cert.pem"), before);
    assert_eq!(place.read("fed/kits/client-0/seal.toml"), sealed, "the others' stay right");
    let members = place.read("fed/broker/members.conf");
    let listed = |name: &str| members.contains(&format!("\"{name}@shops.fellrec\""));
    assert!(listed("client-0") && !listed("client-1") && listed("client-2"));
    for wrong in [["add", "client-7"], ["revoke", "client-1"], ["renew", "nobody"]] {
        let (status, _, stderr) = run(&["provision", wrong[0], "fed", wrong[1]]);
        assert!(!status.success() && stderr.contains("expected one of"), "{stderr}");
    }
    let (status, _, stderr) = run(&["provision", "fed.toml", "--out", "fed"]);
    assert!(!status.success() && stderr.contains("not empty"), "{stderr}");
}

#[test]
fn an_operator_sends_members_away_and_changes_the_heating() {
    let place = Place::new();
    // As long as it takes.
    let process = up(&place, &["--quiet", "--seal", "--set", "federation.rounds=100000"]);
    let operator = ["--kit", "up/federation/kits/operator"];
    let order = |args: &[&str]| place.process(&[args, &operator].concat()).end();
    let committed = |rounds: usize| {
        let history = || std::fs::read_to_string(place.path("up/nodes/supervisor/events.jsonl"));
        wait_until(|| {
            let now = history().unwrap_or_default().matches("\"round_committed\"").count();
            (now >= rounds).then_some(now)
        })
    };
    committed(2);
    for leaves in ["shard-0-1", "client-4"] {
        let (status, _, stderr) = order(&["drain", leaves]);
        assert!(status.success() && stderr.contains(leaves), "{stderr}");
    }
    let refused = [
        (["drain", "shard-0-0"], "the only replica"),
        (["drain", "aggregator"], "there is one aggregator"),
        (["drain", "client-9"], "expected one of"),
        (["drain", "clients"], "shard-STAGE-REPLICA"),
    ];
    for (args, told) in refused {
        let (status, _, stderr) = order(&args);
        assert!(!status.success() && stderr.contains(told), "{args:?}: {stderr}");
    }
    let (status, _, stderr) = order(&["tune", "--alpha", "0.5", "--beta", "9"]);
    assert!(status.success(), "{stderr}");
    let (status, _, stderr) = order(&["tune", "--alpha=-1", "--beta", "9"]);
    assert!(!status.success() && stderr.contains("alpha"), "{stderr}");
    wait_until(|| {
        let (_, status, _) = order(&["status", "--json"]);
        let here = |name: &str| status.contains(&format!("\"{name}\":"));
        assert!(here("client-3") && here("shard-0-0"), "{status}");
        (!here("client-4") && !here("shard-0-1")).then_some(())
    });
    committed(committed(0) + 3);
    process.signal("INT");
    let (status, _, _) = process.end();
    assert_eq!(status.code(), Some(130));
    let history = place.read("up/nodes/supervisor/events.jsonl");
    let events: Vec<EventKind> = history.lines().map(event).collect();
    let mixed = |kind: &EventKind| match kind {
        EventKind::RoundCommitted { attempt, absent, .. } => {
            assert_eq!(attempt.attempt, 0, "no round is opened again: {:#?}", incidents(&place));
            let away = |why: &Absence| why.to_string().contains("sent it away");
            let gone = absent.get(&ClientId(4)).is_some_and(away);
            assert_eq!(absent.len(), usize::from(gone), "nobody else is missed: {absent:?}");
            Some(gone)
        }
        _ => None,
    };
    let gone: Vec<bool> = events.iter().filter_map(mixed).collect();
    assert!(gone.is_sorted() && !gone[1], "there, then gone for good: {gone:?}");
    assert!(gone.ends_with(&[true; 2]), "gone at the end: {gone:?}");
    let tuned = |kind: &EventKind| matches!(kind, EventKind::HeatingChanged { .. });
    assert_eq!(events.iter().filter(|kind| tuned(kind)).count(), 1);
}
