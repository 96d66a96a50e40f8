//! What goes wrong without anybody dying: somebody slow, a full disk at the broker.

use std::net::TcpListener;
use std::thread::sleep;
use std::time::Duration;

use fellrec::federation::round::Absence;
use fellrec::history::EventKind;
use fellrec::ids::ClientId;

use super::nodes::{BROKER, SIMULATED, incidents, signal, trace, up, wait_until};
use crate::support::{Place, event};

#[test]
fn a_client_at_a_twentieth_of_its_speed_is_waited_for() {
    let place = Place::new();
    let process = up(&place, &["--quiet"]);
    let history = || std::fs::read_to_string(place.path("up/nodes/supervisor/events.jsonl"));
    wait_until(|| history().is_ok().then_some(()));
    while !history().unwrap_or_default().contains("\"run_finished\"") {
        signal(&place, "client-3", "STOP");
        sleep(Duration::from_millis(95));
        signal(&place, "client-3", "CONT");
        sleep(Duration::from_millis(5));
    }
    process.succeed();
    assert_eq!(trace(&place), *SIMULATED, "{:#?}", incidents(&place));
}

/// Beyond the lease, within the absence: nobody goes on without it.
#[test]
fn a_client_that_is_frozen_for_a_while_is_waited_for() {
    let place = Place::new();
    let mut process = up(&place, &["--json", "--set", "nodes.lease_secs=1"]);
    process.until_open(2);
    signal(&place, "client-2", "STOP");
    sleep(Duration::from_secs(4));
    signal(&place, "client-2", "CONT");
    process.succeed();
    assert_eq!(trace(&place), *SIMULATED, "{:#?}", incidents(&place));
}

/// Beyond the absence: missed, with the reason, until it wakes.
#[test]
fn a_client_that_is_frozen_for_long_is_missed_until_it_wakes() {
    let place = Place::new();
    let sets = ["--set", "nodes.absence_secs=3", "--set", "federation.rounds=60"];
    let mut process = up(&place, &[&["--json"], &sets[..]].concat());
    process.until_open(2);
    signal(&place, "client-2", "STOP");
    let frozen = ClientId(2);
    let missed = |wanted: bool| {
        move |event: &EventKind| match event {
            EventKind::RoundCommitted { absent, .. } => absent.contains_key(&frozen) == wanted,
            _ => false,
        }
    };
    process.until(missed(true));
    signal(&place, "client-2", "CONT");
    process.until(missed(false));
    process.succeed();
    let history = place.read("up/nodes/supervisor/events.jsonl");
    let reasons = history.lines().filter_map(|line| match event(line) {
        EventKind::RoundCommitted { absent, .. } => absent.get(&frozen).map(Absence::to_string),
        _ => None,
    });
    for reason in reasons {
        // Missed in the middle of a round, then not there when the next ones begin.
        let told = ["nodes.absence_secs", "not been heard of", "its node is not running"];
        assert!(told.iter().any(|words| reason.contains(words)), "{reason}");
    }
}

/// The right to supervise has its 16 KiB; the commits do not.
#[test]
fn a_full_store_at_the_broker_is_said_and_costs_nothing_else() {
    let place = Place::new();
    let port = TcpListener::bind("127.0.0.1:0").expect("free").local_addr().expect("bound").port();
    place.write("eight.toml", &place.read("small.toml").replace("rounds = 4", "rounds = 8"));
    let plan = format!(
        "run = \"full\"\nbroker = \"127.0.0.1:{port}\"\nclients = 5\nreplicas = 2\nconfig = \"eight.toml\"\n"
    );
    place.write("fed.toml", &plan);
    place.process(&["provision", "fed.toml", "--out", "up/federation"]).succeed();
    let conf = place.read("up/federation/broker/nats.conf");
    assert!(conf.contains("max_file_store: 4GB"));
    place.write("up/federation/broker/nats.conf", &conf.replace("4GB", "17KB"));
    let up = ["up", "--config", "eight.toml", "--out", "up", "--nats-server", &BROKER];
    let (status, _, stderr) = place.process(&up).end();
    assert!(status.success(), "{stderr}");
    assert!(stderr.contains("the commit is kept on this machine alone"), "{stderr}");
    assert_eq!(trace(&place), *SIMULATED, "{:#?}", incidents(&place));
}
