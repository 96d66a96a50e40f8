//! A client's item tables: encoded through the shards from a committed state, and kept.

use std::collections::BTreeMap;

use fellrec::cost::ClientCost;
use fellrec::federation::member::{Opening, Purpose};
use fellrec::federation::round::{StateId, TabledState};
use fellrec::federation::track::Track;
use fellrec::training::encode_table;
use tch::Tensor;

use super::desk::{ClientError, Desk};
use super::link::Line;

/// The table at hand of each of the client's models.
///
/// A committed state never changes, so its name tells one table from another as well as a digest
/// over the state would, and the client, which does not hold the body, could not compute that.
#[derive(Debug, Default)]
pub struct Tables(BTreeMap<Track, Kept>);

#[derive(Debug)]
struct Kept {
    state: StateId,
    /// Row v is item v, `[V, D]`.
    table_vd: Tensor,
    /// What encoding it took, until a round has it in its books.
    unbooked: ClientCost,
}

impl Tables {
    fn get(&self, track: Track, state: StateId) -> Option<Tensor> {
        let kept = self.0.get(&track).filter(|kept| kept.state == state);
        kept.map(|kept| kept.table_vd.shallow_clone())
    }

    /// What the table of a local round cost, wherever it was encoded: an evaluation before the round
    /// may have been first. Said once.
    pub fn book(&mut self, track: Track) -> ClientCost {
        self.0.get_mut(&track).map(|kept| std::mem::take(&mut kept.unbooked)).unwrap_or_default()
    }
}

impl Desk {
    /// The item table that goes with a state; encoded in a session of its own unless it is at hand.
    /// `None` for backbones without one.
    pub(super) async fn table(
        &mut self,
        track: Track,
        state: TabledState,
        line: Line,
    ) -> Result<Option<Tensor>, ClientError> {
        let Some(item_table) = self.item_table.clone() else { return Ok(None) };
        let state = state.table.unwrap_or(state.state);
        if let Some(table_vd) = self.tables.get(track, state) {
            return Ok(Some(table_vd));
        }
        let opening = Opening { track, base: state, purpose: Purpose::Ranking };
        let mut link = self.open_link(line, opening).await?;
        let model = self.model(opening)?;
        let (stages, device) = (link.stages.len(), self.seat.blueprint.client_device());
        let (table_vd, unbooked) =
            encode_table(&model, &mut link, &item_table, stages, device).await?;
        let kept = Kept { state, table_vd: table_vd.shallow_clone(), unbooked };
        self.tables.0.insert(track, kept);
        Ok(Some(table_vd))
    }
}
