//! Similarity and mixing of one round, by the number of clients. `cargo bench --bench mixing`.

#![allow(missing_docs, reason = "criterion's macros define functions without documentation")]

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use fellrec::config::{Layers, Loaded, MixingConfig};
use fellrec::federation::cohort::{Cohort, ParticipantTheta};
use fellrec::federation::mixing::{MixingInput, mix, rule_from};
use fellrec::ids::{ClientId, Round};
use fellrec::model::slice::{NamedTensor, Slice, Theta};
use tch::{Device, Kind, Tensor};

/// Trainable numbers of a client: 32 tensors of rank 8 and width 256.
fn theta() -> Theta {
    let slice = |tensors: usize| {
        let tensor = |index| {
            let values = Tensor::randn([8, 256], (Kind::Float, Device::Cpu));
            NamedTensor::new(format!("model.layers.{index}.weight"), values)
        };
        Slice::new((0..tensors).map(tensor).collect())
    };
    Theta { front: slice(4), body: slice(24), back: slice(4) }
}

fn config() -> MixingConfig {
    Loaded::load(&Layers::default()).expect("the defaults are valid").config.mixing
}

fn round(criterion: &mut Criterion) {
    tch::set_num_threads(1);
    let rule = rule_from(&config());
    let mut group = criterion.benchmark_group("similarity and mix");
    group.sample_size(10);
    for clients in [5u32, 50, 200] {
        let thetas: Vec<(Theta, Theta)> = (0..clients).map(|_| (theta(), theta())).collect();
        let participants = thetas.iter().zip(0..).map(|((theta, start), client)| {
            ParticipantTheta { client: ClientId(client), theta, start: Some(start) }
        });
        let cohort = Cohort::new(participants).expect("equal layouts");
        let openness: BTreeMap<_, _> = (0..clients).map(|c| (ClientId(c), 0.5)).collect();
        let data_sizes: BTreeMap<_, _> = (0..clients).map(|c| (ClientId(c), 100)).collect();
        let input = MixingInput {
            round: Round(0),
            cohort: &cohort,
            openness: &openness,
            data_sizes: &data_sizes,
        };
        group.bench_with_input(BenchmarkId::from_parameter(clients), &input, |bencher, input| {
            bencher.iter(|| {
                let weights = rule.weights(input).expect("a legal round");
                black_box(mix(input.cohort, &weights).expect("a legal round"))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, round);
criterion_main!(benches);
