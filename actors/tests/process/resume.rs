//! Killed at any moment, a run resumes to the end it would have had, bit for bit (architecture.md 4).

use std::fs;
use std::sync::LazyLock;
use std::thread::sleep;
use std::time::Duration;

use crate::support::{Place, Trace};
use fellrec::history::EventKind;

/// The run that nothing happens to.
static UNDISTURBED: LazyLock<Trace> = LazyLock::new(|| {
    let place = Place::new();
    place.simulate(&["--quiet"]).succeed();
    let trace = place.trace();
    assert_eq!((trace.slices.len(), trace.test.is_some()), (4, true));
    trace
});

#[test]
fn killed_within_a_round_at_several_moments() {
    // From the opening to the commit; where a machine is slow or fast another moment is met, and must do.
    for milliseconds in [0, 20, 60, 120] {
        let place = Place::new();
        let mut process = place.simulate(&["--json"]);
        process.until_open(2);
        sleep(Duration::from_millis(milliseconds));
        process.kill();
        place.resume(&["--quiet"]).succeed();
        assert_eq!(place.trace(), *UNDISTURBED, "killed {milliseconds} ms after the opening");
    }
}

#[test]
fn killed_between_commit_and_evaluation_and_again_in_the_next_round() {
    let place = Place::new();
    let mut process = place.simulate(&["--json"]);
    process.until(|event| matches!(event, EventKind::RoundCommitted { .. }));
    process.kill();
    let mut process = place.resume(&["--json"]);
    process.until_open(3);
    process.kill();
    place.resume(&["--quiet"]).succeed();
    assert_eq!(place.trace(), *UNDISTURBED);
}

#[test]
fn killed_before_the_first_commit_a_run_starts_over() {
    let place = Place::new();
    let mut process = place.simulate(&["--json"]);
    process.until_open(0);
    process.kill();
    place.resume(&["--quiet"]).succeed();
    assert_eq!(place.trace(), *UNDISTURBED);
}

#[test]
fn a_finished_run_is_tested_again_and_ends_the_same() {
    let place = Place::new();
    place.simulate(&["--quiet"]).succeed();
    let stderr = place.resume(&[]).succeed();
    assert!(stderr.contains("going on from the commit of round 4"), "{stderr}");
    assert_eq!(place.trace(), *UNDISTURBED);
}

#[test]
fn a_torn_newest_commit_is_passed_over_and_the_user_told() {
    let place = Place::new();
    let mut process = place.simulate(&["--json"]);
    process.until_open(3);
    process.kill();
    let torn = place.run().join("clients/client-2/round-000003/front.safetensors");
    let bytes = fs::read(&torn).expect("the commit of round 3");
    fs::write(&torn, &bytes[..bytes.len() / 2]).expect("written");
    let stderr = place.resume(&[]).succeed();
    assert!(stderr.contains("commit of round 3 passed over: "), "{stderr}");
    assert!(stderr.contains("client-2/round-000003/front.safetensors has sha256"), "{stderr}");
    assert!(stderr.contains("going on from the commit of round 2"), "{stderr}");
    assert_eq!(place.trace(), *UNDISTURBED);
}

#[test]
fn a_history_that_lost_lines_goes_back_to_the_commit_it_covers() {
    let place = Place::new();
    let mut process = place.simulate(&["--json"]);
    process.until_open(3);
    process.kill();
    let log = place.run().join("events.jsonl");
    let text = fs::read_to_string(&log).expect("the history");
    let third = text.match_indices("\"round_committed\"").nth(2).expect("three commits").0;
    fs::write(&log, &text[..third]).expect("written");
    let stderr = place.resume(&[]).succeed();
    assert!(stderr.contains("going on from the commit of round 2"), "{stderr}");
    assert_eq!(place.trace(), *UNDISTURBED);
}

#[test]
fn a_run_without_a_whole_commit_is_left_as_it_is() {
    let place = Place::new();
    place.simulate(&["--quiet"]).succeed();
    fs::remove_dir_all(place.run().join("shards")).expect("removed");
    let before = place.trace();
    let (status, _, stderr) = place.resume(&[]).end();
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("no commit of run is whole: round 4: "), "{stderr}");
    assert_eq!(place.trace(), before);
}

#[test]
fn an_edited_configuration_is_refused_by_its_keys() {
    let place = Place::new();
    place.simulate(&["--quiet"]).succeed();
    let path = place.run().join("config.toml");
    let text = fs::read_to_string(&path).expect("the resolved configuration");
    fs::write(&path, text.replace("batch = 8\n", "batch = 16\n")).expect("written");
    let (status, _, stderr) = place.resume(&[]).end();
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("training.batch was 8, is 16;"), "{stderr}");
}

#[test]
fn a_folder_that_is_no_run_is_named() {
    let place = Place::new();
    let (status, _, stderr) = place.resume(&[]).end();
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("no run to resume: failed to read run/config.toml"), "{stderr}");
}
