//! `fellrec bench`: what this machine does with the method, in seconds and bytes.

#[cfg(feature = "nodes")]
mod link;
mod round;
mod step;

use anyhow::Result;
use clap::Subcommand;

use super::ExitStatus;

/// Measure speed and memory
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Round trips of activations between nodes, against bare requests over the same broker
    #[cfg(feature = "nodes")]
    Link(link::LinkArgs),
    /// Federated LoRA rounds on random tokens with a causal language-model loss
    Round(round::RoundArgs),
    /// Optimiser steps of each role of the split in a process of its own, up to models of 7B parameters
    Step(step::StepArgs),
}

/// Measures.
///
/// # Errors
/// Sizes that make no model, a device that is not there, or a measurement that failed.
pub fn run(command: BenchCommand) -> Result<ExitStatus> {
    match command {
        #[cfg(feature = "nodes")]
        BenchCommand::Link(args) => link::run(&args),
        BenchCommand::Round(args) => round::run(&args),
        BenchCommand::Step(args) => step::run(&args),
    }
}
