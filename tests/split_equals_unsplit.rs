//! Claim (method.md 5): split training equals unsplit training bit for bit, for every legal cut.

mod common;

use std::sync::Arc;

use common::{Ends, ITEMS, Party, SEED, masks, optimizer, rope, split, step_id, texts};
use fellrec::config::{OrNone, SplitConfig, Trainable};
use fellrec::data::{ClientData, TrainingRows, UserSplit};
use fellrec::ids::ItemId;
use fellrec::ids::{ClientId, UserId};
use fellrec::model::backbone::{Batch, backward};
use fellrec::model::cut::Place;
use fellrec::model::pass::BlockInputs;
use fellrec::model::spec::Params;
use fellrec::model::start::StartingPoint;
use fellrec::seed;
use fellrec::split::{BlockStack, StepPlan, unit_rows};
use fellrec::training::{
    AdamW, Examples, HistoryExamples, TextExamples, TrainablePart, clip_scale, learning_rate,
};
use rand::Rng;
use tch::{Device, Kind, Tensor};

const STEPS: u64 = 20;

fn batches(ends: Ends) -> Vec<Batch> {
    let mut rng = seed::rng(SEED, "test histories", &[]);
    let users = (0..60).map(|user| {
        let length = rng.random_range(3..14);
        let train = (0..length).map(|_| ItemId(rng.random_range(0..30))).collect();
        UserSplit { user: UserId(user), train, validation: Vec::new(), test: Vec::new() }
    });
    let data = ClientData { client: ClientId(0), users: users.collect() };
    let examples: Box<dyn Examples> = match ends {
        Ends::Texts => Box::new(TextExamples::among(&data, &TrainingRows::All, Arc::new(texts()))),
        Ends::Items | Ends::Language { .. } => Box::new(HistoryExamples::new(&data, 8)),
    };
    let mut rng = seed::rng(SEED, "test batches", &[]);
    let rows = examples.epoch(3, &mut rng);
    rows.iter().map(|rows| examples.batch(rows, &mut rng, Device::Cpu)).collect()
}

/// Losses of every step and the digests of all slices after the last one.
type Trace = (Vec<f64>, Vec<String>);

fn plan(squared_norm: f64, step: u64) -> StepPlan {
    StepPlan {
        learning_rate: learning_rate(&optimizer(), step),
        grad_scale: clip_scale(squared_norm, optimizer().clip_norm.get()),
    }
}

fn train_split(mut party: Party, batches: &[Batch]) -> Trace {
    let mut losses = Vec::new();
    for step in 0..STEPS {
        let (batch, id) = (&batches[step as usize], step_id(step));
        let (mut hidden, pending) = party.client.forward_front(batch, masks(step));
        for stage in &mut party.stages {
            hidden = stage.forward(id, &hidden).expect("a fresh step");
        }
        let back = party.client.run_back(&pending, &hidden, batch).expect("shapes agree");
        let mut grad = back.hidden;
        let mut squared_norms = Vec::new();
        for stage in party.stages.iter_mut().rev() {
            let answer = stage.backward(id, &grad).expect("the forward pass is pending");
            grad = answer.hidden;
            squared_norms.push(answer.squared_norm);
        }
        party.client.backward_front(pending, &grad).expect("shapes agree");
        let (front, back_norm) = party.client.squared_grad_norms();
        let squared_norm = front + squared_norms.iter().rev().sum::<f64>() + back_norm;
        let plan = plan(squared_norm, step);
        for stage in &mut party.stages {
            stage.step(id, plan).expect("gradients are pending");
        }
        party.client.step(plan);
        losses.push(back.loss_sum);
    }
    let (front, back) = party.client.close();
    let mut slices = vec![front.into_parts().0];
    slices.extend(party.stages.into_iter().map(|stage| stage.close().into_parts().0));
    slices.push(back.into_parts().0);
    (losses, slices.iter().flat_map(tensors).collect())
}

fn tensors(slice: &fellrec::model::slice::Slice) -> Vec<String> {
    let digest = |named: &fellrec::model::slice::NamedTensor| {
        let one = fellrec::model::slice::Slice::new(vec![fellrec::model::slice::NamedTensor {
            name: named.name.clone(),
            tensor: named.tensor.shallow_clone(),
        }]);
        format!("{} {}", named.name, one.digest())
    };
    slice.tensors.iter().map(digest).collect()
}

/// One graph over the whole model, one backward pass.
fn train_unsplit(mut party: Party, batches: &[Batch], mu: f64) -> Trace {
    let layout = party.layout.clone();
    let start = StartingPoint::random(SEED);
    let base = layout.frozen_base(&layout.cut.places(), &start, Kind::Float, Device::Cpu);
    let base = base.expect("drawn");
    let mut bodies: Vec<(TrainablePart, BlockStack)> = (0..layout.cut.stages().len())
        .map(|stage| {
            let place = Place::Stage(stage);
            let slice = layout.initial_slice(place, &start).expect("drawn");
            let part = TrainablePart::new(&slice, AdamW::new(&optimizer()), Device::Cpu);
            let part = part.anchored(&slice, mu);
            let rope = rope(&layout.architecture);
            let trainable = part.by_name();
            let params = Params { base: &base, trainable: &[&trainable] };
            let blocks = layout.cut.blocks(place);
            let stack = BlockStack::new(&params, &layout, blocks, &rope, false);
            (part, stack)
        })
        .collect();
    let mut losses = Vec::new();
    for step in 0..STEPS {
        let masks = masks(step);
        let loss = party.client.unsplit_step(&batches[step as usize], masks, |hidden| {
            let lengths_b = batches[step as usize].inputs.lengths();
            let inputs = BlockInputs { masks: Some(&masks), lengths_b };
            bodies.iter().fold(hidden, |hidden, (_, stack)| stack.run(&hidden, inputs))
        });
        bodies.iter().for_each(|(part, _)| part.close_gradients());
        let (front, back) = party.client.squared_grad_norms();
        let body: f64 = bodies.iter().map(|(part, _)| part.squared_grad_norm()).sum();
        let plan = plan(front + body + back, step);
        for (part, _) in &mut bodies {
            part.step(plan);
        }
        party.client.step(plan);
        losses.push(loss);
    }
    let (front, back) = party.client.close();
    let mut slices = vec![front.into_parts().0];
    slices.extend(bodies.into_iter().map(|(part, _)| part.into_parts().0));
    slices.push(back.into_parts().0);
    (losses, slices.iter().flat_map(tensors).collect())
}

/// An item table: rows of length 1.
fn candidates() -> Tensor {
    let mut rng = seed::rng(SEED, "test candidates", &[]);
    let values: Vec<f32> = (0..ITEMS * 16).map(|_| rng.random_range(-1.0..1.0)).collect();
    unit_rows(&Tensor::from_slice(&values).view([i64::from(ITEMS), 16]))
}

fn sorted((losses, mut tensors): Trace) -> Trace {
    tensors.sort();
    (losses, tensors)
}

fn check(ends: Ends, trainable: Trainable) {
    tch::set_num_threads(1);
    let batches = batches(ends);
    let party = |cut: &SplitConfig, recompute| {
        let mut party = Party::new(ends, trainable, cut, recompute);
        if ends == Ends::Texts {
            party.client.set_candidates(candidates());
        }
        party
    };
    for k_front in 1..=4 {
        for k_back in 0..=4 - k_front {
            let cut = split(k_front, k_back, OrNone::None);
            let whole = train_unsplit(party(&cut, false), &batches, 0.0);
            // Adapters on a random encoder learn nothing in twenty steps: what they do must still agree.
            let learns = (ends, trainable) != (Ends::Texts, Trainable::Lora);
            assert!(!learns || whole.0[19] < whole.0[0], "training lowers the loss");
            for recompute in [false, true] {
                let parts = train_split(party(&cut, recompute), &batches);
                assert_eq!(
                    sorted(parts),
                    sorted(whole.clone()),
                    "{ends:?} {trainable:?} cut {k_front}/{k_back}, recompute {recompute}"
                );
            }
        }
    }
}

#[test]
fn item_tokens_full_training() {
    check(Ends::Items, Trainable::Full);
}

#[test]
fn item_tokens_lora() {
    check(Ends::Items, Trainable::Lora);
}

#[test]
fn tied_language_model_full_training() {
    check(Ends::Language { tied: true }, Trainable::Full);
}

#[test]
fn untied_language_model_lora() {
    check(Ends::Language { tied: false }, Trainable::Lora);
}

/// method.md 6.2: texts of different lengths, the item table given and frozen.
#[test]
fn texts_full_training() {
    check(Ends::Texts, Trainable::Full);
}

#[test]
fn texts_lora() {
    check(Ends::Texts, Trainable::Lora);
}

/// protocol.md 4: a chain of stages equals the unsplit model as well.
#[test]
fn a_body_in_two_stages() {
    tch::set_num_threads(1);
    let batches = batches(Ends::Items);
    let stages = split(1, 1, OrNone::Some(vec![(1, 2), (2, 3)]));
    let party = || Party::new(Ends::Items, Trainable::Full, &stages, false);
    assert_eq!(train_split(party(), &batches), train_unsplit(party(), &batches, 0.0));
}

/// method.md 9, FedProx: the term is added on either side of the cut and counts for the clipping.
#[test]
fn the_proximal_term_is_the_same_on_both_sides_of_the_cut() {
    tch::set_num_threads(1);
    let batches = batches(Ends::Items);
    for trainable in [Trainable::Full, Trainable::Lora] {
        let cut = split(1, 1, OrNone::None);
        let party = |mu| Party::proximal(Ends::Items, trainable, &cut, false, mu);
        let parts = train_split(party(0.5), &batches);
        assert_eq!(parts, train_unsplit(party(0.5), &batches, 0.5), "{trainable:?}");
        assert_ne!(parts, train_split(party(0.0), &batches), "the term has an effect");
    }
}

/// The written-out gradient of the chunked loss against libtorch's own loss in one graph.
#[test]
fn chunked_loss_has_the_gradient_of_cross_entropy() {
    use fellrec::model::backbone::cross_entropy;
    tch::manual_seed(1);
    let rows = Tensor::randn([7, 5], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let table = Tensor::randn([11, 5], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let labels = Tensor::from_slice(&[0i64, 10, 3, 3, 7, 1, 2]);
    let expected = rows.matmul(&table.tr()).cross_entropy_for_logits(&labels);
    expected.backward();
    let own_table = table.detach().set_requires_grad(true);
    let own_rows = rows.detach().set_requires_grad(true);
    let loss = cross_entropy(&own_rows.detach(), &labels, &own_table, 3);
    backward(&own_rows, &loss.rows_md);
    let difference = |a: Tensor, b: Tensor| (a - b).abs().max().double_value(&[]);
    assert!((loss.loss_sum / 7.0 - expected.double_value(&[])).abs() < 1e-6);
    assert!(difference(own_rows.grad(), rows.grad()) < 1e-6);
    assert!(difference(own_table.grad(), table.grad()) < 1e-6);
}
