//! The report of a run folder: what of the event log counts, and that the page stands on its own.

mod report_support;

use std::fs;
use std::path::Path;

use anyhow::Result;
use fellrec::history::RunEvent;
use fellrec::ids::{ClientId, Round};
use fellrec::report::tables::{Clients, RoundRow, absences, final_table};
use fellrec::report::{self, History, Protocol, Quantity, ReportError, RunState};
use report_support::{Run, lines};
use tempfile::TempDir;

const CONFIG: &str = "[run]\nseed = 42 # <script>alert(1)</script>\n";

/// A run folder with these lines as its log.
fn folder(log: &str) -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join(report::EVENTS_FILE), log)?;
    fs::write(folder.path().join(report::CONFIG_FILE), CONFIG)?;
    Ok(folder)
}

fn read(log: &str) -> Result<Result<History, ReportError>> {
    Ok(History::read(&folder(log)?.path().join(report::EVENTS_FILE)))
}

fn log(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

const NAME: &str = "synthetic <odd> & \"quoted\"";
const SMALL: Run = Run { dataset: NAME, count: 5, rounds: 8 };

#[test]
fn every_event_reads_back_as_it_was_written() -> Result<()> {
    for kind in SMALL.events() {
        let event = RunEvent { time_ms: 1, kind };
        let line = serde_json::to_string(&event)?;
        assert_eq!(serde_json::from_str::<RunEvent>(&line)?, event, "{line}");
    }
    Ok(())
}

#[test]
fn a_torn_last_line_is_dropped_and_counted() -> Result<()> {
    let mut lines = SMALL.lines();
    lines.pop();
    let whole = read(&log(&lines))??;
    let last = lines.last().expect("there are lines").clone();
    for cut in [1, last.len() / 2, last.len() - 1] {
        let mut history = read(&format!("{}{}", log(&lines), &last[..cut]))??;
        assert_eq!(history.warnings().len(), 1);
        assert_eq!(std::mem::take(&mut history.torn_lines), 1);
        assert_eq!(history, whole, "cut after {cut} bytes");
    }
    Ok(())
}

#[test]
fn errors_name_file_and_line() -> Result<()> {
    let mut lines = SMALL.lines();
    lines[3] = lines[3].replace("\"clients\":[0", "\"clients\":[\"zero\"");
    let error = anyhow::Error::from(read(&log(&lines))?.expect_err("line 4 is no event"));
    let text = format!("{error:#}");
    assert!(text.contains("events.jsonl, line 4: expected an event: "), "{text}");

    for start in ["", "{\"time_ms\":1", &lines[1]] {
        let error = read(&format!("{start}\n"))?.expect_err("no run_started");
        assert!(error.to_string().ends_with("line 1: expected the event run_started"), "{error}");
    }
    Ok(())
}

#[test]
fn a_newer_schema_is_read_as_far_as_possible_and_told() -> Result<()> {
    let mut lines = SMALL.lines();
    lines[0] = lines[0].replace("\"schema\":1", "\"schema\":9,\"planet\":\"earth\"");
    lines.insert(2, r#"{"time_ms":5,"event":"moon_landed","where":"sea"}"#.to_owned());
    let history = read(&log(&lines))??;
    assert_eq!((history.unread_lines, history.completed_rounds()), (1, 8));
    assert!(history.warnings()[0].contains("schema 9"), "{:?}", history.warnings());

    lines[0] = lines[0].replace("\"schema\":9", "\"schema\":1");
    assert!(read(&log(&lines))?.is_err(), "an unknown event of the own schema is an error");
    Ok(())
}

/// A resume goes on from a commit: nothing that came of a later one may show.
#[test]
fn a_resume_supersedes_what_came_after_its_commit() -> Result<()> {
    let mut events = vec![SMALL.started(), SMALL.evaluated(0)];
    for round in 0..4 {
        events.extend([SMALL.opened(round, 0), SMALL.committed(round), SMALL.evaluated(round + 1)]);
    }
    events.extend([SMALL.finished(), Run::resumed(2)]);
    let history = read(&log(&lines(events.clone())))??;
    assert_eq!(history.completed_rounds(), 2);
    assert_eq!(history.evaluations.keys().next_back(), Some(&Round(2)));
    assert_eq!((history.finish.is_none(), history.mixing.is_none()), (true, true));

    events.extend([SMALL.opened(2, 0), SMALL.committed(2), SMALL.committed(2)]);
    let history = read(&log(&lines(events)))??;
    assert_eq!(history.completed_rounds(), 3);
    assert_eq!(history.series(Quantity::Loss)[&ClientId(0)].len(), 3);
    Ok(())
}

#[test]
fn series_stand_at_the_state_they_belong_to() -> Result<()> {
    let history = read(&log(&SMALL.lines()))??;
    let rounds = |quantity, client| -> Vec<u64> {
        history.series(quantity)[&ClientId(client)].iter().map(|(round, _)| *round).collect()
    };
    assert_eq!(rounds(Quantity::Ndcg10, 0), Vec::from_iter(0..=8));
    assert_eq!(rounds(Quantity::Loss, 0), Vec::from_iter(1..=8));
    assert_eq!(rounds(Quantity::SelfWeight, 4), [1, 2, 3, 5, 6, 7, 8], "absent in the fourth");
    Ok(())
}

#[test]
fn before_its_end_a_run_shows_validation() -> Result<()> {
    let mut lines = SMALL.lines();
    lines.pop();
    let history = read(&log(&lines))??;
    let summary = history.summary();
    assert_eq!(summary.run, RunState::Unfinished);
    let figure = summary.ndcg10.expect("it was evaluated");
    assert_eq!((figure.protocol, figure.popularity), (Protocol::Validation, None));
    assert!(final_table(&history, Clients::All).caption.starts_with("Validation"));
    Ok(())
}

#[test]
fn the_final_table_has_mean_and_balance_of_every_column() -> Result<()> {
    let history = read(&log(&SMALL.lines()))??;
    let table = final_table(&history, Clients::All);
    assert_eq!((table.rows.len(), table.columns.len()), (5, 12));
    assert!(table.rows.iter().chain(&table.foot).all(|row| row.len() == 12));
    let after = |row: &Vec<String>| row[7].parse::<f64>().expect("a metric");
    let mean = table.rows.iter().map(after).sum::<f64>() / 5.0;
    assert!((after(&table.foot[0]) - mean).abs() < 1e-4);
    assert_eq!(table.foot[3][7], "client-4", "the odd one");
    Ok(())
}

#[test]
fn of_many_clients_the_short_table_shows_the_extremes() -> Result<()> {
    let history = read(&log(&Run { dataset: NAME, count: 60, rounds: 4 }.lines()))??;
    let (all, few) =
        (final_table(&history, Clients::All), final_table(&history, Clients::Extremes));
    assert_eq!((all.rows.len(), few.rows.len()), (60, 20));
    assert_eq!(few.rows[0][0], "client-59", "the worst comes first");
    assert_eq!(all.foot, few.foot, "balance is over all clients");
    Ok(())
}

#[test]
fn absences_of_one_reason_share_a_row() -> Result<()> {
    let history = read(&log(&Run { dataset: NAME, count: 600, rounds: 4 }.lines()))??;
    let table = absences(&history);
    assert_eq!(table.rows.len(), 3, "three reasons in one round: {:?}", table.rows);
    Ok(())
}

#[test]
fn the_live_row_equals_the_row_of_the_report() -> Result<()> {
    let history = read(&log(&SMALL.lines()))??;
    let rows = history.round_table().rows;
    for (round, expected) in (0..).zip(rows) {
        let (committed, evaluated) = (SMALL.committed(round), SMALL.evaluated(round + 1));
        let row = RoundRow::from_events(&committed, Some(&evaluated)).expect("both fit");
        assert_eq!(row.cells(), expected);
    }
    let repeated = RoundRow::from_events(&SMALL.committed(2), None).expect("a commit");
    assert_eq!((repeated.ndcg10.as_str(), repeated.notes.as_str()), ("–", "attempt 2"));
    assert!(RoundRow::from_events(&SMALL.opened(0, 0), None).is_none());
    Ok(())
}

/// Nothing is fetched and nothing from the data becomes markup.
#[test]
fn the_page_stands_on_its_own() -> Result<()> {
    let folder = folder(&log(&SMALL.lines()))?;
    let page = fs::read_to_string(report::write(folder.path())?)?;
    for forbidden in ["<script", "src=", "href=", "url(", "@import", "<odd>", "<index out", "NaN"] {
        let found = page.replace("the loss is NaN, expected a finite number", "");
        assert!(!found.contains(forbidden), "{forbidden}");
    }
    assert!(page.contains("synthetic &lt;odd&gt; &amp; &quot;quoted&quot;"));
    assert!(page.contains("&lt;script&gt;alert(1)"), "the configuration is on the page");
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    assert_eq!(fs::read_dir(folder.path())?.count(), 3, "no partial file stays");
    Ok(())
}

#[test]
fn every_prefix_of_a_run_has_a_page() -> Result<()> {
    let lines = SMALL.lines();
    for length in 1..=lines.len() {
        report::write(folder(&log(&lines[..length]))?.path())?;
    }
    Ok(())
}

/// A thousand lines in a plot would be megabytes and unreadable.
#[test]
fn a_page_of_many_clients_stays_small() -> Result<()> {
    let page = report::html(
        &read(&log(&Run { dataset: NAME, count: 300, rounds: 12 }.lines()))??,
        CONFIG,
    )?;
    assert!(page.len() < 600_000, "{} bytes", page.len());
    assert!(page.contains("middle half"));
    Ok(())
}

/// `REPORT_DIR=FOLDER cargo test --release --test report_page -- --ignored` writes run folders there.
#[test]
#[ignore = "writes pages for people to look at"]
fn pages_to_look_at() -> Result<()> {
    let Some(target) = std::env::var_os("REPORT_DIR") else { return Ok(()) };
    let runs = [("few", 5, 12), ("ten", 10, 30), ("many", 300, 12)]
        .map(|(name, count, rounds)| (name, Run { dataset: NAME, count, rounds }.lines()));
    for (name, lines) in runs.into_iter().chain([("started", vec![SMALL.lines().remove(0)])]) {
        let folder = Path::new(&target).join(name);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(report::EVENTS_FILE), log(&lines))?;
        fs::write(folder.join(report::CONFIG_FILE), CONFIG)?;
        report::write(&folder)?;
    }
    Ok(())
}
