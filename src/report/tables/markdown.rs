//! A table as Markdown.

use super::{Align, Column, Table};

impl Table {
    /// The table as a Markdown pipe table, its caption above and its foot as last rows. A column of a
    /// group carries the group's title before its own.
    pub fn to_markdown(&self) -> String {
        let title = |column: &Column| match &column.group {
            Some(group) => format!("{group}: {}", column.name),
            None => column.name.clone(),
        };
        let titles: Vec<String> = self.columns.iter().map(title).collect();
        let rule = self.columns.iter().map(|column| match column.align {
            Align::Left => "---".to_owned(),
            Align::Right => "---:".to_owned(),
        });
        let rule: Vec<String> = rule.collect();
        let rows = [&titles, &rule].into_iter().chain(&self.rows).chain(&self.foot);
        let lines: String = rows.map(|row| line(row)).collect();
        format!("{}\n\n{lines}", self.caption)
    }
}

fn line(cells: &[String]) -> String {
    let escaped: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    format!("| {} |\n", escaped.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_stand_in_the_titles_and_bars_are_escaped() {
        let table = Table {
            caption: "Two.".to_owned(),
            columns: vec![Column::words("name"), Column::numbers("mean").of("all users")],
            rows: vec![vec!["a|b".to_owned(), "1".to_owned()]],
            foot: vec![vec!["all".to_owned(), "2".to_owned()]],
        };
        let expected =
            "Two.\n\n| name | all users: mean |\n| --- | ---: |\n| a\\|b | 1 |\n| all | 2 |\n";
        assert_eq!(table.to_markdown(), expected);
    }
}
