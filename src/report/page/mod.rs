//! One self-contained page: no script, nothing fetched, light and dark, on a phone and on paper.
//!
//! Text from the data is escaped by the template; only the plots, which escape theirs, go in as they are.

mod charts;
mod head;
mod tables;

use maud::{DOCTYPE, Markup, PreEscaped, html as template};

use super::tables::{
    Clients, MANY_CLIENTS, absences, final_table, incidents, measured_cost, planned_cost,
    sampled_table,
};
use super::{History, ReportError};
use charts::MOST_LINES;

const STYLE: &str = include_str!("style.css");

/// The page of a run.
///
/// # Errors
/// [`ReportError::Plot`] if the plotting library fails; never for the data.
pub fn html(history: &History, config_toml: &str) -> Result<String, ReportError> {
    let page = template! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "fellrec: " (history.dataset) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (head::header(history))
                main {
                    (results(history))
                    (learning(history)?)
                    (mixing(history)?)
                    (balance(history)?)
                    (cost(history)?)
                    (events(history))
                    (head::reproduction(history, config_toml))
                }
            }
        }
    };
    Ok(page.into_string())
}

fn results(history: &History) -> Markup {
    let many = history.clients.len() > MANY_CLIENTS;
    template! {
        section {
            h2 { "Results by client" }
            p.faint {
                "Means and balance weigh every client alike. "
                @if history.finish.is_some() {
                    "Before is the untrained model, after each client's best state by its own validation, best round "
                    "the round that made it; popularity ranks by the client's own training rows."
                }
            }
            (tables::numbers(&final_table(history, Clients::Extremes)))
            @if many {
                details {
                    summary { "All " (history.clients.len()) " clients" }
                    (tables::numbers(&final_table(history, Clients::All)))
                }
            }
            @if let Some(sampled) = sampled_table(history) { (tables::numbers(&sampled)) }
        }
    }
}

fn learning(history: &History) -> Result<Markup, ReportError> {
    Ok(template! {
        section {
            h2 { "Learning" }
            @if history.clients.len() > MOST_LINES {
                p.faint {
                    "With more than " (MOST_LINES) " clients, plots over rounds show where the clients are instead of a "
                    "line each: the median, the middle half, the middle nine tenths, the lowest and the highest."
                }
            }
            div.plots { (charts::loss(history)?) (charts::validation(history)?) }
            details {
                summary { "Round by round" }
                (tables::numbers(&history.round_table()))
            }
        }
    })
}

fn mixing(history: &History) -> Result<Markup, ReportError> {
    Ok(template! {
        section {
            h2 { "Who learns from whom" }
            p.faint {
                "Openness w" sub { "c" } " is how far curriculum heating lets a client take from the others; its self-weight is what "
                "its new tensors keep of its own."
            }
            div.plots {
                (charts::openness(history)?)
                (charts::self_weight(history)?)
                (charts::mixing_matrices(history)?)
            }
        }
    })
}

fn balance(history: &History) -> Result<Markup, ReportError> {
    Ok(template! {
        section {
            h2 { "Balance between clients" }
            div.plots { (charts::balance_range(history)?) (charts::balance_ratio(history)?) }
        }
    })
}

fn cost(history: &History) -> Result<Markup, ReportError> {
    Ok(template! {
        section {
            h2 { "Cost of a client" }
            div.plots { (charts::plan(history)?) div { (tables::numbers(&planned_cost(history))) } }
            div.plots { (charts::seconds(history)?) (charts::traffic(history)?) }
            (tables::numbers(&measured_cost(history)))
        }
    })
}

fn events(history: &History) -> Markup {
    let tables = [absences(history), incidents(history)];
    template! {
        section {
            h2 { "Absences, restarts, interventions" }
            @for table in &tables {
                @if table.rows.is_empty() { p.faint { (table.caption) ": none." } }
                @else { (tables::words(table)) }
            }
        }
    }
}
