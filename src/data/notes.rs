//! What a reader met, coped with and counted.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::Catalogue;

/// Oddities of a data set. None of them stops a run; all of them are shown by `fellrec data inspect`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadNotes {
    /// Items whose title an earlier item already has: grounding by title cannot tell them apart.
    pub duplicate_titles: usize,
    /// Items without a title; their key stands in for it.
    pub empty_titles: usize,
    /// Catalogue rows whose key an earlier row already has; the earlier row stays.
    pub duplicate_items: usize,
    /// Titles in which HTML entities were decoded.
    pub html_entities: usize,
    /// Titles cut to [`MAX_TITLE_CHARS`](super::text::MAX_TITLE_CHARS).
    pub long_titles: usize,
    /// Titles with U+FFFD: an earlier program lost a character for good.
    pub replacement_characters: usize,
    /// Texts that are not UTF-8, read as latin-1. Usual in MovieLens, a wrong encoding elsewhere.
    pub latin1_texts: usize,
    /// Files in UTF-16.
    pub utf16_files: usize,
    /// Lines that end in CR LF.
    pub crlf_lines: usize,
    /// Interactions with an item that the catalogue lacks; skipped.
    pub unknown_items: usize,
    /// Later interactions of a user with the same item; skipped, because a known item is masked
    /// in every ranking and could not be recommended again (method.md 7).
    pub repeated_interactions: usize,
    /// Users without any usable interaction; left out.
    pub empty_histories: usize,
}

impl ReadNotes {
    /// Counts in what was met in another file of histories over the same catalogue.
    pub(super) fn add_histories(&mut self, other: &Self) {
        self.unknown_items += other.unknown_items;
        self.repeated_interactions += other.repeated_interactions;
        self.empty_histories += other.empty_histories;
    }

    /// Counts what only the finished catalogue shows.
    pub(super) fn inspect_titles(&mut self, catalogue: &Catalogue) {
        let mut seen = HashSet::with_capacity(catalogue.items.len());
        self.duplicate_titles =
            catalogue.items.iter().filter(|item| !seen.insert(item.title.as_str())).count();
    }
}
