//! `fellrec bench step` as a process that starts one for every role.

use serde_json::Value;

use crate::support::{Place, fixture};

fn folder(model: &str) -> String {
    fixture(model).to_str().expect("text").to_owned()
}

fn bench(more: &[&str]) -> (Option<i32>, String, String) {
    let args = [&["bench", "step", "--seq", "16", "--steps", "1"], more].concat();
    let (status, stdout, stderr) = Place::new().process(&args).end();
    (status.code(), stdout, stderr)
}

#[test]
fn every_role_is_measured_and_together_they_hold_the_model() {
    let (code, stdout, stderr) =
        bench(&["--checkpoint", &folder("llama2"), "--cut", "1/0", "--dtype", "bf16", "--json"]);
    assert_eq!(code, Some(0), "{stderr}");
    let figures: Vec<Value> = serde_json::from_str(&stdout).expect("a list");
    let roles: Vec<&str> = figures.iter().filter_map(|figure| figure["role"].as_str()).collect();
    assert_eq!(roles, ["client", "shard", "whole"]);
    let of = |role: usize, key: &str| figures[role][key].as_f64();
    for key in ["parameters", "trained"] {
        let [client, shard, whole] = [0, 1, 2].map(|role| of(role, key).expect("a number"));
        assert_eq!(client + shard, whole, "{key}");
    }
    // 16 positions of width 16 in two bytes, four times.
    assert_eq!(of(0, "wire_mib"), Some(4.0 * 16.0 * 16.0 * 2.0 / f64::from(1 << 20)));
    assert!(of(1, "loss").is_none() && of(2, "loss").is_some_and(f64::is_finite));
    assert!(of(0, "peak_resident_mib").is_some_and(|mib| mib > 1.0));
    let (code, stdout, _) = bench(&["--checkpoint", &folder("qwen2"), "--role", "whole"]);
    assert_eq!(code, Some(0));
    assert!(stdout.contains("MFU") && stdout.contains("whole"), "{stdout}");
}

#[test]
fn what_cannot_be_measured_is_said() {
    let llama = folder("llama2");
    for (args, code, expected) in [
        (
            &["--random-weights", "llama"][..],
            1,
            "--random-weights: got \"llama\", expected one of llama-2-7b",
        ),
        (&["--checkpoint", &llama, "--cut", "1/1", "--role", "shard"], 1, "--cut: got 1/1"),
        (&["--checkpoint", &folder("bert")], 1, "bert is an encoder"),
        (&["--checkpoint", &llama, "--device", "cuda:99"], 1, "--device: got cuda:99"),
        (&["--checkpoint", &llama, "--device", "tpu"], 2, "tpu"),
        (&[], 2, "--random-weights"),
    ] {
        let (got, _, stderr) = bench(args);
        assert_eq!(got, Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(expected), "{args:?}: {stderr}");
    }
}
