//! Claims about LoRA adapters: those of Hugging Face PEFT answer here what they answer there, beside
//! their base and merged into it, over the cut as well; and what is written here are PEFT's own files.
//!
//! The folders of tests/fixtures/peft are made by scripts/fixtures/make_adapters.py.

mod common;

use std::fs;
use std::path::Path;

use common::pretrained::{cuts, difference, expected, fixture, layout, logits, open, party};
use common::split;
use fellrec::config::OrNone;
use fellrec::model::cut::Place;
use fellrec::model::layout::Layout;
use fellrec::model::pretrained::{Adapter, write_adapter};
use fellrec::model::slice::{NamedTensor, Slice};
use safetensors::SafeTensors;
use serde::Deserialize;
use serde_json::Value;
use tch::{Device, Kind};

/// Two or all seven projections, bases with and without biases, both scales.
const ADAPTERS: [&str; 3] = ["llama2-attention", "qwen2-all", "qwen2-root-scaled"];
const TOLERANCE: f64 = 1e-4;
/// The script lets no adapter matter less.
const VISIBLE: f64 = 1e-1;

#[derive(Deserialize)]
struct Answers {
    ids: Vec<Vec<i64>>,
    /// Base with adapter.
    logits: Vec<Vec<f32>>,
    /// After `merge_and_unload()`.
    merged: Vec<Vec<f32>>,
}

fn adapter(name: &str) -> Adapter {
    Adapter::open(&fixture("peft").join(name)).expect("a whole fixture")
}

/// The fixtures name their bases by folder.
fn base(adapter: &Adapter) -> &str {
    adapter.base().expect("the script names it")
}

/// The adapter's tensors of one place.
fn slice(adapter: &Adapter, layout: &Layout, place: Place) -> Slice {
    let specs = layout.trainable(place);
    let tensors = specs.iter().map(|spec| {
        let tensor = adapter.tensor(spec, Kind::Float, Device::Cpu).expect("the fixture has it");
        NamedTensor::new(spec.name.clone(), tensor)
    });
    Slice::new(tensors.collect())
}

#[test]
fn adapters_answer_what_peft_answers() {
    for name in ADAPTERS {
        let (adapter, checkpoint) = (adapter(name), open(base(&adapter(name))));
        let answers: Answers = expected(&format!("peft/{name}"), "expected.json");
        for cut in cuts() {
            let layout = layout(&checkpoint, adapter.lora(), &cut);
            let with = |place| slice(&adapter, &layout, place);
            let (client, mut link) = party(&checkpoint, &layout, with);
            for (row, ids) in answers.ids.iter().enumerate() {
                let got = logits(&client, &mut link, ids);
                for (kind, expected) in [("beside", &answers.logits), ("merged", &answers.merged)] {
                    let difference = difference(&got, &expected[row]);
                    assert!(difference < TOLERANCE, "{name}, {kind}, cut {cut:?}: {difference}");
                }
            }
            let (client, mut link) = party(&checkpoint, &layout, |_| Slice::default());
            let bare = logits(&client, &mut link, &answers.ids[0]);
            assert!(difference(&bare, &answers.logits[0]) > VISIBLE, "{name}: it does something");
        }
    }
}

/// Exactly the tensors that the base has projections for, and for no other base.
#[test]
fn an_adapter_fits_its_base_only() {
    let all = split(1, 0, OrNone::None);
    let specs = |adapter: &Adapter, model: &str| -> Vec<_> {
        let layout = layout(&open(model), adapter.lora(), &all);
        layout.cut.places().into_iter().flat_map(|place| layout.trainable(place)).collect()
    };
    for name in ADAPTERS {
        let adapter = adapter(name);
        adapter.check(&specs(&adapter, base(&adapter))).expect("all of them and no other");
        let error = adapter.check(&specs(&adapter, "llama3")).expect_err("twice as wide");
        let message = error.to_string();
        let expected = "model.layers.0.self_attn.q_proj.lora_A.weight has shape [4, 16], \
                        expected [4, 32]";
        assert!(message.contains(expected), "{message}");
    }
}

/// Written again, an adapter has PEFT's names, shapes and bits, and no key that PEFT does not have.
#[test]
fn what_is_written_are_the_files_that_peft_writes() {
    for name in ADAPTERS {
        let (adapter, theirs) = (adapter(name), fixture("peft").join(name));
        let layout = layout(&open(base(&adapter)), adapter.lora(), &split(1, 1, OrNone::None));
        let slices = layout.cut.places().into_iter().map(|place| slice(&adapter, &layout, place));
        let tensors: Vec<NamedTensor> = slices.flat_map(|slice| slice.tensors).collect();
        let ours = tempfile::tempdir().expect("a folder");
        write_adapter(ours.path(), base(&adapter), adapter.lora(), &tensors).expect("a disk");
        assert_eq!(stored(ours.path()), stored(&theirs), "{name}");

        let (ours, theirs) = (config(ours.path()), config(&theirs));
        for (key, value) in ours.as_object().expect("an object") {
            // The scale by the root of the rank is written as the alpha that comes to the same.
            if name.ends_with("root-scaled") && ["lora_alpha", "use_rslora"].contains(&&**key) {
                continue;
            }
            assert_eq!(Some(value), theirs.get(key), "{name}, {key}");
        }
        let root = theirs["use_rslora"] == true;
        let (alpha, rank) = (theirs["lora_alpha"].as_f64(), theirs["r"].as_f64());
        let (alpha, rank) = (alpha.expect("a number"), rank.expect("a number"));
        let factor = ours["lora_alpha"].as_f64().expect("a number") / rank;
        assert_eq!(factor, alpha / if root { rank.sqrt() } else { rank }, "{name}");
    }
}

/// Names, types, shapes and bytes of the adapter's tensors, sorted.
fn stored(folder: &Path) -> Vec<(String, String, Vec<usize>, Vec<u8>)> {
    let bytes = fs::read(folder.join("adapter_model.safetensors")).expect("it is there");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let tensor = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
        let dtype = view.dtype().to_string();
        (name.to_owned(), dtype, view.shape().to_vec(), view.data().to_vec())
    };
    let mut tensors: Vec<_> = file.iter().map(tensor).collect();
    tensors.sort();
    tensors
}

/// The config, its projections sorted: PEFT keeps them in a set.
fn config(folder: &Path) -> Value {
    let bytes = fs::read(folder.join("adapter_config.json")).expect("it is there");
    let mut config: Value = serde_json::from_slice(&bytes).expect("JSON");
    let targets = config["target_modules"].as_array_mut().expect("a list");
    targets.sort_by_key(ToString::to_string);
    config
}
