//! Several methods on the same data and budget: what they set, and the honest table of what came of it.
//!
//! A study is methods x seeds; each pair is a run of its own, a *cell*. Here are the known [`methods`],
//! and from the ranks of all cells' test users the numbers, tables and plots of the [`Study`]. Who runs
//! the cells, and where their files lie, is the command line's business.

mod bootstrap;
mod cell;
mod methods;
mod output;
mod plots;
mod results;
mod table;

pub use bootstrap::{DRAWS, Gain, Paired, relative_gain};
pub use cell::{CellResult, ClientResult, Quality};
pub use methods::{Method, MethodError, methods, select};
pub use output::{curves_csv, markdown, results_csv, summary_csv};
pub use plots::{Plots, plots};
pub use results::{CellSummary, ClientSummary, MeanSd, MethodSummary, Study};
pub use table::table;
