//! What this machine can do: the step's own matrix products, and nothing else.

use std::sync::Barrier;
use std::time::Instant;

use fellrec::config::Config;
use tch::{Device, Kind, Tensor, no_grad};

/// Seconds for which every thread multiplies.
const SECONDS: f64 = 2.0;

/// GFLOP/s of all threads at once, one intra-op thread each, over the frozen products of a step in
/// the proportion in which they occur: x W' forward and g W backward.
pub fn product_rate(config: &Config, seq: i64, vocab: i64, threads: u32) -> f64 {
    let model = &config.model;
    let (d, f, keys) = (model.hidden, model.ffn, model.head_dim() * model.kv_heads);
    let block = [(d, d), (d, keys), (d, keys), (d, d), (d, f), (d, f), (f, d)];
    let mut shapes: Vec<(i64, i64)> = (0..model.layers).flat_map(|_| block).collect();
    shapes.push((d, vocab));
    let tokens = i64::from(config.training.batch.get()) * seq;
    let barrier = Barrier::new(threads as usize);
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| no_grad(|| one_thread(&shapes, tokens, &barrier))))
            .collect();
        runs.into_iter().map(|run| run.join().unwrap_or(0.0)).sum()
    })
}

fn one_thread(shapes: &[(i64, i64)], tokens: i64, barrier: &Barrier) -> f64 {
    tch::set_num_threads(1);
    let ones = |rows, columns| Tensor::ones([rows, columns], (Kind::Float, Device::Cpu));
    // Weights are distinct in a model, so they are here: caches see what they see in training.
    let layers: Vec<(Tensor, Tensor, Tensor)> = shapes
        .iter()
        .map(|(inputs, outputs)| {
            (ones(tokens, *inputs), ones(*outputs, *inputs), ones(tokens, *outputs))
        })
        .collect();
    let pass = || {
        let mut flops = 0.0;
        for ((x, w, g), (inputs, outputs)) in layers.iter().zip(shapes) {
            let _forward = x.matmul(&w.tr());
            let _backward = g.matmul(w);
            flops += 4.0 * (tokens * inputs * outputs) as f64;
        }
        flops
    };
    let _warm_up = pass();
    barrier.wait();
    let (started, mut flops) = (Instant::now(), 0.0);
    while started.elapsed().as_secs_f64() < SECONDS {
        flops += pass();
    }
    flops / started.elapsed().as_secs_f64() / 1e9
}
