//! `fellrec model inspect` as a process, over the folders that transformers wrote.

use serde_json::Value;

use crate::support::{Place, fixture};

fn inspect(name: &str, more: &[&str]) -> (Option<i32>, String, String) {
    let folder = fixture(name);
    let folder = folder.to_str().expect("text");
    let args = [&["model", "inspect", folder], more].concat();
    let (status, stdout, stderr) = Place::new().process(&args).end();
    (status.code(), stdout, stderr)
}

fn json(name: &str, more: &[&str]) -> Value {
    let (code, stdout, stderr) = inspect(name, &[&["--json"], more].concat());
    assert_eq!(code, Some(0), "{stderr}");
    serde_json::from_str(&stdout).expect("JSON and nothing else")
}

fn numbers(value: &Value) -> Vec<f64> {
    let values = value.as_array().expect("a list");
    values.iter().map(|value| value.as_f64().expect("a number")).collect()
}

#[test]
fn logits_are_those_of_transformers_4_and_5() {
    for name in ["llama3", "llama3-v5", "qwen2", "llama2-bf16"] {
        let text = std::fs::read_to_string(fixture(name).join("expected.json")).expect("a fixture");
        let expected: Value = serde_json::from_str(&text).expect("JSON");
        let ids: Vec<String> =
            numbers(&expected["ids"][0]).iter().map(|id| format!("{id}")).collect();
        let got = numbers(&json(name, &["--ids", &ids.join(",")])["logits"]);
        let expected = numbers(&expected["logits"][0]);
        assert_eq!(got.len(), expected.len());
        let difference = |(got, expected): (&f64, &f64)| (got - expected).abs();
        let largest = got.iter().zip(&expected).map(difference).fold(0.0, f64::max);
        assert!(largest < 1e-4, "{name}: {largest}");
    }
}

#[test]
fn every_family_is_described() {
    let folders = std::fs::read_dir(fixture("")).expect("fixtures");
    for folder in folders {
        let name = folder.expect("read").file_name().into_string().expect("text");
        let found = json(&name, &[]);
        let of = |key: &str| found[key].as_i64().expect("a number");
        let cut = &found["cuts"][0];
        let held = ["front", "body", "back"].map(|place| cut[place].as_i64().expect("a number"));
        // A plain encoder gets token types and item positions of its own, which no folder counts.
        if found["tied"].is_boolean() {
            assert_eq!(held.iter().sum::<i64>(), of("parameters"), "{name}");
        }
        assert!(name.starts_with(found["family"].as_str().expect("text")), "{name}");
        assert!(held[0] > of("vocab") * of("hidden"), "{name}: the front has the embedding");
        assert!(found["logits"].is_null(), "{name}");
    }
    // The same numbers in half the bytes.
    for place in ["front", "body", "back"] {
        let of = |name: &str, key: &str| json(name, &["--cut", "1/0"])["cuts"][0][key].as_i64();
        let (count, key) = (of("llama2", place).expect("a number"), format!("{place}_bytes"));
        assert!(count > 0, "{place}");
        assert_eq!(of("llama2-bf16", &key), Some(2 * count), "{place}");
    }
    let bf16 = &json("llama2-bf16", &[])["dtypes"];
    assert!(bf16["bf16"].as_u64().is_some_and(|numbers| numbers > 0), "{bf16}");
    let (code, stdout, _) = inspect("qwen3", &["--ids", "1,2,3"]);
    assert_eq!(code, Some(0));
    for word in ["qwen3", "BODY (SHARDS)", "PROBABILITY"] {
        assert!(stdout.contains(word), "{word} is not in\n{stdout}");
    }
}

#[test]
fn what_a_folder_does_not_have_is_said() {
    for (name, more, expected) in [
        ("qwen2", &["--ids", "1,999"][..], "--ids: got 999, expected ids from 0 to 63"),
        ("bert", &["--ids", "1"], "--ids: got an encoder (bert), expected a causal model"),
        ("qwen2", &["--cut", "3/3"], "--cut: got 3/3, expected at least 1 block at the front"),
        ("nowhere", &[], "holds no config.json"),
    ] {
        let (code, _, stderr) = inspect(name, more);
        assert_eq!(code, Some(if more.is_empty() { 1 } else { 2 }), "{name}");
        assert!(stderr.contains(expected), "{stderr}");
    }
    let (code, _, stderr) = inspect("qwen2", &["--cut", "one"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("expected blocks at the front and at the back"), "{stderr}");
}
