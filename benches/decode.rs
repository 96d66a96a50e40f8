//! Users a second of beam search over the cut: with every text run anew, with caches, and in batches.
//!
//! `cargo bench --bench decode`. One thread; a tied Llama of width 256, four blocks of which two are
//! on the shard, 4,096 tokens; prompts of 128 tokens, four beams, titles of 12 tokens.

#![allow(missing_docs, reason = "criterion's macros define functions without documentation")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::num::NonZeroU32;

use actix::System;
use common::link::{LocalLink, without_caches};
use common::{Ends, Party, SEED, model, split};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fellrec::config::{GenerationConfig, ModelConfig, OrNone, Trainable};
use fellrec::generation::{GenerationPlan, generate};
use fellrec::seed;
use rand::Rng;
use tch::{Device, Kind};

const VOCAB: u32 = 4096;
const PROMPT_TOKENS: usize = 128;
const BATCHES: [usize; 4] = [1, 4, 16, 64];

fn plan(batch: usize) -> GenerationPlan {
    let number = |value| NonZeroU32::new(value).expect("above 0");
    let search =
        GenerationConfig { beams: number(4), max_new_tokens: number(12), length_penalty: 1.0 };
    // No token ends a title, so that every user costs the same.
    GenerationPlan { search, end: Vec::new(), batch, stages: 1, device: Device::Cpu }
}

fn prompts(users: usize) -> Vec<Vec<u32>> {
    let mut rng = seed::rng(SEED, "bench prompts", &[]);
    (0..users).map(|_| (0..PROMPT_TOKENS).map(|_| rng.random_range(0..VOCAB)).collect()).collect()
}

fn decode(criterion: &mut Criterion) {
    tch::set_num_threads(1);
    let config = ModelConfig {
        hidden: 256,
        heads: 4,
        kv_heads: 4,
        ffn: 688,
        vocab: i64::from(VOCAB),
        ..model(Trainable::Lora)
    };
    let cut = split(1, 1, OrNone::None);
    let Party { client, stages, .. } =
        Party::built(Kind::Float, &config, Ends::Language { tied: true }, &cut, false, 0.0);
    let mut link = LocalLink::new(stages);
    let system = System::new();
    let mut group = criterion.benchmark_group("decode");
    group.sample_size(10);
    group.throughput(Throughput::Elements(1));
    group.bench_function("one user, every text run anew", |bencher| {
        let (prompts, plan) = (prompts(1), plan(1));
        bencher.iter(|| {
            let written = without_caches(&client, &mut link, &prompts, &plan);
            system.block_on(written).expect("legal shapes")
        });
    });
    for users in BATCHES {
        let (prompts, plan) = (prompts(users), plan(users));
        group.throughput(Throughput::Elements(users as u64));
        group.bench_function(BenchmarkId::new("caches, users at once", users), |bencher| {
            bencher.iter(|| {
                let written = generate(&client, &mut link, &prompts, &plan);
                system.block_on(written).expect("legal shapes")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
