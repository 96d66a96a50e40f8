//! `fellrec bench`: what this machine does with the method, in seconds and bytes.

use std::num::NonZeroU32;

use anyhow::Result;
use clap::{Args, Subcommand};

use super::{ExitStatus, Verbosity};

const EXAMPLES: &str = "\
Examples:
  fellrec bench round --json
  fellrec bench round --clients 1000 --steps 1
  fellrec bench round --recompute
  fellrec bench round --compare 20";

/// Measure speed and memory
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Federated LoRA rounds on random tokens with a causal language-model loss
    Round(RoundArgs),
}

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
pub fn run(_command: BenchCommand, _verbosity: &Verbosity) -> Result<ExitStatus> {
    anyhow::bail!("not wired yet")
}
