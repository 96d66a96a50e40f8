//! Files that are missing, cut or contradict each other: the error names file and tensor.

use std::fs::{self, OpenOptions};

use serde_json::json;
use tch::{Device, Kind};

use crate::support::*;

const SHARD: &str = "model-2-of-3.safetensors";

/// A folder whose only weights file has this header and data.
fn raw(header: &str, data: &[u8]) -> String {
    let folder = Folder::new(&llama_config());
    write_raw(&folder.file("model.safetensors"), header, data);
    let complaint = folder.complaint();
    assert_names(&complaint, &["model.safetensors"]);
    complaint
}

#[test]
fn missing_files_are_named() {
    let folder = Folder::llama();
    fs::remove_file(folder.file("config.json")).unwrap();
    assert_names(&folder.complaint(), &[folder.path().to_str().unwrap(), "holds no config.json"]);
    let folder = Folder::new(&llama_config());
    let expected = ["holds no model.safetensors", folder.path().to_str().unwrap()];
    assert_names(&folder.complaint(), &expected);
}

#[test]
fn pickled_weights_are_to_be_converted() {
    for name in ["pytorch_model.bin", "pytorch_model.bin.index.json"] {
        let folder = Folder::new(&llama_config());
        fs::write(folder.file(name), "x").unwrap();
        assert_names(&folder.complaint(), &[name, "convert them to model.safetensors"]);
    }
}

#[test]
fn a_cut_shard_names_the_first_tensor_that_is_cut() {
    let folder = Folder::sharded();
    let file = OpenOptions::new().write(true).open(folder.file(SHARD)).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length - 1).unwrap();
    let dealt: Vec<Entry> = llama_entries().into_iter().skip(1).step_by(3).collect();
    // The serializer sorts by name where types are equal.
    let last = dealt.iter().map(|entry| entry.name.as_str()).max().unwrap();
    let cut = (length - 1).to_string();
    assert_names(&folder.complaint(), &[SHARD, last, &length.to_string(), "cut off at", &cut]);
}

#[test]
fn a_file_that_goes_on_after_its_tensors_is_refused() {
    let folder = Folder::llama();
    let file = folder.file("model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let whole = bytes.len();
    bytes.push(0);
    fs::write(&file, bytes).unwrap();
    let got = format!("got {} bytes, expected {whole}", whole + 1);
    assert_names(&folder.complaint(), &["model.safetensors", &got]);
}

#[test]
fn a_header_longer_than_the_file_is_refused() {
    let folder = Folder::new(&llama_config());
    let file = folder.file("model.safetensors");
    fs::write(&file, [&u64::MAX.to_le_bytes()[..], b"{}"].concat()).unwrap();
    let expected = format!("a header of {} bytes, expected at most 2", u64::MAX);
    assert_names(&folder.complaint(), &["model.safetensors", &expected]);
    for short in [0, 7] {
        fs::write(&file, vec![0; short]).unwrap();
        let expected = format!("expected at most {short}");
        assert_names(&folder.complaint(), &["model.safetensors", &expected]);
    }
    // A length of nothing leaves no header to read.
    fs::write(&file, [0; 8]).unwrap();
    assert_names(&folder.complaint(), &["model.safetensors", "header of a safetensors file"]);
}

#[test]
fn entries_that_cannot_be_true_are_refused_by_tensor() {
    let entry = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"x.w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    // Past the end of the file.
    assert_names(&raw(&entry("F32", "[4]", "[0,16]"), &[0; 8]), &["x.w", "cut off"]);
    // Fewer bytes than numbers, an end before the start, more numbers than there are numbers for.
    assert_names(&raw(&entry("F32", "[4]", "[0,8]"), &[0; 8]), &["x.w", "bytes 0..8", "[4]"]);
    assert_names(&raw(&entry("F32", "[1]", "[8,4]"), &[0; 8]), &["x.w", "bytes 8..4"]);
    let most = entry("F32", "[9223372036854775807,2]", "[0,8]");
    assert_names(&raw(&most, &[0; 8]), &["x.w", "bytes 0..8"]);
    let huge = entry("F32", "[0,18446744073709551615]", "[0,0]");
    assert_names(&raw(&huge, &[]), &["x.w", "2^63"]);
    // A type that there is not, a negative dimension, bytes that belong to nobody.
    assert_names(&raw(&entry("F128", "[1]", "[0,4]"), &[0; 4]), &["x.w", "F128"]);
    assert_names(&raw(&entry("F32", "[-1]", "[0,4]"), &[0; 4]), &["x.w", "-1"]);
    assert_names(&raw(&entry("F32", "[1]", "[4,8]"), &[0; 8]), &["header of a safetensors"]);
    assert_names(&raw("[]", &[]), &["header of a safetensors"]);
    // The eighth ends 64 bytes before the largest number there is: header and data do not add up.
    let entries: Vec<String> = (0..8u64)
        .map(|i| {
            let (dim, size) = ((1u64 << 58) - 1, (1u64 << 61) - 8);
            let (from, to) = (i * size, (i + 1) * size);
            format!(r#""t{i}":{{"dtype":"F64","shape":[{dim}],"data_offsets":[{from},{to}]}}"#)
        })
        .collect();
    let header = format!("{{{}}}", entries.join(","));
    let padding = " ".repeat(100); // pushes the sum past 2^64
    assert_names(&raw(&(header + &padding), &[0; 8]), &["t0", "cut off"]);
}

#[test]
fn an_index_and_its_shards_must_agree() {
    let folder = Folder::sharded();
    fs::remove_file(folder.file(SHARD)).unwrap();
    let lost = "model.norm.weight";
    let expected = ["model.safetensors.index.json", lost, SHARD, "not there"];
    assert_names(&folder.complaint(), &expected);

    let folder = Folder::sharded();
    folder.write_index(&json!({ "model.norm.weight": "model-1-of-3.safetensors" }));
    let expected = ["model.norm.weight", "model-1-of-3.safetensors", "index.json"];
    assert_names(&folder.complaint(), &expected);

    let folder = Folder::sharded();
    let twice = [Entry::new("lm_head.weight", &[8, 4]), Entry::new("model.norm.weight", &[4])];
    write(&folder.file(SHARD), &twice);
    let shards =
        json!({ "lm_head.weight": "model-3-of-3.safetensors", "model.norm.weight": SHARD });
    folder.write_index(&shards);
    assert_names(&folder.complaint(), &["lm_head.weight", SHARD, "model-3-of-3.safetensors"]);

    for outside in ["../weights.safetensors", "/etc/hosts", "a/b.safetensors", "..", ""] {
        folder.write_index(&json!({ "model.norm.weight": outside }));
        assert_names(&folder.complaint(), &["weight_map.model.norm.weight", "of this folder"]);
    }
    folder.write_index(&json!({ "model.norm.weight": 7 }));
    assert_names(&folder.complaint(), &["weight_map.model.norm.weight", "got 7", "a string"]);
    folder.write_index(&json!([]));
    assert_names(&folder.complaint(), &["weight_map", "an object"]);
}

#[test]
fn two_spellings_of_one_name_are_refused() {
    let folder = Folder::new(&llama_config());
    let twice = [Entry::new("norm.weight", &[4]), Entry::new("model.norm.weight", &[4])];
    write(&folder.file("model.safetensors"), &twice);
    assert_names(&folder.complaint(), &["model.norm.weight", "expected in one place"]);
}

#[test]
fn a_file_that_was_cut_after_opening_is_an_error_and_no_crash() {
    let folder = Folder::llama();
    let checkpoint = folder.open().unwrap();
    let file = OpenOptions::new().write(true).open(folder.file("model.safetensors")).unwrap();
    file.set_len(100).unwrap();
    let error = checkpoint.tensor(&llama_specs()[0], Kind::Float, Device::Cpu).unwrap_err();
    assert_names(&error.to_string(), &["model.safetensors", "got 100 bytes"]);
    assert!(checkpoint.digest().is_err());
    assert!(checkpoint.tensors_read().is_empty());
}

#[test]
fn a_folder_in_the_place_of_a_file_is_an_error() {
    let folder = Folder::new(&llama_config());
    fs::create_dir(folder.file("model.safetensors")).unwrap();
    assert_names(&folder.complaint(), &["failed to access", "model.safetensors"]);
}
