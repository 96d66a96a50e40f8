//! Clients with data of their own, which nobody else reads.

use std::fs;

use fellrec::history::EventKind;

use super::nodes::BROKER;
use crate::support::{Place, Trace, event};

const CLIENTS: u32 = 5;

/// 24 users of one client, who like every so-manieth item.
fn sequences(client: u32) -> String {
    let user = |user: u32| {
        let items = (0..9).map(|step| (user * 5 + step * (client + 1)) % 40);
        let items: Vec<String> = items.map(|item| format!("i{item}")).collect();
        format!("u{client}-{user} {}\n", items.join(" "))
    };
    (0..24).map(user).collect()
}

/// A catalogue in `data`, and a folder in it for each client but those of `without`.
fn write(place: &Place, data: &str, without: Option<u32>) {
    let items: String = (0..40).map(|item| format!("i{item}\tTitle of item {item}\n")).collect();
    fs::create_dir(place.path(data)).expect("made");
    place.write(&format!("{data}/items.tsv"), &format!("item_id\ttitle\n{items}"));
    for client in (0..CLIENTS).filter(|client| Some(*client) != without) {
        fs::create_dir(place.path(&format!("{data}/client-{client}"))).expect("made");
        place.write(&format!("{data}/client-{client}/sequences.txt"), &sequences(client));
    }
}

#[test]
fn a_client_alone_with_its_data_learns_what_it_does_in_a_simulation() {
    let place = Place::new();
    let small = place
        .read("small.toml")
        .replace("data.synthetic = { users = 120, items = 60, mean_history = 12 }", "");
    let silos = "data.format = \"sequences\"\nclients = { assignment = \"silos\", count = 5 }\n";
    place.write("silos.toml", &format!("{silos}{small}"));
    write(&place, "data", None);
    let config = ["--config", "silos.toml", "--set", "federation.rounds=3"];
    let simulate = ["simulate", "--quiet", "--data", "data", "--out", "run"];
    place.process(&[&simulate[..], &config].concat()).succeed();

    // Of client 3's data nothing is on the others' machine, and it has nobody else's.
    write(&place, "others", Some(3));
    fs::create_dir(place.path("own")).unwrap();
    fs::copy(place.path("data/items.tsv"), place.path("own/items.tsv")).unwrap();
    place.write("own/sequences.txt", &sequences(3));
    let up =
        ["up", "--json", "--seal", "--data", "others", "--out", "up", "--leave-out", "client-3"];
    // Two of the others in one process.
    let apart = ["--leave-out", "aggregator", "--leave-out", "shard-0-0"];
    let broker = ["--nats-server", &BROKER];
    let up = place.process(&[&up[..], &apart, &broker, &config].concat());
    let (kit, out) = ("up/federation/kits/client-3", "up/nodes/client-3");
    while !place.path("up/pids/shard-0-1").exists() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let node = place.process(&["node", "--kit", kit, "--out", out, "--data", "own", "--quiet"]);
    let kits = ["--kit", "up/federation/kits/aggregator", "--kit", "up/federation/kits/shard-0-0"];
    let together = ["node", "--data", "others", "--out", "up/nodes", "--quiet"];
    let two = place.process(&[&together[..], &kits].concat());
    up.succeed();
    node.succeed();
    two.succeed();
    let supervisor = "up/nodes/supervisor";
    assert_eq!(place.trace_of(supervisor), place.trace());
    assert!(place.trace() != Trace::default());
    let history = place.read(&format!("{supervisor}/events.jsonl"));
    let EventKind::RunStarted { clients, items, .. } = event(history.lines().next().unwrap())
    else {
        panic!("a history starts with its run")
    };
    assert_eq!((clients.len(), items), (5, 40));
    assert!(clients.values().all(Option::is_none), "the supervisor knows of data: {clients:?}");
}

#[test]
fn a_client_without_a_folder_is_named() {
    let place = Place::new();
    write(&place, "data", Some(2));
    let set = ["--set", "data.format=sequences", "--set", "clients.assignment=silos"];
    let simulate = ["simulate", "--data", "data", "--out", "run"];
    let (status, _, stderr) = place.process(&[&simulate[..], &set].concat()).end();
    assert_eq!(status.code(), Some(1));
    let told = "data holds no folder client-2, as clients.assignment = \"silos\"";
    assert!(stderr.contains(told), "{stderr}");
}
