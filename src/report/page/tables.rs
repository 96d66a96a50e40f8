//! A [`Table`] as HTML.

use maud::{Markup, html};

use crate::report::tables::{Align, Column, Table};

/// A table of mostly numbers: as narrow as it can be.
pub fn numbers(table: &Table) -> Markup {
    markup(table, "numbers")
}

/// A table of mostly words: the last column wraps.
pub fn words(table: &Table) -> Markup {
    markup(table, "words")
}

fn markup(table: &Table, class: &str) -> Markup {
    if table.rows.is_empty() && table.foot.is_empty() {
        return html! { p.faint { (table.caption) ": nothing recorded." } };
    }
    html! {
        div.scroll {
            table class=(class) {
                caption { (table.caption) }
                thead {
                    @if table.columns.iter().any(|column| column.group.is_some()) {
                        tr { @for (group, span) in groups(&table.columns) {
                            th.group[group.is_some()] colspan=(span) { (group.unwrap_or_default()) }
                        } }
                    }
                    tr { @for column in &table.columns {
                        th.n[is_number(column)] { (column.name) }
                    } }
                }
                tbody { @for row in &table.rows { (cells(&table.columns, row)) } }
                @if !table.foot.is_empty() {
                    tfoot { @for row in &table.foot { (cells(&table.columns, row)) } }
                }
            }
        }
    }
}

fn cells(columns: &[Column], row: &[String]) -> Markup {
    html! { tr { @for (column, cell) in columns.iter().zip(row) {
        td.n[is_number(column)] { (cell) }
    } } }
}

fn is_number(column: &Column) -> bool {
    column.align == Align::Right
}

/// Titles over neighbouring columns and how many columns each spans.
fn groups(columns: &[Column]) -> Vec<(Option<&str>, usize)> {
    let runs = columns.chunk_by(|a, b| a.group == b.group);
    runs.map(|run| (run[0].group.as_deref(), run.len())).collect()
}
