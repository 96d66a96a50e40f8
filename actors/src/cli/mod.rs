//! The command line: one file a subcommand, each with its arguments and its `run`.

mod args;
mod bench;
mod compare;
mod completions;
mod config;
mod data;
mod doctor;
mod dry_run;
mod export;
mod init;
mod json_lines;
mod model;
#[cfg(feature = "nodes")]
mod node;
#[cfg(feature = "nodes")]
mod nodes;
#[cfg(not(feature = "nodes"))]
#[path = "not_built.rs"]
mod nodes;
#[cfg(feature = "nodes")]
mod operate;
mod output;
mod pretrain;
mod progress;
#[cfg(feature = "nodes")]
mod provision;
mod report;
mod resume;
mod run;
mod simulate;
mod table;
#[cfg(feature = "nodes")]
mod up;
mod whole_folder;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use fellrec::blueprint::BlueprintError;
use fellrec::config::ConfigError;
use fellrec::data::DataError;
use fellrec::study::MethodError;

pub use args::{ConfigArgs, Verbosity};
pub use output::{print, say};

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// Done as asked.
    Success,
    /// The work failed, or a check found an error.
    Failure,
    /// The command line or the configuration is wrong; nothing was started.
    Usage,
    /// Stopped by Ctrl-C or SIGTERM after the last commit; `fellrec resume` goes on.
    Interrupted,
}

impl ExitStatus {
    /// 128 + SIGINT, what shells report for a program that Ctrl-C ended.
    pub const INTERRUPTED_CODE: u8 = 130;
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        ExitCode::from(match status {
            ExitStatus::Success => 0,
            ExitStatus::Failure => 1,
            ExitStatus::Usage => 2,
            ExitStatus::Interrupted => ExitStatus::INTERRUPTED_CODE,
        })
    }
}

const AFTER_HELP: &str = "\
Exit codes:
  0    done
  1    the run failed, or a check found an error
  2    wrong usage or wrong configuration; nothing was started
  130  interrupted; `fellrec resume RUN` goes on

Examples:
  fellrec simulate                                    the synthetic demo data, all defaults
  fellrec simulate --config ml-1m --data data/ml-1m   MovieLens-1M
  fellrec compare --list                              methods to compare, several seeds each
  fellrec config keys mixing                          what the keys of a section mean
  fellrec doctor                                      is this machine ready?";

/// Federated, split fine-tuning of language models for recommendation.
#[derive(Debug, Parser)]
#[command(name = "fellrec", version, after_help = AFTER_HELP, max_term_width = 100)]
pub struct Cli {
    /// How much is logged.
    #[command(flatten)]
    pub verbosity: Verbosity,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
#[allow(missing_docs, reason = "documented at the argument structs, whose words become the help")]
pub enum Command {
    Simulate(simulate::SimulateArgs),
    Compare(compare::CompareArgs),
    Resume(resume::ResumeArgs),
    #[command(flatten)]
    Nodes(nodes::NodesCommand),
    Pretrain(pretrain::PretrainArgs),
    Report(report::ReportArgs),
    Export(export::ExportArgs),
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    #[command(subcommand)]
    Data(data::DataCommand),
    #[command(subcommand)]
    Model(model::ModelCommand),
    #[command(subcommand)]
    Config(config::ConfigCommand),
    Init(init::InitArgs),
    Doctor(doctor::DoctorArgs),
    Completions(completions::CompletionsArgs),
}

/// Parses the command line, runs the subcommand and reports an error on standard error.
pub fn main() -> ExitCode {
    let Cli { verbosity, command } = Cli::parse();
    let status = match command {
        Command::Simulate(args) => simulate::run(args, &verbosity),
        Command::Compare(args) => compare::run(args, &verbosity),
        Command::Resume(args) => resume::run(args, &verbosity),
        Command::Nodes(command) => nodes::run(command, &verbosity),
        Command::Pretrain(args) => pretrain::run(args, &verbosity),
        Command::Export(args) => export::run(args),
        Command::Report(args) => report::run(args),
        Command::Bench(command) => bench::run(command),
        Command::Model(command) => model::run(command),
        Command::Data(command) => data::run(command),
        Command::Config(command) => config::run(command),
        Command::Init(args) => init::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Completions(args) => completions::run(args),
    };
    status.unwrap_or_else(|error| failed(&error)).into()
}

fn failed(error: &anyhow::Error) -> ExitStatus {
    say(&format!("error: {error:#}"));
    let is_usage = error.chain().any(|cause| match cause.downcast_ref() {
        // A transparent error hides the one within from the chain.
        Some(BlueprintError::Config(_)) => true,
        Some(BlueprintError::Data(error)) => is_setting(error),
        _ if cause.is::<WrongUsage>()
            || cause.is::<compare::PlanError>()
            || cause.is::<MethodError>() =>
        {
            true
        }
        _ => cause.is::<ConfigError>() || cause.downcast_ref().is_some_and(is_setting),
    });
    if is_usage { ExitStatus::Usage } else { ExitStatus::Failure }
}

/// An argument that is well formed and means nothing here, such as a client that a run does not have.
#[derive(Debug, thiserror::Error)]
#[error("{argument}: got {got}, expected {expected}")]
struct WrongUsage {
    /// With its dashes.
    argument: &'static str,
    got: String,
    expected: String,
}

/// Some settings turn out wrong only against the data, as more clients than users.
fn is_setting(error: &DataError) -> bool {
    matches!(error, DataError::Setting { .. })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
