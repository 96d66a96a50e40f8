//! Claims about pretrained models: they compute what Hugging Face transformers computes, over the cut as
//! well, and no party reads another party's tensors.
//!
//! The folders of tests/fixtures/models are made by scripts/fixtures/make_models.py.

mod common;

use std::num::NonZeroU32;
use std::sync::Arc;

use common::link::LocalLink;
use common::pretrained::{cuts, difference, expected, layout, logits, open, party};
use common::{lora, split};
use fellrec::config::{GenerationConfig, OrNone, SplitConfig};
use fellrec::generation::{GenerationPlan, generate};
use fellrec::model::architecture::BlockKind;
use fellrec::model::cut::Place;
use fellrec::model::layout::model_specs;
use fellrec::model::slice::Slice;
use fellrec::model::start::StartingPoint;
use fellrec::split::ClientModel;
use serde::Deserialize;
use tch::{Device, Kind};

/// Every causal fixture: grouped-query, tied and biased variants, f16, bf16, shards, both spellings.
const CAUSAL: [&str; 10] = [
    "llama2",
    "llama2-bf16",
    "llama2-f16",
    "llama2-gqa-sharded",
    "llama-bias",
    "llama3",
    "llama3-v5",
    "qwen2",
    "qwen3",
    "qwen3-v5",
];
const TOLERANCE: f64 = 1e-4;

/// A client and its stages without adapters.
fn bare(name: &str, cut: &SplitConfig) -> (ClientModel, LocalLink) {
    let checkpoint = open(name);
    party(&checkpoint, &layout(&checkpoint, &lora(), cut), |_| Slice::default())
}

#[derive(Deserialize)]
struct Answers {
    ids: Vec<Vec<i64>>,
    logits: Vec<Vec<f32>>,
}

/// method.md 6.1: logits of every causal family, for every cut.
#[test]
fn logits_are_those_of_transformers() {
    for name in CAUSAL {
        let answers: Answers = expected(&format!("models/{name}"), "expected.json");
        for cut in cuts() {
            let (client, mut link) = bare(name, &cut);
            for (ids, expected) in answers.ids.iter().zip(&answers.logits) {
                let got = logits(&client, &mut link, ids);
                let difference = difference(&got, expected);
                assert!(difference < TOLERANCE, "{name}, cut {cut:?}: {difference}");
            }
        }
    }
}

#[test]
fn a_checkpoint_holds_exactly_its_models_tensors() {
    for name in CAUSAL {
        let checkpoint = open(name);
        let specs = model_specs(checkpoint.architecture());
        checkpoint.check(&specs).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(checkpoint.check(&specs[1..]).is_err(), "{name}: one too many is seen");
    }
}

/// The client never reads the body, a shard neither embedding nor head.
#[test]
fn every_party_reads_its_own_tensors_only() {
    for (name, cut) in [("llama2", split(1, 0, OrNone::None)), ("qwen2", split(1, 0, OrNone::None))]
    {
        let read = |places: &[Place]| {
            let checkpoint = open(name);
            let start = StartingPoint::pretrained(0, Arc::clone(&checkpoint));
            let layout = layout(&checkpoint, &lora(), &cut);
            let base = layout.frozen_base(places, &start, Kind::Float, Device::Cpu);
            base.expect("the fixture holds them");
            checkpoint.tensors_read()
        };
        let (client, shard) = (read(&[Place::Front, Place::Back]), read(&[Place::Stage(0)]));
        assert!(client.iter().any(|tensor| tensor.starts_with("model.embed_tokens")));
        assert!(client.contains("model.norm.weight"));
        assert!(client.iter().all(|tensor| !tensor.starts_with("model.layers.1.")), "{client:?}");
        assert!(!shard.is_empty());
        assert!(shard.iter().all(|tensor| tensor.starts_with("model.layers.1.")), "{shard:?}");
    }
}

/// Folders of transformers 4 and 5 say the same of the same model.
#[test]
fn both_spellings_are_read_alike() {
    for (four, five) in [("llama3", "llama3-v5"), ("qwen3", "qwen3-v5")] {
        let (four, five) = (open(four), open(five));
        assert_eq!(four.architecture(), five.architecture());
        assert!(matches!(four.architecture().blocks, BlockKind::Decoder(_)));
        assert_eq!(four.digest().expect("readable"), five.digest().expect("readable"));
    }
}

#[derive(Deserialize)]
struct Beams {
    cases: Vec<BeamCase>,
}

#[derive(Deserialize)]
struct BeamCase {
    ids: Vec<u32>,
    eos: u32,
    sequences: Vec<Vec<u32>>,
    scores: Vec<f32>,
}

/// The texts that `generate(num_beams = 4)` of transformers writes, with caches over the cut.
#[test]
fn beams_are_those_of_transformers() {
    let beams: Beams = expected("models/llama2", "beam.json");
    let number = |value| NonZeroU32::new(value).expect("above 0");
    for cut in cuts() {
        let (client, mut link) = bare("llama2", &cut);
        for case in &beams.cases {
            let search = GenerationConfig {
                beams: number(4),
                max_new_tokens: number(8),
                length_penalty: 1.0,
            };
            let plan = GenerationPlan {
                search,
                end: vec![case.eos],
                batch: 4,
                stages: link.stages.len(),
                device: Device::Cpu,
            };
            let prompts = [case.ids.clone()];
            let written =
                actix::System::new().block_on(generate(&client, &mut link, &prompts, &plan));
            let written = &written.expect("legal")[0];
            let tokens: Vec<_> = written.iter().map(|text| text.tokens.clone()).collect();
            assert_eq!(tokens, case.sequences, "cut {cut:?}, end {}", case.eos);
            for (text, score) in written.iter().zip(&case.scores) {
                assert!((text.score - score).abs() < 1e-4, "{text:?} scores {score} there");
            }
        }
    }
}
