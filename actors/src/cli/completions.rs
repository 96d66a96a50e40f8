//! `fellrec completions`: completion scripts for shells.

use anyhow::Result;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, ExitStatus, print};

const EXAMPLES: &str = "\
Examples:
  fellrec completions bash > ~/.local/share/bash-completion/completions/fellrec
  fellrec completions fish > ~/.config/fish/completions/fellrec.fish";

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Prints the script.
///
/// # Errors
/// Standard output cannot be written.
pub fn run(args: CompletionsArgs) -> Result<ExitStatus> {
    // Into memory first: the generator panics on a closed pipe.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "fellrec", &mut script);
    print(&String::from_utf8(script)?)?;
    Ok(ExitStatus::Success)
}
