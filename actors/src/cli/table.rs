//! The tables of a report on a terminal.

use comfy_table::{Cell, CellAlignment, Table, presets};
use fellrec::report::tables::{self, Align, Column};

/// The table as text, its caption above.
///
/// Where it is wider than the terminal its groups of columns stand below each other: numbers that
/// wrap cannot be read.
pub fn render(table: &tables::Table) -> String {
    let width = Table::new().width();
    let whole = text(table, |_| true);
    let fits = |line: &str| width.is_none_or(|width| line.chars().count() <= usize::from(width));
    let mut groups: Vec<&str> = table.columns.iter().filter_map(|c| c.group.as_deref()).collect();
    groups.dedup();
    if groups.is_empty() || whole.lines().all(fits) {
        return format!("{}\n\n{whole}", table.caption);
    }
    let part = |group| text(table, |column| column.group.as_deref().is_none_or(|own| own == group));
    let parts: Vec<String> = groups.into_iter().map(part).collect();
    format!("{}\n\n{}", table.caption, parts.join("\n\n"))
}

/// Some of the columns.
fn text(table: &tables::Table, is_shown: impl Fn(&Column) -> bool) -> String {
    let shown: Vec<usize> =
        (0..table.columns.len()).filter(|place| is_shown(&table.columns[*place])).collect();
    let cells = |row: &Vec<String>| -> Vec<Cell> {
        let cell = |place: &usize| {
            let alignment = match table.columns[*place].align {
                Align::Left => CellAlignment::Left,
                Align::Right => CellAlignment::Right,
            };
            Cell::new(&row[*place]).set_alignment(alignment)
        };
        shown.iter().map(cell).collect()
    };
    let titles: Vec<String> = table.columns.iter().map(title).collect();

    let mut text = Table::new();
    text.load_preset(presets::NOTHING).set_header(cells(&titles));
    text.add_rows(table.rows.iter().map(cells));
    if !table.foot.is_empty() && !table.rows.is_empty() {
        text.add_row(vec![""; shown.len()]);
    }
    text.add_rows(table.foot.iter().map(cells));
    text.trim_fmt()
}

/// The group's title over the column's own, so that columns stay narrow.
fn title(column: &Column) -> String {
    let group = column.group.as_deref().unwrap_or_default();
    format!("{group}\n{}", column.name.to_uppercase())
}
