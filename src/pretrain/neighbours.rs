//! Items that have something in common, by what the catalogue says of them: histories that nobody had.
//!
//! Real histories are their clients' secret and play no part here. What goes together is read off
//! the public catalogue: a category, one of its terms, or a word of the title, as of a series; what few items
//! share says more than what many do. Within that the year counts that a title ends with.

use std::collections::{BTreeMap, BTreeSet};

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use crate::data::{Catalogue, Item};
use crate::ids::ItemId;

/// Items drawn for a history stand at most this many times its length away from its item, in a group
/// ordered by year.
const REACH: usize = 2;
/// The groups of a catalogue.
#[derive(Clone, Debug)]
pub struct Neighbours {
    /// By year, then in catalogue order.
    groups: Vec<Vec<ItemId>>,
    /// For every item, the groups that it is in.
    places: Vec<Vec<Place>>,
}

/// An item within a group.
#[derive(Clone, Copy, Debug)]
struct Place {
    group: usize,
    index: usize,
    /// How often the group is chosen among those of the item: `ln(1 + items / items of the group)`, the inverse
    /// document frequency of what it shares.
    weight: f64,
}

impl Neighbours {
    /// A group for every category, for every term of one and for every word of titles that two items share; items
    /// without a category are one group.
    pub fn new(catalogue: &Catalogue) -> Self {
        let (mut by_name, mut by_word) = (Groups::new(), Groups::new());
        for (number, item) in (0..).zip(&catalogue.items) {
            for name in names(item) {
                by_name.entry(name.to_owned()).or_default().push(ItemId(number));
            }
            for word in words(&item.title) {
                by_word.entry(word).or_default().push(ItemId(number));
            }
        }
        let mut groups: Vec<Vec<ItemId>> =
            by_name.into_values().chain(by_word.into_values()).collect();
        groups.retain(|items| items.len() > 1);
        let mut places = vec![Vec::new(); catalogue.items.len()];
        for (group, items) in groups.iter_mut().enumerate() {
            items.sort_by_key(|item| year(&catalogue.items[item.index()].title));
            let weight = (catalogue.items.len() as f64 / items.len() as f64).ln_1p();
            for (index, item) in items.iter().enumerate() {
                places[item.index()].push(Place { group, index, weight });
            }
        }
        Self { groups, places }
    }

    /// From 1 to `most` items that one could have met before `item`, in no order; `item` is none of them.
    /// Empty where nothing is like it.
    pub fn draw(&self, item: ItemId, most: usize, rng: &mut ChaCha8Rng) -> Vec<ItemId> {
        let Ok(Place { group, index, .. }) =
            self.places[item.index()].choose_weighted(rng, |place| place.weight)
        else {
            return Vec::new();
        };
        let group = &self.groups[*group];
        let reach = REACH * most;
        let window = &group[index.saturating_sub(reach)..group.len().min(index + reach + 1)];
        let others: Vec<ItemId> = window.iter().copied().filter(|other| *other != item).collect();
        let length = rng.random_range(1..=most.max(1));
        others.choose_multiple(rng, length).copied().collect()
    }
}

/// Items by what they have in common.
type Groups = BTreeMap<String, Vec<ItemId>>;

/// Words of a title, each once, without case or punctuation. Numbers count editions and years, not series.
fn words(title: &str) -> BTreeSet<String> {
    let words = title.split(|c: char| !c.is_alphanumeric());
    let wordy = |word: &&str| word.chars().any(char::is_alphabetic);
    words.filter(wordy).map(str::to_lowercase).collect()
}

fn names(item: &Item) -> Vec<&str> {
    let mut names: Vec<&str> = item.category.split('|').collect();
    names.push(&item.category);
    names.sort_unstable();
    names.dedup();
    names
}

/// The year in brackets at the end of a title; titles without one come first.
fn year(title: &str) -> Option<u16> {
    let (_, digits) = title.strip_suffix(')')?.rsplit_once('(')?;
    digits.parse().ok().filter(|year| (1000..3000).contains(year))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed;

    fn catalogue(items: &[(&str, &str)]) -> Catalogue {
        let item = |(title, category): &(&str, &str)| Item {
            key: String::new(),
            title: (*title).to_owned(),
            category: (*category).to_owned(),
        };
        Catalogue { items: items.iter().map(item).collect() }
    }

    #[test]
    fn a_year_is_the_number_in_brackets_at_the_end() {
        let years =
            ["Alien (1979)", "1984 (a play)", "(500) Days", "Up", "Odyssey (3001)"].map(year);
        assert_eq!(years, [Some(1979), None, None, None, None]);
    }

    #[test]
    fn neighbours_share_a_term_and_are_of_the_same_years() {
        let titles: Vec<String> = (0..60).map(|n| format!("{n} ({})", 1930 + n)).collect();
        let items: Vec<(&str, &str)> = titles
            .iter()
            .enumerate()
            .map(|(n, title)| (title.as_str(), ["Drama", "Drama|War", "Comedy"][n % 3]))
            .collect();
        let neighbours = Neighbours::new(&catalogue(&items));
        let mut rng = seed::rng(1, "test", &[]);
        let mut seen = BTreeSet::new();
        for _ in 0..400 {
            let drawn = neighbours.draw(ItemId(30), 3, &mut rng);
            assert!((1..=3).contains(&drawn.len()));
            assert_eq!(drawn.iter().collect::<BTreeSet<_>>().len(), drawn.len(), "all different");
            seen.extend(drawn);
        }
        assert!(!seen.contains(&ItemId(30)));
        // 6 places to either side: in the group of both dramas, or in that of the plain ones.
        assert!(seen.iter().all(|item| item.0 % 3 != 2 && item.0.abs_diff(30) <= 18), "{seen:?}");
        assert!(seen.iter().any(|item| item.0 % 3 == 1), "a shared term is enough");
    }

    #[test]
    fn what_few_items_share_makes_neighbours_more_often_than_what_many_share() {
        let titles: Vec<String> = (0..80).map(|n| format!("The Film {n}")).collect();
        let mut items: Vec<(&str, &str)> = vec![("The Zelda: Past", "Game")];
        items.extend(titles.iter().map(|title| (title.as_str(), "Film")));
        items.push(("The new ZELDA", "Toy"));
        let neighbours = Neighbours::new(&catalogue(&items));
        let mut rng = seed::rng(1, "test", &[]);
        let drawn = (0..600).filter(|_| neighbours.draw(ItemId(0), 1, &mut rng) == [ItemId(81)]);
        // By "zelda" with weight ln(1 + 82 / 2) of it and ln(1 + 82 / 82), of "the", and in the reach of neither else.
        let expected = 600.0 * 42f64.ln() / (42f64.ln() + 2f64.ln());
        let drawn = drawn.count() as f64;
        assert!((drawn - expected).abs() < 30.0, "{drawn} of 600, expected about {expected:.0}");
        assert!(words("The 2nd Part (1990)").iter().eq(["2nd", "part", "the"]));
    }

    #[test]
    fn an_item_like_no_other_has_no_neighbours() {
        let neighbours = Neighbours::new(&catalogue(&[("A", "x"), ("B", ""), ("C", "")]));
        let mut rng = seed::rng(1, "test", &[]);
        assert!(neighbours.draw(ItemId(0), 4, &mut rng).is_empty());
        assert_eq!(neighbours.draw(ItemId(1), 4, &mut rng), [ItemId(2)]);
    }
}
