//! Items that have something in common, by what the catalogue says of them: histories that nobody had.
//!
//! Real histories are their clients' secret and play no part here. What goes together is read off
//! the public catalogue: a category, one of its terms, or a rare word of the title, as of a series; and
//! within that the year that a title ends with.

use std::collections::{BTreeMap, BTreeSet};

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use crate::data::{Catalogue, Item};
use crate::ids::ItemId;

/// Items drawn for a history stand at most this many times its length away from its item, in a group
/// ordered by year.
const REACH: usize = 2;
/// A word is rare, and says that titles belong together, if at most this many titles have it.
const RARE: usize = 30;

/// The groups of a catalogue.
#[derive(Clone, Debug)]
pub struct Neighbours {
    /// By year, then in catalogue order.
    groups: Vec<Vec<ItemId>>,
    /// Group and place in it, for every group that an item is in.
    places: Vec<Vec<(usize, usize)>>,
}

impl Neighbours {
    /// A group for every category, for every term of one and for every rare word of titles; items without a
    /// category are one group.
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
        by_word.retain(|_, items| (2..=RARE).contains(&items.len()));
        let mut groups: Vec<Vec<ItemId>> =
            by_name.into_values().chain(by_word.into_values()).collect();
        let mut places = vec![Vec::new(); catalogue.items.len()];
        for (group, items) in groups.iter_mut().enumerate() {
            items.sort_by_key(|item| year(&catalogue.items[item.index()].title));
            for (place, item) in items.iter().enumerate() {
                places[item.index()].push((group, place));
            }
        }
        Self { groups, places }
    }

    /// From 1 to `most` items that one could have met before `item`, in no order; `item` is none of them.
    /// Empty where nothing is like it.
    pub fn draw(&self, item: ItemId, most: usize, rng: &mut ChaCha8Rng) -> Vec<ItemId> {
        let Some((group, place)) = self.places[item.index()].choose(rng) else {
            return Vec::new();
        };
        let group = &self.groups[*group];
        let reach = REACH * most;
        let window = &group[place.saturating_sub(reach)..group.len().min(place + reach + 1)];
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
        let titles: Vec<String> = (0..60).map(|n| format!("Film {n} ({})", 1930 + n)).collect();
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
    fn a_rare_word_of_their_titles_makes_neighbours_and_a_common_one_does_not() {
        let titles: Vec<String> = (0..80).map(|n| format!("The Film {}", n % 40)).collect();
        let mut items: Vec<(&str, String)> = vec![("Zelda: Past", "a".to_owned())];
        items.extend(titles.iter().map(|title| (title.as_str(), format!("c{title}"))));
        items.push(("The new ZELDA", "b".to_owned()));
        let items: Vec<(&str, &str)> = items.iter().map(|(t, c)| (*t, c.as_str())).collect();
        let neighbours = Neighbours::new(&catalogue(&items));
        let mut rng = seed::rng(1, "test", &[]);
        for _ in 0..50 {
            let drawn = neighbours.draw(ItemId(0), 4, &mut rng);
            assert!(drawn.is_empty() || drawn == [ItemId(81)], "by Zelda, or alone in a category");
        }
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
