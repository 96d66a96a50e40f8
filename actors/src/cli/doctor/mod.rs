//! `fellrec doctor`: is this machine ready, and if not, what to do about it.

mod machine;
mod torch;

use anyhow::Result;
use clap::Args;
use fellrec::config::{Config, Loaded, Origin};
use serde::Serialize;

use super::output::{print, print_json};
use super::{ConfigArgs, ExitStatus};

/// Check libtorch, CUDA, cores, memory, disk and configuration of this machine
#[derive(Debug, Args)]
#[command(after_help = "\
Each line is ok, a warning or an error with its remedy; the exit code is 1 if there is an error.

Examples:
  fellrec doctor
  fellrec doctor --config ml-1m --data data/ml-1m
  fellrec doctor --set runtime.client_device=cuda:0 --json")]
pub struct DoctorArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Writes JSON
    #[arg(long)]
    json: bool,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Ok,
    Warning,
    Error,
}

/// One line of the diagnosis.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Finding {
    /// What was looked at.
    subject: &'static str,
    level: Level,
    /// What was found.
    found: String,
    /// What to do; absent where all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl Finding {
    fn ok(subject: &'static str, found: impl Into<String>) -> Self {
        Self { subject, level: Level::Ok, found: found.into(), remedy: None }
    }

    fn warning(subject: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { subject, level: Level::Warning, found: found.into(), remedy: Some(remedy.into()) }
    }

    fn error(subject: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { subject, level: Level::Error, found: found.into(), remedy: Some(remedy.into()) }
    }
}

/// Looks at everything, the configuration first because the rest is judged against it.
///
/// # Errors
/// Standard output cannot be written.
pub fn run(args: DoctorArgs) -> Result<ExitStatus> {
    let (config, mut findings) = configuration(&args.config);
    let config = config.as_ref();
    findings.extend([
        torch::library(),
        torch::cuda(config),
        machine::cores(config),
        machine::memory(),
        machine::disk(config),
    ]);
    if args.json {
        print_json(&findings)?;
    } else {
        print(&render(&findings))?;
    }
    let broken = findings.iter().any(|finding| finding.level == Level::Error);
    Ok(if broken { ExitStatus::Failure } else { ExitStatus::Success })
}

fn configuration(args: &ConfigArgs) -> (Option<Config>, Vec<Finding>) {
    const SUBJECT: &str = "config";
    match args.load() {
        Ok(loaded) => {
            let found = format!("{} is valid; {}", args.source(), layers(&loaded));
            (Some(loaded.config), vec![Finding::ok(SUBJECT, found)])
        }
        Err(error) => {
            let remedy = "correct it; `fellrec config keys` explains every key";
            (None, vec![Finding::error(SUBJECT, error.to_string(), remedy)])
        }
    }
}

/// How many keys each layer above the default decided.
fn layers(loaded: &Loaded) -> String {
    let count =
        |is: fn(&Origin) -> bool| loaded.origins.values().filter(|origin| is(origin)).count();
    format!(
        "keys set by file or preset {}, environment {}, arguments {}",
        count(|origin| matches!(origin, Origin::File { .. } | Origin::Preset { .. })),
        count(|origin| matches!(origin, Origin::Environment { .. })),
        count(|origin| matches!(origin, Origin::Argument { .. })),
    )
}

fn render(findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding { subject, level, found, remedy } in findings {
        let level = match level {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Error => "error",
        };
        text.push_str(&format!("{level:<8} {subject:<9} {found}\n"));
        if let Some(remedy) = remedy {
            text.push_str(&format!("{:<8} {:<9} -> {remedy}\n", "", ""));
        }
    }
    text
}
