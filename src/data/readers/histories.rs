//! Collects interactions in any order and cuts them into one history a user.

use std::collections::HashMap;

use super::super::GivenParts;
use super::super::notes::ReadNotes;
use super::ItemIndex;
use crate::ids::ItemId;

/// What orders a user's interactions: a time or a rank, in any unit that one file keeps to.
pub(super) type Moment = i128;

/// One user's interactions, oldest first, each item once.
pub(super) struct History {
    /// User key as the files write it.
    pub(super) key: Vec<u8>,
    /// Chronological; equal moments in file order.
    pub(super) items: Vec<ItemId>,
    /// Filled by [`Histories::finish_parts`].
    pub(super) parts: Option<GivenParts>,
}

struct Row {
    user: u32,
    item: ItemId,
    moment: Moment,
}

/// Interactions as they come.
pub(super) struct Histories {
    index: ItemIndex,
    users: HashMap<Vec<u8>, u32>,
    keys: Vec<Vec<u8>>,
    rows: Vec<Row>,
}

impl Histories {
    /// Interactions with the items of `index`; room for `expected` of them.
    pub(super) fn new(index: ItemIndex, expected: usize) -> Self {
        let rows = Vec::with_capacity(expected);
        Self { index, users: HashMap::new(), keys: Vec::new(), rows }
    }

    /// Number of the user in order of first appearance; also makes a user known who has nothing yet.
    pub(super) fn user(&mut self, key: &[u8]) -> u32 {
        if let Some(&user) = self.users.get(key) {
            return user;
        }
        let user = self.keys.len() as u32;
        self.users.insert(key.to_vec(), user);
        self.keys.push(key.to_vec());
        user
    }

    /// Adds an interaction; an item that the catalogue lacks is counted and skipped.
    pub(super) fn add(&mut self, user: u32, item: &[u8], moment: Moment, notes: &mut ReadNotes) {
        match self.index.get(item) {
            Some(&item) => self.rows.push(Row { user, item, moment }),
            None => notes.unknown_items += 1,
        }
    }

    /// One history a user, in order of first appearance.
    pub(super) fn finish(self, notes: &mut ReadNotes) -> Vec<History> {
        self.cut(notes, |_| None)
    }

    /// As [`Self::finish`], where moment 0 is the training part, 1 validation and 2 test.
    pub(super) fn finish_parts(self, notes: &mut ReadNotes) -> Vec<History> {
        self.cut(notes, |moments| {
            let part = |number| moments.iter().filter(|&&moment| moment == number).count();
            Some(GivenParts { train: part(0), validation: part(1) })
        })
    }

    fn cut(
        mut self,
        notes: &mut ReadNotes,
        parts: impl Fn(&[Moment]) -> Option<GivenParts>,
    ) -> Vec<History> {
        // Stable: equal moments keep file order (method.md 7).
        self.rows.sort_by_key(|row| (row.user, row.moment));
        let mut last_user_of_item = vec![u32::MAX; self.index.len()];
        let mut histories = Vec::with_capacity(self.keys.len());
        let mut rows = self.rows.iter().peekable();
        let mut moments = Vec::new();
        for (user, key) in (0..).zip(self.keys) {
            let mut items = Vec::new();
            moments.clear();
            while let Some(row) = rows.next_if(|row| row.user == user) {
                let last = &mut last_user_of_item[row.item.index()];
                if *last == user {
                    notes.repeated_interactions += 1;
                    continue;
                }
                *last = user;
                items.push(row.item);
                moments.push(row.moment);
            }
            histories.push(History { key, items, parts: parts(&moments) });
        }
        histories
    }
}
