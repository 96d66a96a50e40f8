//! Titles, genres and series of the synthetic catalogue.

use rand::Rng;
use rand::seq::SliceRandom;

use super::super::{Catalogue, Item};
use super::words::{GENRES, series_names};
use crate::ids::ItemId;
use crate::seed;

/// Parts of a series; the last of a genre may be shorter.
const PARTS: std::ops::RangeInclusive<usize> = 3..=6;

/// Years of first parts.
const YEARS: std::ops::RangeInclusive<u32> = 1965..=2008;

/// Share of series that carry a second genre.
const SECOND_GENRE: f64 = 0.3;

/// The catalogue and what links its items.
pub(super) struct Shop {
    pub(super) catalogue: Catalogue,
    /// By genre, in chain order: the items of every series, first part first.
    pub(super) genres: Vec<Vec<Vec<ItemId>>>,
}

impl Shop {
    /// `items` items in `genres` genres of nearly equal size, each with at least one.
    pub(super) fn draw(items: usize, genres: usize, run_seed: u64) -> Self {
        let mut rng = seed::rng(run_seed, "synthetic catalogue", &[]);
        // Shuffled, so that an item's id tells nothing about its series.
        let mut ids: Vec<ItemId> = (0..items as u32).map(ItemId).collect();
        ids.shuffle(&mut rng);
        let mut titles = vec![(String::new(), String::new()); items];
        let mut free = ids.into_iter();
        let mut chains = Vec::with_capacity(genres);
        for genre in 0..genres {
            let mut left = items * (genre + 1) / genres - items * genre / genres;
            let mut chain = Vec::new();
            let mut names = series_names(genre, &mut rng).into_iter();
            while left > 0 {
                let parts = rng.random_range(PARTS).min(left);
                left -= parts;
                // `MAX_ITEMS` leaves a name for every series; see its test.
                let name = names.next().unwrap_or_default();
                let category = category(genre, genres, &mut rng);
                let mut year = rng.random_range(YEARS);
                let series: Vec<ItemId> = free.by_ref().take(parts).collect();
                for (part, item) in (1..).zip(&series) {
                    titles[item.index()] = (title(&name, part, year), category.clone());
                    year += rng.random_range(1..=3);
                }
                chain.push(series);
            }
            chains.push(chain);
        }
        let items = (1..).zip(titles).map(|(key, (title, category)): (u32, _)| Item {
            key: key.to_string(),
            title,
            category,
        });
        Self { catalogue: Catalogue { items: items.collect() }, genres: chains }
    }
}

fn title(name: &str, part: u32, year: u32) -> String {
    match part {
        1 => format!("{name} ({year})"),
        _ => format!("{name} {part} ({year})"),
    }
}

fn category(genre: usize, genres: usize, rng: &mut impl Rng) -> String {
    let own = GENRES[genre].name;
    let other = rng.random_range(0..genres);
    if other == genre || !rng.random_bool(SECOND_GENRE) {
        return own.to_owned();
    }
    format!("{own}|{}", GENRES[other].name)
}
