//! How a synthetic user gets from one item to the next.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::catalogue::Shop;
use crate::ids::ItemId;

/// Share of jumps that ignore taste.
pub(super) const EXPLORING: f64 = 0.15;

/// Chance to go on with the series while it has a part left.
const NEXT_PART: f64 = 0.75;

/// Chance to take up the next series of the chain when the walk leaves a series.
const NEXT_SERIES: f64 = 0.7;

/// Chance that a jump lands at the beginning of a series and not somewhere in it.
const AT_THE_BEGINNING: f64 = 0.8;

/// Jumps tried before the walk takes the first item it has not had.
const JUMPS: usize = 20;

/// What a group of users likes.
pub(super) struct Taste {
    /// Preferred genres, equally liked.
    pub(super) main: Vec<usize>,
    /// Share of jumps to any genre at all.
    pub(super) explores: f64,
    /// Walks series and chains from the end.
    pub(super) backwards: bool,
    /// Unit: interactions.
    pub(super) mean_history: u32,
}

/// Where a walk stands. Series and parts count in walking direction.
#[derive(Clone, Copy)]
struct Place {
    genre: usize,
    series: usize,
    part: usize,
}

/// A history of `length` different items, or of all items where there are fewer.
pub(super) fn walk(shop: &Shop, taste: &Taste, length: usize, rng: &mut impl Rng) -> Vec<ItemId> {
    let mut had = vec![false; shop.catalogue.items.len()];
    let length = length.min(had.len());
    let mut history = Vec::with_capacity(length);
    let mut place = None;
    while history.len() < length {
        let is_new = |place: &Place| !had[item(shop, taste, *place).index()];
        place = place
            .and_then(|place| step(shop, taste, place, rng))
            .filter(is_new)
            .or_else(|| (0..JUMPS).map(|_| jump(shop, taste, rng)).find(is_new));
        let any_new = || (0..had.len() as u32).map(ItemId).find(|id| !had[id.index()]);
        let Some(next) = place.map(|place| item(shop, taste, place)).or_else(any_new) else {
            break;
        };
        had[next.index()] = true;
        history.push(next);
    }
    history
}

/// The next part, or the beginning of the next series; `None` where the walk wants to jump.
fn step(shop: &Shop, taste: &Taste, place: Place, rng: &mut impl Rng) -> Option<Place> {
    let has_next = series(shop, taste, place).len() > place.part + 1;
    if has_next && rng.random_bool(NEXT_PART) {
        return Some(Place { part: place.part + 1, ..place });
    }
    let next = (place.series + 1) % shop.genres[place.genre].len();
    rng.random_bool(NEXT_SERIES).then_some(Place { series: next, part: 0, ..place })
}

/// A place by taste, or any place where the jump explores.
fn jump(shop: &Shop, taste: &Taste, rng: &mut impl Rng) -> Place {
    let any_genre = rng.random_range(0..shop.genres.len());
    let explores = rng.random_bool(taste.explores);
    let preferred = taste.main.choose(rng).copied().filter(|_| !explores);
    let genre = preferred.unwrap_or(any_genre);
    let beginning = Place { genre, series: rng.random_range(0..shop.genres[genre].len()), part: 0 };
    if rng.random_bool(AT_THE_BEGINNING) {
        return beginning;
    }
    let parts = series(shop, taste, beginning).len();
    Place { part: rng.random_range(0..parts), ..beginning }
}

/// The parts of a place's series, first part first.
fn series<'a>(shop: &'a Shop, taste: &Taste, place: Place) -> &'a [ItemId] {
    let chain = &shop.genres[place.genre];
    &chain[if taste.backwards { chain.len() - 1 - place.series } else { place.series }]
}

fn item(shop: &Shop, taste: &Taste, place: Place) -> ItemId {
    let parts = series(shop, taste, place);
    parts[if taste.backwards { parts.len() - 1 - place.part } else { place.part }]
}
