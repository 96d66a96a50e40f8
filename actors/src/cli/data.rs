//! `fellrec data`: what is in a data set.

use anyhow::Result;
use clap::{Args, Subcommand};
use fellrec::data::{self, ClientSummary, HistoryLengths, Holdings, Inspection};
use serde_json::Value;

use super::output::{print, print_json, table};
use super::{ConfigArgs, ExitStatus};

/// Look at a data set
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// What is in the data set, how clients would be cut, and how different they are
    Inspect(InspectArgs),
}

/// Arguments of `data inspect`.
#[derive(Debug, Args)]
#[command(after_help = "\
ITEMS and CATEGORIES are Jensen-Shannon divergences from all clients together: 0 is the same, 1 nothing in common.

Examples:
  fellrec data inspect
  fellrec data inspect --config ml-1m --data data/ml-1m
  fellrec data inspect --config ml-1m --data data/ml-1m --set clients.assignment=uniform --json")]
pub struct InspectArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Writes JSON
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// A wrong configuration, data that cannot be read or cut, or standard output cannot be written.
pub fn run(command: DataCommand) -> Result<ExitStatus> {
    match command {
        DataCommand::Inspect(args) => inspect(&args),
    }
}

fn inspect(args: &InspectArgs) -> Result<ExitStatus> {
    let config = args.config.load()?.config;
    let prepared = data::prepare(&config, Holdings::All)?;
    let inspection = data::inspect(&prepared.loaded, &prepared.splits, &prepared.clients);
    if args.json {
        print_json(&inspection)?;
    } else {
        print(&render(&inspection)?)?;
    }
    // The data are shown even where the run would be refused: that is what one needs to mend it.
    config.validate_clients(prepared.count)?;
    prepared.rows(&config)?;
    Ok(ExitStatus::Success)
}

fn render(inspection: &Inspection) -> Result<String> {
    let Inspection { name, users, items, rated_items, interactions, untested_users, .. } =
        inspection;
    let mut text = format!(
        "{name}: {users} users, {interactions} interactions, {items} items ({rated_items} with any)\n\
         histories: {}\n\
         not tested: {untested_users} users without a test item or without a known one\n",
        lengths(&inspection.history)
    );
    for (note, count) in notes(inspection)? {
        text.push_str(&format!("noticed: {count} {note}\n"));
    }
    let header = ["client", "users", "interactions", "median", "items", "categories", "mostly"];
    let mut table = table(header);
    for client in &inspection.clients {
        table.add_row(row(client));
    }
    Ok(format!("{text}\n{}", table.trim_fmt()))
}

fn lengths(history: &HistoryLengths) -> String {
    let HistoryLengths { min, p25, median, p75, p95, max, mean } = history;
    format!("min {min}, quartiles {p25} {median} {p75}, p95 {p95}, max {max}, mean {mean:.1}")
}

/// The reader's counts that are not zero, by their field names in words.
fn notes(inspection: &Inspection) -> Result<Vec<(String, u64)>> {
    let Value::Object(counts) = serde_json::to_value(&inspection.notes)? else {
        return Ok(Vec::new());
    };
    let counts = counts.into_iter().map(|(name, count)| (name.replace('_', " "), count));
    Ok(counts
        .filter_map(|(name, count)| Some((name, count.as_u64().filter(|&n| n > 0)?)))
        .collect())
}

fn row(client: &ClientSummary) -> [String; 7] {
    let top = client.top_categories.iter().take(3);
    let top: Vec<_> =
        top.map(|top| format!("{} {:.0} %", top.category, 100.0 * top.share)).collect();
    [
        client.client.to_string(),
        client.users.to_string(),
        client.interactions.to_string(),
        client.history.median.to_string(),
        format!("{:.3}", client.item_divergence),
        format!("{:.3}", client.category_divergence),
        top.join(", "),
    ]
}
