//! `fellrec bench round`: federated rounds on random tokens.

use std::num::NonZeroU32;

use anyhow::Result;
use clap::Args;
use fellrec::config::{Layers, Loaded};

use crate::bench::{RoundBench, RoundFigures};
use crate::cli::ExitStatus;
use crate::cli::output::{print, print_json};

const EXAMPLES: &str = "\
Examples:
  fellrec bench round --json
  fellrec bench round --clients 1000 --steps 1
  fellrec bench round --recompute
  fellrec bench round --compare 20";

/// Sizes of a measured round. The defaults are the ones that published figures refer to.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RoundArgs {
    /// Clients of the federation
    #[arg(long, default_value = "8")]
    pub clients: NonZeroU32,
    /// Optimiser steps of a client in a round
    #[arg(long, default_value = "4")]
    pub steps: NonZeroU32,
    /// Sequences of a step
    #[arg(long, default_value = "16")]
    pub batch: NonZeroU32,
    /// Tokens of a sequence
    #[arg(long, default_value = "128")]
    pub seq: NonZeroU32,
    /// Width of the hidden states
    #[arg(long, default_value = "256")]
    pub dim: NonZeroU32,
    /// Transformer blocks
    #[arg(long, default_value = "8")]
    pub layers: NonZeroU32,
    /// Attention heads
    #[arg(long, default_value = "8")]
    pub heads: NonZeroU32,
    /// Width of the feed-forward layer
    #[arg(long, default_value = "688")]
    pub ffn: NonZeroU32,
    /// Tokens of the vocabulary
    #[arg(long, default_value = "4096")]
    pub vocab: NonZeroU32,
    /// Rank of the adapters
    #[arg(long, default_value = "8")]
    pub rank: NonZeroU32,
    /// Dropout of the adapters
    #[arg(long, default_value = "0")]
    pub dropout: f64,
    /// Rounds that are measured, after one that is not
    #[arg(long, default_value = "5")]
    pub rounds: NonZeroU32,
    /// Compute threads [default: one for each core]
    #[arg(long)]
    pub threads: Option<NonZeroU32>,
    /// Computes blocks again in the backward pass (runtime.recompute)
    #[arg(long)]
    pub recompute: bool,
    /// Also measures this many interleaved pairs against a plain unsplit loop without actors
    #[arg(long, value_name = "PAIRS")]
    pub compare: Option<NonZeroU32>,
    /// Writes the figures as JSON
    #[arg(long)]
    pub json: bool,
}

/// Measures.
///
/// # Errors
/// Sizes that make no model, or a round that failed.
pub fn run(args: &RoundArgs) -> Result<ExitStatus> {
    let figures = args.bench()?.run()?;
    if args.json {
        print_json(&figures)?;
    } else {
        print(&describe(&figures))?;
    }
    Ok(ExitStatus::Success)
}

impl RoundArgs {
    fn bench(&self) -> Result<RoundBench> {
        let mut sets = vec![
            format!("model.hidden={}", self.dim),
            format!("model.layers={}", self.layers),
            format!("model.heads={}", self.heads),
            format!("model.kv_heads={}", self.heads),
            format!("model.ffn={}", self.ffn),
            format!("model.vocab={}", self.vocab),
            "model.trainable=lora".to_owned(),
            format!("lora.rank={}", self.rank),
            format!("lora.dropout={}", self.dropout),
            format!("training.batch={}", self.batch),
            format!("clients.count={}", self.clients),
            format!("runtime.recompute={}", self.recompute),
            "checkpoint.fsync=false".to_owned(),
            "checkpoint.keep=1".to_owned(),
        ];
        sets.extend(self.threads.map(|threads| format!("runtime.compute_threads={threads}")));
        let config = Loaded::load(&Layers { sets, ..Layers::default() })?.config;
        Ok(RoundBench {
            config,
            clients: self.clients.get(),
            steps: self.steps.get(),
            seq: i64::from(self.seq.get()),
            vocab: i64::from(self.vocab.get()),
            rounds: self.compare.unwrap_or(self.rounds).get(),
            compare: self.compare.is_some(),
        })
    }
}

fn describe(figures: &RoundFigures) -> String {
    let mut text = format!(
        "median round        {:.3} s over {} rounds on {} threads\n\
         tokens              {:.0} a second\n\
         peak resident       {:.0} MiB\n\
         arithmetic          {:.1} GFLOP/s, {:.0} % of {:.1} GFLOP/s of bare matrix products\n\
         outside the model   {:.1} % of the processor time\n\
         cores busy          {:.0} %",
        figures.median_seconds,
        figures.round_seconds.len(),
        figures.threads,
        figures.tokens_per_second,
        figures.peak_resident_mib,
        figures.gflops,
        figures.share_of_products * 100.0,
        figures.product_gflops,
        figures.share_outside_model * 100.0,
        figures.cores_busy * 100.0,
    );
    if let Some(plain) = &figures.plain {
        text += &format!(
            "\nagainst a plain unsplit loop   {:.3} of its time (95 % interval {:.3} to {:.3}, {} pairs)",
            plain.mean_ratio,
            plain.interval.0,
            plain.interval.1,
            plain.plain_seconds.len(),
        );
    }
    text
}
