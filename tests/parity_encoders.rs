//! Claim (method.md 6.2): BERT and Longformer compute what Hugging Face transformers computes, rows of
//! different length in one batch. The folders are made by scripts/fixtures/make_models.py.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::lora;
use fellrec::config::LoraConfig;
use fellrec::data::TextRow;
use fellrec::model::architecture::BlockKind;
use fellrec::model::block::Block;
use fellrec::model::encoder::{Embeddings, EncoderInputs};
use fellrec::model::layout::model_specs;
use fellrec::model::pass::{BlockInputs, Pass};
use fellrec::model::pretrained::Checkpoint;
use fellrec::model::rope::RopeTable;
use fellrec::model::spec::{BaseWeights, Params};
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

#[derive(Deserialize)]
struct Answers {
    ids: Vec<Vec<i64>>,
    attention_mask: Vec<Vec<i64>>,
    /// Of the real positions only.
    hidden: Vec<Vec<Vec<f32>>>,
}

fn check(name: &str) {
    tch::set_num_threads(1);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(name);
    let checkpoint = Checkpoint::open(&folder).expect("a whole fixture");
    let text = std::fs::read_to_string(folder.join("expected.json")).expect("a fixture");
    let answers: Answers = serde_json::from_str(&text).expect("as the script writes it");

    let architecture = checkpoint.architecture();
    let BlockKind::Encoder(encoder) = &architecture.blocks else { panic!("{name} is an encoder") };
    let specs = model_specs(architecture);
    checkpoint.check(&specs).expect("exactly the model's tensors");
    let read = |spec: &fellrec::model::spec::TensorSpec| {
        let tensor = checkpoint.tensor(spec, Kind::Float, Device::Cpu).expect("it is there");
        (spec.name.clone(), tensor)
    };
    let base = BaseWeights::new(specs.iter().map(read).collect());
    let params = Params { base: &base, trainable: &[&BTreeMap::new()] };

    let row = |(ids, mask): (&Vec<i64>, &Vec<i64>)| {
        let length = mask.iter().sum::<i64>() as usize;
        let zeros = vec![0; length];
        let (token_types, item_positions) = (zeros.clone(), zeros);
        TextRow { ids: ids[..length].to_vec(), token_types, item_positions }
    };
    let rows: Vec<TextRow> = answers.ids.iter().zip(&answers.attention_mask).map(row).collect();
    let inputs = EncoderInputs::new(&rows, Device::Cpu);
    let block_inputs = BlockInputs { masks: None, lengths_b: Some(&inputs.lengths_b) };
    let mut hidden_btd = Embeddings::new(&params, architecture, encoder).forward(&inputs);
    let lora: LoraConfig = lora();
    for layer in 0..architecture.layers {
        let block = Block::new(&params, layer, architecture, &lora, &RopeTable::empty());
        hidden_btd = block.forward(&hidden_btd, &Pass::alone(&hidden_btd, block_inputs));
    }
    for (number, expected) in (0..).zip(&answers.hidden) {
        let flat: Vec<f32> = expected.concat();
        let expected_td = Tensor::from_slice(&flat).view([expected.len() as i64, -1]);
        let got_td = hidden_btd.get(number).narrow(0, 0, expected.len() as i64);
        let difference = (got_td - expected_td).abs().max().double_value(&[]);
        assert!(difference < 1e-4, "{name}, row {number}: {difference}");
    }
}

#[test]
fn bert_states_are_those_of_transformers() {
    check("bert");
}

/// Sliding windows, the global first token with projections of its own, positions after the padding id.
#[test]
fn longformer_states_are_those_of_transformers() {
    check("longformer");
}
