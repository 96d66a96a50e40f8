//! `fellrec simulate --dry-run`: what would run, what it needs, how long it may take.

use std::time::Instant;

use anyhow::Result;
use fellrec::blueprint::Blueprint;
use fellrec::cost::CostPlan;
use fellrec::federation::track::Track;
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::ExitStatus;
use super::output::{print, print_json, table};
use crate::system::compute_thread_count;

/// The plan of a run.
#[derive(Debug, Serialize)]
struct Plan {
    dataset: String,
    clients: usize,
    candidates: u64,
    rounds: u64,
    compute_threads: u32,
    cost: CostPlan,
    /// Trained states and moments of all clients, in bytes.
    state_bytes: u64,
    /// Bytes of the states that stay on disk at once.
    disk_bytes: u64,
    /// Measured rate of matrix products on one thread, in GFLOP/s.
    gflops_per_thread: f64,
    /// Training only, at half the rate of matrix products.
    estimated_seconds_per_round: f64,
}

/// Prints the plan and runs nothing.
pub fn dry_run(blueprint: &Blueprint, json: bool) -> Result<ExitStatus> {
    let plan = plan(blueprint);
    if json {
        print_json(&plan)?;
        return Ok(ExitStatus::Success);
    }
    let mut rows = table(["what", "client under the split", "client alone"]);
    let CostPlan { split, whole, .. } = plan.cost;
    let millions = |value: u64| format!("{:.2} M", value as f64 / 1e6);
    let mib = |value: u64| format!("{:.1} MiB", value as f64 / (1 << 20) as f64);
    rows.add_row(["parameters", &millions(split.parameters), &millions(whole.parameters)]);
    rows.add_row(["trained", &millions(split.trainable), &millions(whole.trainable)]);
    rows.add_row(["weights, gradients, moments", &mib(split.bytes), &mib(whole.bytes)]);
    let flops = (split.flops_per_position, whole.flops_per_position);
    rows.add_row(["FLOPs a position, forward", &millions(flops.0), &millions(flops.1)]);
    print(&format!(
        "{}: {} clients, {} candidates, {} rounds on {} compute threads\n\n{rows}\n\n\
         hidden states over the cut    {} bytes a position and step\n\
         all clients' states           {}\n\
         disk                          {}\n\
         matrix products here          {:.0} GFLOP/s a thread\n\
         estimated time                {:.0} s a round ({:.0} min in all), ranking not counted",
        plan.dataset,
        plan.clients,
        plan.candidates,
        plan.rounds,
        plan.compute_threads,
        plan.cost.wire_bytes_per_position,
        mib(plan.state_bytes),
        mib(plan.disk_bytes),
        plan.gflops_per_thread,
        plan.estimated_seconds_per_round,
        plan.estimated_seconds_per_round * plan.rounds as f64 / 60.0,
    ))?;
    Ok(ExitStatus::Success)
}

fn plan(blueprint: &Blueprint) -> Plan {
    let config = &blueprint.config;
    let clients = blueprint.clients();
    let cost = blueprint.cost_plan();
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
    let compute_threads = compute_thread_count(config);
    // Parameters and two moments of every client's every model; gradients live for one step only.
    let tracks = Track::all(&config.training).len();
    let state_bytes = cost.whole.trainable * 12 * (clients.len() * tracks) as u64;
    let kept_states = config.checkpoint.keep.get() + 2;
    let positions: usize = clients.iter().map(|client| blueprint.training_load(*client)).sum();
    let epochs = config.training.local_epochs.get() as f64;
    let share = config.federation.participation;
    // Forward once, backward twice that; a frozen base spares the weight gradients.
    let passes = if cost.whole.trainable < cost.whole.parameters { 2.0 } else { 3.0 };
    let flops = (positions * tracks) as f64
        * epochs
        * share
        * passes
        * cost.whole.flops_per_position as f64;
    let gflops_per_thread = measure_gflops();
    let rate = gflops_per_thread * 1e9 * f64::from(compute_threads.min(cores)) / 2.0;
    Plan {
        dataset: blueprint.dataset.clone(),
        clients: clients.len(),
        candidates: blueprint.candidates(),
        rounds: config.federation.rounds,
        compute_threads,
        cost,
        state_bytes,
        disk_bytes: state_bytes * kept_states,
        gflops_per_thread,
        estimated_seconds_per_round: flops / rate,
    }
}

/// Rate of a square f32 product on this thread, measured for about a quarter of a second.
fn measure_gflops() -> f64 {
    const SIZE: i64 = 512;
    tch::set_num_threads(1);
    let a = Tensor::ones([SIZE, SIZE], (Kind::Float, Device::Cpu));
    let _warm = a.matmul(&a);
    let (started, mut products) = (Instant::now(), 0.0);
    while started.elapsed().as_millis() < 250 {
        let _product = a.matmul(&a);
        products += 1.0;
    }
    let flops = products * 2.0 * (SIZE as f64).powi(3);
    flops / started.elapsed().as_secs_f64() / 1e9
}
