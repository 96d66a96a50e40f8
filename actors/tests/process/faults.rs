//! What goes wrong without anybody dying: somebody slow, a full disk at the broker.

use std::net::TcpListener;
use std::thread::sleep;
use std::time::Duration;

use super::nodes::{BROKER, SIMULATED, incidents, signal, trace, up, wait_until};
use crate::support::Place;

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
