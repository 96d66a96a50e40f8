//! A training step over the cut beside the same step in one graph: what the split itself costs.
//!
//! `cargo bench --bench step`. Whole rounds with actors: `fellrec bench round --compare 20`.

#![allow(missing_docs, reason = "criterion's macros define functions without documentation")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;

use common::{Ends, Party, masks, split, step_id};
use criterion::{Criterion, criterion_group, criterion_main};
use fellrec::config::{OrNone, Trainable};
use fellrec::model::backbone::{Batch, Inputs};
use fellrec::split::StepPlan;
use tch::{Device, Kind, Tensor};

const PLAN: StepPlan = StepPlan { learning_rate: 1e-3, grad_scale: 1.0 };

fn batch() -> Batch {
    let ids = Tensor::arange(16 * 8, (Kind::Int64, Device::Cpu)).remainder(30);
    Batch {
        rows_m: Tensor::arange(16 * 8, (Kind::Int64, Device::Cpu)),
        labels_m: (&ids + 1).remainder(30),
        inputs: Inputs::Ids(ids.view([16, 8])),
    }
}

fn step(criterion: &mut Criterion) {
    tch::set_num_threads(1);
    let batch = batch();
    let mut group = criterion.benchmark_group("step");
    for recompute in [false, true] {
        let cut = split(1, 1, OrNone::None);
        let mut party = Party::new(Ends::Items, Trainable::Full, &cut, recompute);
        let mut number = 0;
        let name = if recompute { "split, recomputed" } else { "split" };
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                split_step(&mut party, &batch, number);
                number += 1;
            });
        });
    }
    // With every block on the client the body is empty, and the step is one graph.
    let whole = split(4, 0, OrNone::None);
    let mut party = Party::new(Ends::Items, Trainable::Full, &whole, false);
    let mut number = 0;
    group.bench_function("one graph", |bencher| {
        bencher.iter(|| {
            let loss = party.client.unsplit_step(&batch, masks(number), |hidden| hidden);
            black_box((loss, party.client.squared_grad_norms()));
            party.client.step(PLAN);
            number += 1;
        });
    });
    group.finish();
}

fn split_step(party: &mut Party, batch: &Batch, number: u64) {
    let id = step_id(number);
    let (hidden, pending) = party.client.forward_front(batch, masks(number));
    let stage = &mut party.stages[0];
    let hidden = stage.forward(id, &hidden).expect("a fresh step");
    let back = party.client.run_back(&pending, &hidden, batch).expect("shapes agree");
    let body = stage.backward(id, &back.hidden).expect("the forward pass is pending");
    party.client.backward_front(pending, &body.hidden).expect("shapes agree");
    black_box((body.squared_norm, party.client.squared_grad_norms()));
    stage.step(id, PLAN).expect("gradients are pending");
    party.client.step(PLAN);
}

criterion_group!(benches, step);
criterion_main!(benches);
