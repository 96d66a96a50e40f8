//! `fellrec report`: what a run came to, written into its folder as a page and printed as a table.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use fellrec::history::TestResult;
use fellrec::ids::ClientId;
use fellrec::report::tables::{Clients, final_table};
use fellrec::report::{self, EVENTS_FILE, History, Summary};
use serde::Serialize;

use super::output::{print, print_json};
use super::{ExitStatus, table};

const EXAMPLES: &str = "\
Works for a run that still runs or failed, too: it then shows validation.

Examples:
  fellrec report runs/20260101-120000-demo
  fellrec report runs/20260101-120000-demo --json";

/// Write the page of a run and print its final table
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ReportArgs {
    /// The run folder
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// Writes the result as JSON on standard output, and nothing else there
    #[arg(long)]
    pub json: bool,
}

/// What `--json` writes.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    page: &'a Path,
    summary: Summary,
    /// Empty before the end of the run.
    test: BTreeMap<ClientId, TestResult>,
}

/// Writes the page and prints the table.
///
/// # Errors
/// No run folder, a broken event log, or a page that cannot be written.
pub fn run(args: ReportArgs) -> Result<ExitStatus> {
    let history = History::read(&args.run.join(EVENTS_FILE))?;
    let page = report::write_page(&history, &args.run)?;
    for warning in history.warnings() {
        eprintln!("warning: {warning}");
    }
    if args.json {
        let summary = history.summary();
        let test = history.finish.map(|finish| finish.test).unwrap_or_default();
        print_json(&Answer { page: &page, summary, test })?;
    } else {
        let results = table::render(&final_table(&history, Clients::Extremes));
        print(&format!("{results}\n\nreport: {}", page.display()))?;
    }
    Ok(ExitStatus::Success)
}
