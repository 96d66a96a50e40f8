//! Reads what the cells of a study came to: their histories, and the ranks their clients kept.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use fellrec::ids::ClientId;
use fellrec::ranking::UserRanks;
use fellrec::report::History;
use fellrec::study::{CellResult, Study};

use super::plan::{Cell, CellState, Plan};

/// A finished run, for `study.toml`.
pub struct FinishedRun {
    /// Name of the method.
    pub method: String,
    /// Seed.
    pub seed: u64,
    /// Its history.
    pub history: History,
}

/// What a study came to so far.
pub struct Results {
    /// The finished cells.
    pub study: Study,
    /// Their runs.
    pub runs: Vec<FinishedRun>,
    /// Method and seed of those that are not finished.
    pub missing: Vec<(String, u64)>,
}

/// Reads all cells.
///
/// # Errors
/// A finished run whose files cannot be read.
pub fn collect(plan: &Plan) -> Result<Results> {
    let (mut cells, mut runs, mut missing) = (Vec::new(), Vec::new(), Vec::new());
    for cell in &plan.cells {
        let finished = cell.state()? == CellState::Finished;
        let Some(history) = cell.history()?.filter(|_| finished) else {
            missing.push((cell.method.clone(), cell.seed));
            continue;
        };
        cells.push(CellResult::new(&cell.method, cell.seed, &history, ranks(cell, &history)?));
        runs.push(FinishedRun { method: cell.method.clone(), seed: cell.seed, history });
    }
    let dataset = runs.first().map(|run| run.history.dataset.clone()).unwrap_or_default();
    let methods = plan.methods.iter().map(|method| method.name.clone()).collect();
    let study = Study::new(dataset, methods, plan.baseline.clone(), cells);
    Ok(Results { study, runs, missing })
}

/// Ranks of every client that was tested.
fn ranks(cell: &Cell, history: &History) -> Result<BTreeMap<ClientId, Vec<UserRanks>>> {
    let mut ranks = BTreeMap::new();
    for client in history.finish.iter().flat_map(|finish| finish.test.keys()) {
        let path = cell.folder.test_ranks(*client);
        let failed = || format!("failed to read the ranks {} of a finished run", path.display());
        let text = fs::read_to_string(&path).with_context(failed)?;
        ranks.insert(*client, UserRanks::from_csv(&text).with_context(failed)?);
    }
    Ok(ranks)
}
