//! Claims about the layers by themselves; whole models are compared with Hugging Face's in `tests/`.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

use super::attention::Heads;
use super::*;
use crate::config::{LoraConfig, Projection};
use crate::data::TextRow;
use crate::ids::{ClientId, Round, StepId};
use crate::model::architecture::{Architecture, BlockKind, Encoder};
use crate::model::mask::MaskSeed;
use crate::model::pass::{BlockInputs, Pass};
use crate::model::spec::{BaseWeights, Params, TensorSpec};
use crate::seed;

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

fn encoder(windows: Option<Vec<i64>>) -> (Architecture, Encoder) {
    let encoder =
        Encoder { positions: 40, first_position: 2, token_types: 4, item_positions: 6, windows };
    let architecture = Architecture {
        hidden: 8,
        layers: 2,
        heads: 2,
        kv_heads: 2,
        head_dim: 4,
        ffn: 12,
        vocab: 30,
        norm_eps: 1e-5,
        // Wide, so that attention is far from uniform.
        init_std: 0.5,
        blocks: BlockKind::Encoder(encoder.clone()),
    };
    (architecture, encoder)
}

fn lora(targets: &[Projection]) -> LoraConfig {
    LoraConfig { rank: 2, alpha: 4.0, dropout: 0.5, targets: targets.to_vec() }
}

fn base(specs: &[TensorSpec]) -> BaseWeights {
    BaseWeights::new(specs.iter().map(|spec| (spec.name.clone(), spec.initial(3))).collect())
}

fn block_inputs(inputs: &EncoderInputs) -> BlockInputs<'_> {
    BlockInputs { masks: None, lengths_b: Some(&inputs.lengths_b) }
}

/// The state of the last block, embeddings included.
fn run(windows: Option<Vec<i64>>, inputs: &EncoderInputs) -> Tensor {
    let (architecture, encoder) = encoder(windows);
    let mut specs = embedding_specs(&architecture, &encoder);
    specs.extend(encoder_specs(&architecture, &encoder, 0..2));
    let (base, trainable) = (base(&specs), BTreeMap::new());
    let params = Params { base: &base, trainable: &[&trainable] };
    let mut x_btd = Embeddings::new(&params, &architecture, &encoder).forward(inputs);
    for layer in 0..2 {
        let block = EncoderBlock::new(&params, layer, &architecture, &encoder, &lora(&[]));
        x_btd = block.forward(&x_btd, &Pass::alone(&x_btd, block_inputs(inputs)));
    }
    x_btd
}

fn text(length: usize, first: i64) -> TextRow {
    let cycle = |modulus: i64| (0..length as i64).map(|n| (first + n * 7) % modulus).collect();
    TextRow { ids: cycle(30), token_types: cycle(4), item_positions: cycle(6) }
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

fn drawn(size: [i64; 4], rng: &mut impl rand::Rng) -> Tensor {
    let values: Vec<f32> =
        (0..size.iter().product()).map(|_| rng.random::<f32>() * 4.0 - 2.0).collect();
    Tensor::from_slice(&values).view(size.as_slice())
}

proptest! {
    /// arXiv 2004.05150 section 3.1: the chunks compute what the full, masked matrix of scores does.
    #[test]
    fn chunks_equal_the_dense_masked_form_in_outputs_and_gradients(
        width in 1..40i64,
        window in 0..13i64,
        lengths in proptest::collection::vec(1..40i64, 1..4),
        draw in any::<u64>(),
    ) {
        let lengths: Vec<i64> = lengths.into_iter().map(|length| length.min(width)).collect();
        let size = [lengths.len() as i64, 2, width, 3];
        let mut rng = seed::rng(draw, "heads", &[]);
        let values: Vec<Tensor> = (0..4).map(|_| drawn(size, &mut rng)).collect();
        let padding = Padding::new(Some(&Tensor::from_slice(&lengths)), width);
        // What comes out at padding means nothing, so nothing may come back through it either.
        let real = match padding.real_bt() {
            Some(real_bt) => real_bt.to_kind(Kind::Float).view([size[0], 1, width, 1]),
            None => Tensor::ones([1], CPU),
        };
        let pass = |attend: &dyn Fn(&Heads) -> Tensor| {
            let leaf = |n: usize| values[n].copy().set_requires_grad(true);
            let heads = Heads { q_bhte: leaf(0), k_bhte: leaf(1), v_bhte: leaf(2) };
            let output = attend(&heads) * &real;
            (&output * &values[3]).sum(Kind::Float).backward();
            [output.detach(), heads.q_bhte.grad(), heads.k_bhte.grad(), heads.v_bhte.grad()]
        };
        let dense = pass(&|heads| heads.dense(Some(window / 2), &padding));
        let chunked = pass(&|heads| heads.chunked(window / 2, &padding));
        for (dense, chunked) in dense.iter().zip(&chunked) {
            let difference = largest_difference(dense, chunked);
            prop_assert!(difference < 1e-5, "{difference}");
        }
    }
}

/// A window that reaches everywhere leaves only the first token to tell it from dense attention.
#[test]
fn other_tokens_use_the_local_projections_even_for_the_global_one() {
    let inputs = EncoderInputs::new(&[text(9, 1)], Device::Cpu);
    let (architecture, encoder) = encoder(Some(vec![40, 40]));
    let mut specs = embedding_specs(&architecture, &encoder);
    specs.extend(encoder_specs(&architecture, &encoder, 0..1));
    let (base, trainable) = (base(&specs), BTreeMap::new());
    let params = Params { base: &base, trainable: &[&trainable] };
    let x_btd = Embeddings::new(&params, &architecture, &encoder).forward(&inputs);
    let attention = |encoder: &Encoder| {
        let name = "encoder.layer.0.attention";
        Attention::new(&params, name, 0, &architecture, encoder, &lora(&[]))
            .forward(&x_btd, &Pass::alone(&x_btd, BlockInputs::default()))
    };
    let windowed = attention(&encoder);
    let dense = attention(&Encoder { windows: None, ..encoder.clone() });
    let others = |x: &Tensor| x.narrow(1, 1, 8);
    assert!(largest_difference(&others(&windowed), &others(&dense)) < 1e-6);
    let first = |x: &Tensor| x.narrow(1, 0, 1);
    assert!(largest_difference(&first(&windowed), &first(&dense)) > 1e-2);
}

#[test]
fn a_row_does_not_see_its_padding_nor_its_neighbours() {
    for windows in [None, Some(vec![4, 6])] {
        let rows = [text(23, 5), text(9, 11), text(1, 2)];
        let together = run(windows.clone(), &EncoderInputs::new(&rows, Device::Cpu));
        for (number, row) in rows.iter().enumerate() {
            let alone =
                run(windows.clone(), &EncoderInputs::new(std::slice::from_ref(row), Device::Cpu));
            let length = row.ids.len() as i64;
            let batched = together.narrow(0, number as i64, 1).narrow(1, 0, length);
            let difference = largest_difference(&alone, &batched);
            assert!(difference < 1e-5, "row {number}, {windows:?}: {difference}");
        }
    }
}

/// A window of 4 reaches 2 to either side, and the first token sees all.
#[test]
fn a_token_is_seen_within_the_window_and_by_the_first_token() {
    let row = text(30, 3);
    let mut changed = row.clone();
    changed.ids[20] = (changed.ids[20] + 1) % 30;
    let state = |row: TextRow| {
        let inputs = EncoderInputs::new(&[row], Device::Cpu);
        let (architecture, encoder) = encoder(Some(vec![4, 4]));
        let mut specs = embedding_specs(&architecture, &encoder);
        specs.extend(encoder_specs(&architecture, &encoder, 0..1));
        let (base, trainable) = (base(&specs), BTreeMap::new());
        let params = Params { base: &base, trainable: &[&trainable] };
        let x_btd = Embeddings::new(&params, &architecture, &encoder).forward(&inputs);
        EncoderBlock::new(&params, 0, &architecture, &encoder, &lora(&[]))
            .forward(&x_btd, &Pass::alone(&x_btd, block_inputs(&inputs)))
    };
    let moved = (state(row) - state(changed)).abs().amax([0, 2], false);
    let moved: Vec<usize> =
        (0..30).filter(|position| moved.double_value(&[*position as i64]) > 0.0).collect();
    assert_eq!(moved, [0, 18, 19, 20, 21, 22]);
}

/// Dropout on the adapter's input is the only one there is (the module's own words).
#[test]
fn adapters_sit_on_local_projections_and_only_they_drop() {
    let (architecture, encoder) = encoder(Some(vec![4, 4]));
    let config = lora(&[Projection::QProj, Projection::VProj, Projection::GateProj]);
    let adapters = encoder_lora_specs(&architecture, &config, 1..2);
    let names: Vec<&str> = adapters.iter().map(|spec| spec.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "encoder.layer.1.attention.self.query.lora_A.weight",
            "encoder.layer.1.attention.self.query.lora_B.weight",
            "encoder.layer.1.attention.self.value.lora_A.weight",
            "encoder.layer.1.attention.self.value.lora_B.weight",
        ]
    );
    let base = base(&encoder_specs(&architecture, &encoder, 1..2));
    let x_btd = drawn([1, 2, 7, 8], &mut seed::rng(1, "x", &[])).squeeze_dim(0);
    let masks =
        MaskSeed { run_seed: 1, client: ClientId(0), step: StepId { round: Round(0), step: 0 } };
    let output = |adapters: BTreeMap<String, Tensor>, masks: Option<&MaskSeed>| {
        let params = Params { base: &base, trainable: &[&adapters] };
        let block = EncoderBlock::new(&params, 1, &architecture, &encoder, &config);
        block.forward(&x_btd, &Pass::alone(&x_btd, BlockInputs { masks, lengths_b: None }))
    };
    let plain = output(BTreeMap::new(), None);
    assert_eq!(output(BTreeMap::new(), Some(&masks)), plain);
    let ones = adapters.iter().map(|s| (s.name.clone(), Tensor::ones(s.shape.as_slice(), CPU)));
    let ones: BTreeMap<String, Tensor> = ones.collect();
    let share = |t: &BTreeMap<String, Tensor>| {
        t.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
    };
    let adapted = output(share(&ones), None);
    assert!(largest_difference(&adapted, &plain) > 1e-3);
    assert!(largest_difference(&output(share(&ones), Some(&masks)), &adapted) > 1e-3);
}
