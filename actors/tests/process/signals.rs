//! How a run takes what happens around it: signals, readers that leave, folders it cannot write to.

use std::fs::File;
use std::io::Read;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::{Place, event};

#[test]
fn ctrl_c_and_sigterm_stop_after_the_step_and_say_how_to_go_on() {
    let undisturbed = Place::new();
    undisturbed.simulate(&["--quiet"]).succeed();
    for signal in ["INT", "TERM"] {
        let place = Place::new();
        let mut process = place.simulate(&["--json"]);
        process.until_open(2);
        process.signal(signal);
        let (status, _, stderr) = process.end();
        assert_eq!(status.code(), Some(130), "{signal}: {stderr}");
        assert!(stderr.contains("fellrec resume run"), "{stderr}");
        assert!(place.trace().slices.len() < 4, "{signal} came too late");
        place.resume(&["--quiet"]).succeed();
        assert_eq!(place.trace(), undisturbed.trace(), "{signal}");
    }
}

#[test]
fn a_second_ctrl_c_leaves_at_once() {
    let place = Place::new();
    // Steps that take longer than it takes to send a signal.
    let sets = [
        "data.synthetic.users=2000",
        "training.batch=2000",
        "evaluation.validation_users=1",
        "model.hidden=128",
        "model.ffn=4096",
    ];
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    let mut process = place.simulate(&[&["--json"], sets.as_slice()].concat());
    process.until_open(0);
    process.signal("INT");
    process.until_said("Ctrl-C again");
    process.signal("INT");
    let (status, _, stderr) = process.end();
    assert_eq!(status.code(), Some(130));
    assert!(!stderr.contains("stopped;"), "{stderr}");
}

/// More events than a pipe holds, and nobody who takes them out.
#[test]
fn a_reader_that_stalls_does_not_hold_up_the_run() {
    let place = Place::new();
    let args = ["simulate", "--config", "small.toml", "--out", "run", "--json"];
    let rounds = ["--set", "federation.rounds=60"];
    let mut child = place.fellrec(&[&args[..], &rounds].concat()).spawn().expect("it starts");
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("it was started here") {
            break status;
        }
        assert!(started.elapsed() < Duration::from_secs(120), "the run does not end");
        sleep(Duration::from_millis(50));
    };
    assert!(status.success());
    assert!(place.read("run/events.jsonl").len() > 2 * 65536, "more than the pipe takes");
    assert_eq!(place.trace().slices.len(), 60);
}

#[test]
fn with_json_standard_output_holds_events_and_with_quiet_nobody_sees_progress() {
    let place = Place::new();
    let (status, stdout, stderr) =
        place.simulate(&["--json", "--set", "federation.rounds=1"]).end();
    assert!(status.success());
    assert!(stdout.lines().map(event).count() > 3);
    assert_eq!(stderr, "");

    let place = Place::new();
    let stderr = place.simulate(&["--quiet", "--set", "federation.rounds=1"]).succeed();
    assert!(!stderr.contains("NDCG"), "{stderr}");
}

#[test]
fn readers_that_leave_do_not_end_the_run() {
    let place = Place::new();
    let mut process = place.simulate(&["--json"]);
    process.until_open(0);
    let status = process.stop_reading().wait().expect("it was started here");
    assert!(status.success());
    assert!(place.trace().test.is_some());

    let place = Place::new();
    let mut command = place.fellrec(&["simulate", "-v", "-c", "small.toml", "-o", "run"]);
    let mut child = command.stdout(Stdio::null()).spawn().expect("the binary is there");
    let mut stderr = child.stderr.take().expect("piped");
    stderr.read_exact(&mut [0; 1]).expect("a first line");
    drop(stderr);
    assert!(child.wait().expect("it was started here").success());
    assert!(place.trace().test.is_some());
}

#[test]
fn a_folder_with_a_run_and_one_that_cannot_be_written_are_named() {
    let place = Place::new();
    place.simulate(&["--quiet", "--set", "federation.rounds=1"]).succeed();
    let before = place.trace();
    let (status, _, stderr) = place.simulate(&[]).end();
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("run holds a run already"), "{stderr}");
    assert_eq!(place.trace(), before);

    let place = Place::new();
    File::create(place.run()).expect("created");
    let (status, _, stderr) = place.simulate(&[]).end();
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("failed to create the run folder run: "), "{stderr}");
}

#[test]
fn a_diverging_run_names_the_clients_and_the_reason_and_ends_in_order() {
    let place = Place::new();
    let (status, _, stderr) = place.simulate(&["--set", "optimizer.learning_rate=1e30"]).end();
    assert_eq!(status.code(), Some(1));
    let expected = "client-0 and 4 more: screened out: its loss is NaN";
    assert!(stderr.contains(expected), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}
