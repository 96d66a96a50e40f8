//! Top and bottom of the page: what the run came to, and what it takes to repeat it.

use maud::{Markup, html};

use crate::federation::round::Outcome;
use crate::report::format::{NOTHING, count, metric, seconds};
use crate::report::{History, KeyFigure, Protocol, RunState, Summary};

/// Title, state, key figures and warnings.
pub fn header(history: &History) -> Markup {
    let summary = history.summary();
    let (class, state) = state(&summary.run);
    let Summary { dataset, items, clients, users, rounds, seconds: wall, ndcg10, .. } = &summary;
    html! {
        header {
            h1 { "fellrec on " (dataset) }
            p.state.(class) { (state) }
            @for warning in history.warnings() { p.warn { "Note: " (warning) "." } }
            dl.key {
                @if let Some(figure) = ndcg10 { (key_figure(figure)) }
                @else { (card("NDCG@10", NOTHING, "not evaluated yet")) }
                (card("Rounds", &rounds.to_string(), &format!("{} of computing", seconds(*wall))))
                (card("Clients", &count(*clients as u64), &users.map_or("whose users are their own".to_owned(), |users| format!("{} users", count(users)))))
                (card("Catalogue", &count(*items), "items ranked"))
            }
        }
    }
}

fn state(run: &RunState) -> (&'static str, String) {
    let RunState::Finished(outcome) = run else {
        return (
            "warn",
            "Not finished: it still runs, or it was killed and can be resumed.".to_owned(),
        );
    };
    match outcome {
        Outcome::RoundsDone => ("good", "Finished: all rounds are done.".to_owned()),
        Outcome::PatienceSpent => {
            ("good", "Finished: validation stopped improving, so the run stopped early.".to_owned())
        }
        Outcome::Stopped => ("warn", "Stopped by the operator; it can be resumed.".to_owned()),
        Outcome::RoundFailed(reason) => {
            ("bad", format!("Failed: {reason}. It can be resumed from its last commit."))
        }
    }
}

fn key_figure(figure: &KeyFigure) -> Markup {
    let measured = match figure.protocol {
        Protocol::Test => "test",
        Protocol::Validation => "validation, newest state",
    };
    let after = &figure.after;
    let before = figure.before.map_or(NOTHING.to_owned(), metric);
    let change = format!("{before} → {}", metric(after.mean));
    html! {
        (card(&format!("NDCG@10, {measured}"), &change, "untrained → trained, mean over clients"))
        @if let Some(popularity) = figure.popularity {
            (card("Popularity", &metric(popularity), &against(after.mean, popularity)))
        }
        (card("Worst client", &metric(after.worst.value), &after.worst.client.to_string()))
    }
}

fn against(trained: f64, popularity: f64) -> String {
    if popularity > 0.0 {
        return format!("trained is {:.1} times that", trained / popularity);
    }
    "NDCG@10 of ranking by popularity".to_owned()
}

fn card(title: &str, value: &str, note: &str) -> Markup {
    html! { div.wide[value.len() > 10] { dt { (title) } dd { (value) small { (note) } } } }
}

/// Fingerprint and configuration.
pub fn reproduction(history: &History, config_toml: &str) -> Markup {
    let print = &history.fingerprint;
    let threads = print.intra_op_threads.to_string();
    let devices = print.devices.join(", ");
    let rows = [
        ("fellrec", &print.product),
        ("libtorch", &print.libtorch),
        ("processor", &print.cpu),
        ("threads within an operation", &threads),
        ("devices", &devices),
        ("number type", &print.dtype),
        ("configuration", &print.config),
    ];
    html! {
        section {
            h2 { "To repeat it" }
            p.faint { "Runs whose fingerprint is equal give equal metrics, bit for bit." }
            div.scroll { table { tbody {
                @for (name, value) in rows { tr { td { (name) } td { (value) } } }
            } } }
            details {
                summary { "Resolved configuration" }
                pre { (config_toml) }
            }
        }
    }
}
