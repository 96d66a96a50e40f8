//! Claim: a base with a LoRA adapter computes what Hugging Face PEFT computes with them, merged or not. The
//! folders of tests/fixtures/peft are made by scripts/fixtures/make_adapters.py.

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::optimizer;
use fellrec::config::Trainable;
use fellrec::model::backbone::Inputs;
use fellrec::model::pretrained::{Adapter, Checkpoint};
use fellrec::model::start::StartingPoint;
use fellrec::split::{ClientSettings, WholePlan};
use serde::Deserialize;
use tch::Tensor;

const TOLERANCE: f64 = 1e-4;

#[derive(Deserialize)]
struct Expected {
    model: String,
    ids: Vec<Vec<i64>>,
    logits: Vec<Vec<f32>>,
    merged: Vec<Vec<f32>>,
}

fn fixture(kind: &str, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(kind).join(name)
}

fn logits(base: &str, adapter: &Arc<Adapter>, with_adapter: bool, ids: &[i64]) -> Tensor {
    tch::set_num_threads(1);
    let checkpoint = Arc::new(Checkpoint::open(&fixture("models", base)).expect("a whole fixture"));
    let architecture = checkpoint.architecture().clone();
    let plan = WholePlan {
        architecture: &architecture,
        trainable: Trainable::Lora,
        lora: adapter.lora().clone(),
        optimizer: &optimizer(),
        settings: ClientSettings { recompute: false, dropout: 0.0, loss_chunk: 64, cosine: None },
        longest: ids.len() as i64,
    };
    let start = StartingPoint::pretrained(0, checkpoint);
    let start = start.adapted(with_adapter.then(|| Arc::clone(adapter)));
    let model = plan.build(&start).expect("tensors that fit");
    let ends = model.ends();
    let hidden = model.evaluate_front(&ends, &Inputs::Ids(Tensor::from_slice(ids).unsqueeze(0)));
    let last = Tensor::from_slice(&[ids.len() as i64 - 1]);
    model.evaluate_back(&ends, &hidden, &last).expect("legal").squeeze_dim(0)
}

#[test]
fn an_adapter_of_peft_does_here_what_it_does_there() {
    for name in ["llama2-attention", "qwen2-all"] {
        let folder = fixture("peft", name);
        let text = std::fs::read_to_string(folder.join("expected.json")).expect("a fixture");
        let expected: Expected = serde_json::from_str(&text).expect("as the script writes it");
        let adapter = Arc::new(Adapter::open(&folder).expect("PEFT's own folder"));
        let rows = expected.ids.iter().zip(expected.logits.iter().zip(&expected.merged));
        for (ids, (logits_there, merged_there)) in rows {
            let got = logits(&expected.model, &adapter, true, ids);
            for there in [logits_there, merged_there] {
                let difference = (&got - Tensor::from_slice(there)).abs().max().double_value(&[]);
                assert!(difference < TOLERANCE, "{name}: {difference}");
            }
            let bare = logits(&expected.model, &adapter, false, ids);
            assert!((got - bare).abs().max().double_value(&[]) > 0.1, "{name} changes something");
        }
    }
}
