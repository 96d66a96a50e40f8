//! Claims about what is on disk (protocol.md 1, architecture.md 4): a broken commit is skipped by
//! name and the one before is used, a full disk loses nothing, and what a commit needs stays.

mod harness;

use std::fs;
use std::path::{Path, PathBuf};

use fellrec::checkpoint::CheckpointError;
use fellrec::federation::round::{Outcome, Source};
use fellrec::ids::{ClientId, Round};
use harness::{Conduct, Scenario, World, full, run};

/// Ways to break a file.
type Damage = fn(&Path);

const DAMAGES: [(&str, Damage); 4] = [
    ("cut short", |path| {
        let bytes = fs::read(path).expect("readable");
        fs::write(path, &bytes[..bytes.len() / 2]).expect("writable");
    }),
    ("empty", |path| fs::write(path, []).expect("writable")),
    ("one bit off", |path| {
        let mut bytes = fs::read(path).expect("readable");
        // In the middle of a manifest's digests, or of a tensor.
        let at = bytes.len() * 2 / 3;
        bytes[at] ^= 1;
        fs::write(path, bytes).expect("writable");
    }),
    ("gone", |path| fs::remove_file(path).expect("removable")),
];

/// Files of the newest round: the run's manifest and everything it vouches for.
fn newest_files(world: &World, round: u64) -> Vec<PathBuf> {
    let folder = format!("round-{round:06}");
    let newest = |path: &PathBuf| path.iter().any(|part| part == folder.as_str());
    world.files().into_iter().filter(newest).collect()
}

#[test]
fn any_broken_file_of_the_newest_commit_sends_the_run_back_by_one() {
    let world = full(&[]);
    run(&world, &Scenario::default()).expect_done();
    let files = newest_files(&world, 3);
    assert_eq!(files.len(), 1 + 3 * (1 + 4) + 2 * 3 * (1 + 2), "{files:#?}");
    for file in files {
        let path = world.folder().join(&file);
        let intact = fs::read(&path).expect("readable");
        for (name, damage) in DAMAGES {
            damage(&path);
            let (manifest, skipped) = world.newest();
            let used = manifest.expect("the one before is whole").state.committed;
            assert_eq!(used, Round(2), "{file:?} is {name}");
            assert_eq!(skipped.len(), 1);
            assert_eq!(skipped[0].round, Round(3));
            let message = harness::text(&skipped[0].error);
            let named = path.to_str().expect("the path is UTF-8");
            assert!(message.contains(named), "{file:?} is {name}: {message}");
            fs::write(&path, &intact).expect("writable");
        }
    }
    assert_eq!(world.newest().0.expect("mended").state.committed, Round(3));
}

#[test]
fn a_run_sent_back_by_a_broken_commit_ends_as_the_undisturbed_one() {
    let world = full(&[]);
    let expected = run(&world, &Scenario::default()).digest;
    for file in newest_files(&world, 3).iter().step_by(5) {
        let fork = world.fork();
        DAMAGES[2].1(&fork.folder().join(file));
        let end = run(&fork, &Scenario::default());
        assert_eq!(end.expect_done().digest, expected, "{file:?}");
        assert_eq!(end.skipped.len(), 1, "the user is told");
        assert_eq!(end.opened.len(), 1, "one round is made again");
    }
}

#[test]
fn without_any_whole_commit_the_run_starts_over_and_says_so() {
    let world = full(&[]);
    let expected = run(&world, &Scenario::default()).digest;
    for file in world.files().iter().filter(|file| file.starts_with("rounds")) {
        DAMAGES[0].1(&world.folder().join(file));
    }
    let end = run(&world, &Scenario::default());
    assert_eq!(end.expect_done().digest, expected);
    assert_eq!(end.skipped.iter().map(|(round, _)| round.0).collect::<Vec<_>>(), [3, 2]);
}

/// What a kill during a write leaves behind is not a commit.
#[test]
fn a_half_written_folder_is_ignored() {
    let world = full(&[]);
    let expected = run(&world, &Scenario::default()).digest;
    let half = world.folder().join("rounds/round-000004.partial");
    fs::create_dir_all(&half).expect("writable");
    fs::write(half.join("manifest.json"), "{").expect("writable");
    fs::create_dir_all(world.folder().join("rounds/round-000005")).expect("writable");
    let end = run(&world, &Scenario::default());
    assert_eq!(end.expect_done().digest, expected);
    assert_eq!(end.skipped.len(), 1, "the folder without a manifest is named: {:?}", end.skipped);
}

#[test]
fn a_manifest_of_another_format_is_named() {
    let world = full(&[]);
    run(&world, &Scenario::default());
    let mut manifest = world.newest().0.expect("committed");
    manifest.format += 1;
    world.run_store().commit(&manifest).expect("writable");
    let (used, skipped) = world.newest();
    assert_eq!(used.expect("the one before").state.committed, Round(2));
    assert!(matches!(skipped[0].error, CheckpointError::Format { .. }), "{:?}", skipped[0]);
}

/// A store that cannot be written to: the run ends with the path in its error, and goes on from
/// the last commit once there is room.
#[test]
fn a_full_disk_ends_the_run_and_loses_nothing() {
    let expected = run(&full(&[]), &Scenario::default()).digest;
    for blocked in ["rounds", "clients/1", "stages/0/2"] {
        let world = full(&["federation.reopen_budget=1"]);
        let stop = Scenario { stop_after: Some(Round(1)), ..Scenario::default() };
        run(&world, &stop);
        // Folders cannot be made below a file, whoever asks: root as well, unlike a read-only one.
        let (path, aside) = (world.folder().join(blocked), world.folder().join("aside"));
        let partial = path.join("round-000002.partial");
        fs::write(&partial, "no room").expect("writable");
        let end = run(&world, &Scenario::default());
        let reason = match &end.outcome {
            Ok(Outcome::RoundFailed(reason)) | Err(reason) => reason,
            other => panic!("{blocked}: {other:?}"),
        };
        assert!(reason.contains(blocked), "{reason}");
        assert_eq!(world.newest().0.expect("committed").state.committed, Round(1));
        fs::rename(&partial, &aside).expect("there is room again");
        assert_eq!(run(&world, &Scenario::default()).expect_done().digest, expected);
    }
}

#[test]
fn the_newest_commits_and_every_clients_best_stay() {
    let world = full(&["federation.rounds=6", "checkpoint.keep=2"]);
    let end = run(&world, &Scenario::default());
    end.expect_done();
    assert_eq!(world.rounds_on_disk("rounds"), [5, 6]);
    for client in world.clients() {
        let member = format!("clients/{}", client.0);
        let on_disk = world.rounds_on_disk(&member);
        assert!(on_disk.contains(&5) && on_disk.contains(&6), "{member}: {on_disk:?}");
        // Round 0 is the common start: nobody has to keep it. The manifests know the best as of
        // the evaluation before them.
        let newest = world.newest().0.expect("committed").state;
        let best = newest.best_state(client).round.0;
        assert!(best == 0 || on_disk.contains(&best), "{member}: {on_disk:?} without {best}");
        assert!(on_disk.len() <= 4, "{member} keeps too much: {on_disk:?}");
        world.describe(client, end.state.best_state(client));
        assert_eq!(world.rounds_on_disk(&format!("stages/0/{}", client.0)), on_disk);
    }
}

/// The commit before the newest one refers to the state a client had before it sat out.
#[test]
fn the_state_of_a_client_that_sat_out_stays_as_long_as_a_commit_needs_it() {
    let odd = ClientId(1);
    let absent = [1, 2, 3].map(|round| ((odd, Round(round)), Conduct::Refuses));
    let scenario = Scenario { conduct: absent.into(), ..Scenario::default() };
    let world = full(&["federation.rounds=5", "checkpoint.keep=2"]);
    let end = run(&world, &scenario);
    assert_eq!(end.expect_done().state.slices[&odd], Round(5));
    DAMAGES[0].1(&world.folder().join("rounds/round-000005/manifest.json"));
    let resumed = run(&world, &scenario);
    assert_eq!(resumed.opened.len(), 1, "the commit before is whole: {:?}", resumed.skipped);
    assert_eq!(resumed.expect_done().digest, end.digest);
}

/// One of three clients is asked; the others follow the mean.
const FOLLOWED: [&str; 2] = ["mixing.rule=fedavg", "federation.participation=0.34"];

/// A mean goes with the last one that has it for its current or best state.
#[test]
fn a_mean_that_is_somebodys_best_stays() {
    let mut olds = 0;
    for seed in 0..4 {
        let seed = format!("run.seed={seed}");
        let sets = [&FOLLOWED[..], &["federation.rounds=8", "checkpoint.keep=1", &seed]].concat();
        let world = full(&sets);
        let end = run(&world, &Scenario::default());
        let on_disk = world.rounds_on_disk("shared");
        for client in world.clients() {
            let best = end.expect_done().state.best_state(client);
            world.describe(client, best);
            if best.source == Source::Shared && best.round < Round(7) {
                assert!(on_disk.contains(&best.round.0), "{on_disk:?} without {best:?}");
                olds += 1;
            }
        }
        assert!(on_disk.len() <= 2 + 2 * world.clients().len(), "too much is kept: {on_disk:?}");
    }
    assert!(olds > 0, "no best state is an old mean: the test shows nothing");
}
