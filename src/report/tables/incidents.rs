//! What did not go as usual.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Column, Table};
use crate::config::HeatingConfig;
use crate::federation::round::Absence;
use crate::history::EventKind;
use crate::ids::{ClientId, Round};
use crate::report::format::NOTHING;
use crate::report::{History, Incident};

/// Rows after which a table ends with a count of the rest.
const MOST_ROWS: usize = 200;
/// Clients named in one row.
const MOST_NAMES: usize = 5;

/// Clients without a part in a round, grouped by round and reason. Screened updates are among them.
pub fn absences(history: &History) -> Table {
    let mut groups: BTreeMap<(Round, &str, &str), Vec<ClientId>> = BTreeMap::new();
    for (round, committed) in &history.rounds {
        for (client, absence) in &committed.absent {
            let (kind, detail) = described(absence);
            groups.entry((*round, kind, detail)).or_default().push(*client);
        }
    }
    let rows = groups.into_iter().map(|((round, kind, detail), clients)| {
        vec![round.next().to_string(), names(&clients), kind.to_owned(), detail.to_owned()]
    });
    Table {
        caption: "Clients without a part in a round; each kept its own state".to_owned(),
        columns: vec![
            Column::numbers("round"),
            Column::words("clients"),
            Column::words("why"),
            Column::words("in detail"),
        ],
        rows: limited(rows.collect()),
        foot: Vec::new(),
    }
}

/// Restarts, rounds opened again, resumes and changed settings, as they happened.
pub fn incidents(history: &History) -> Table {
    Table {
        caption: "Restarts, repeated rounds, resumes and changed settings".to_owned(),
        columns: vec![
            Column::words("time (UTC)"),
            Column::numbers("round"),
            Column::words("what"),
            Column::words("in detail"),
        ],
        rows: limited(history.incidents.iter().map(incident_row).collect()),
        foot: Vec::new(),
    }
}

fn described(absence: &Absence) -> (&str, &str) {
    match absence {
        Absence::Refused(reason) => ("refused", reason),
        Absence::Silent => ("silent", "no progress within the deadline"),
        Absence::Lost(reason) => ("lost", reason),
        Absence::Screened(reason) => ("update screened out", reason),
    }
}

fn names(clients: &[ClientId]) -> String {
    let named: Vec<String> = clients.iter().take(MOST_NAMES).map(ClientId::to_string).collect();
    let rest = clients.len() - named.len();
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    named.join(", ") + &more
}

fn incident_row(incident: &Incident) -> Vec<String> {
    let (what, detail) = match &incident.event {
        EventKind::MemberRestarted { member, cause, restarts } => {
            (format!("{member} restarted"), format!("{cause} (restart {restarts} of the run)"))
        }
        EventKind::RoundOpened { attempt, clients } => (
            format!("opened again, attempt {}", attempt.attempt + 1),
            format!("{} clients asked", clients.len()),
        ),
        EventKind::Resumed { round, skipped } => (
            format!("resumed after {round} rounds"),
            skipped
                .iter()
                .map(|(round, why)| format!("broken commit {round} passed over: {why}"))
                .collect::<Vec<_>>()
                .join("; "),
        ),
        EventKind::HeatingChanged { heating, .. } => ("heating changed".to_owned(), curve(heating)),
        // Everything else is as usual and no incident.
        _ => (NOTHING.to_owned(), String::new()),
    };
    vec![time(incident.time_ms), incident.round.next().to_string(), what, detail]
}

fn curve(heating: &HeatingConfig) -> String {
    let HeatingConfig { form, alpha, beta, overrides, .. } = heating;
    let overrides = match overrides.len() {
        0 => String::new(),
        count => format!(", {count} clients with their own"),
    };
    format!("form {form:?}, alpha {alpha}, beta {beta}{overrides}").to_lowercase()
}

/// Date and time to the second.
pub(in crate::report) fn time(time_ms: u64) -> String {
    let millis = i64::try_from(time_ms).ok();
    let instant = millis.and_then(|millis| Timestamp::from_millisecond(millis).ok());
    instant.map_or(NOTHING.to_owned(), |time| time.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// The first rows, and one that counts the rest.
fn limited(mut rows: Vec<Vec<String>>) -> Vec<Vec<String>> {
    let rest = rows.len().saturating_sub(MOST_ROWS);
    if rest == 0 {
        return rows;
    }
    rows.truncate(MOST_ROWS);
    let mut last = vec![String::new(); rows[0].len()];
    last[1] = format!("and {rest} more rows");
    rows.push(last);
    rows
}
