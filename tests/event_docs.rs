//! `docs/events.md` shows a line of every event as this build writes it, and names its every field.
//!
//! `UPDATE_DOCS=1 cargo test --release --test event_docs` writes the lines anew; the words are by hand.

#[allow(dead_code, reason = "the tests of the page use the rest")]
mod report_support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use fellrec::history::EventKind;
use report_support::{Run, lines};
use serde_json::Value;

const RUN: Run = Run { dataset: "demo", count: 3, rounds: 4 };

/// One event of each kind, in the order of the page.
fn examples() -> Vec<EventKind> {
    vec![
        RUN.started(),
        RUN.opened(0, 0),
        Run::restarted(),
        RUN.committed(3),
        RUN.evaluated(1),
        Run::heating_changed(2),
        Run::resumed(2),
        RUN.finished(),
    ]
}

/// A new event does not compile here until it has an example and a place on the page.
fn place(kind: &EventKind) -> usize {
    match kind {
        EventKind::RunStarted { .. } => 0,
        EventKind::RoundOpened { .. } => 1,
        EventKind::MemberRestarted { .. } => 2,
        EventKind::RoundCommitted { .. } => 3,
        EventKind::RoundEvaluated { .. } => 4,
        EventKind::HeatingChanged { .. } => 5,
        EventKind::Resumed { .. } => 6,
        EventKind::RunFinished { .. } => 7,
    }
}

/// Names of fields at any depth; keys that are numbers are clients, rounds and cut-offs.
fn fields(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                if name.parse::<u64>().is_err() {
                    found.insert(name.clone());
                }
                fields(value, found);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| fields(value, found)),
        _ => {}
    }
}

#[test]
fn every_event_and_field_is_documented_with_a_line_of_today() -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/events.md");
    let mut page = fs::read_to_string(&path)?;
    let update = std::env::var_os("UPDATE_DOCS").is_some();
    let examples = examples();
    assert!(examples.iter().map(place).eq(0..8), "one of each, in order");

    for line in lines(examples) {
        let value: Value = serde_json::from_str(&line)?;
        let name = value["event"].as_str().context("an event has a name")?;
        let section = page.find(&format!("\n## {name}\n")).with_context(|| format!("no {name}"))?;
        let opening = "```json\n";
        let start = section + page[section..].find(opening).context("no example")? + opening.len();
        let end = start + page[start..].find("```").context("the example has no end")?;

        let mut names = BTreeSet::new();
        fields(&value, &mut names);
        for name in names {
            ensure!(page.contains(&format!("`{name}`")), "field `{name}` has no words");
        }
        if update {
            page.replace_range(start..end, &format!("{line}\n"));
        }
        ensure!(
            update || page[start..end].trim_end() == line,
            "{name} is out of date, now: {line}"
        );
    }
    if update {
        fs::write(&path, page)?;
    }
    Ok(())
}
