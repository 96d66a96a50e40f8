//! Tables as ready strings, the same for the terminal and the page.

mod cost;
mod incidents;
mod markdown;
mod results;
mod rounds;

use serde::Serialize;

pub use cost::{measured_cost, planned_cost};
pub use incidents::{absences, incidents};
pub use results::{Clients, MANY_CLIENTS, final_table, sampled_table};
pub use rounds::RoundRow;

/// Rows under named columns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Table {
    /// What the rows are.
    pub caption: String,
    /// The columns.
    pub columns: Vec<Column>,
    /// One cell a column.
    pub rows: Vec<Vec<String>>,
    /// Rows of another kind below, such as the mean; one cell a column.
    pub foot: Vec<Vec<String>>,
}

/// A column of a [`Table`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Column {
    /// Title over this column and its neighbours of the same group.
    pub group: Option<String>,
    /// Its own title.
    pub name: String,
    /// Whether its cells stand at the left (words) or at the right (numbers).
    pub align: Align,
}

/// Side of a column at which its cells stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

impl Column {
    /// A column of words.
    pub fn words(name: &str) -> Self {
        Self { group: None, name: name.to_owned(), align: Align::Left }
    }

    /// A column of numbers.
    pub fn numbers(name: &str) -> Self {
        Self { group: None, name: name.to_owned(), align: Align::Right }
    }

    /// The column under a group's title.
    pub fn of(self, group: &str) -> Self {
        Self { group: Some(group.to_owned()), ..self }
    }
}
