//! The words that synthetic titles are made of.

use rand::Rng;
use rand::seq::SliceRandom;

/// Words of one list.
const WORDS: usize = 16;

/// A genre and the nouns of its titles. No noun belongs to two genres, so no title does.
pub(super) struct Genre {
    pub(super) name: &'static str,
    nouns: [&'static str; WORDS],
}

/// Series names of a genre: an adjective and a noun, alone or with a place.
const SERIES_OF_A_GENRE: usize = WORDS * WORDS * (1 + WORDS);

/// Largest catalogue whose series all get a name, even if one genre holds it all in the shortest series.
pub(super) const MAX_ITEMS: u32 = 3 * SERIES_OF_A_GENRE as u32;

#[rustfmt::skip]
const ADJECTIVES: [&str; WORDS] = [
    "Crimson", "Silent", "Golden", "Hidden", "Broken", "Midnight", "Endless", "Lonely",
    "Burning", "Forgotten", "Restless", "Silver", "Wandering", "Stolen", "Distant", "Velvet",
];

#[rustfmt::skip]
const PLACES: [&str; WORDS] = [
    "Avalon", "Lisbon", "the North", "Kyoto", "the Valley", "Havana", "the Moon", "Prague",
    "the Deep", "Tangier", "the Border", "Vienna", "the Plains", "Cairo", "the Coast", "Bergen",
];

/// All genres.
#[rustfmt::skip]
pub(super) const GENRES: [Genre; 12] = [
    Genre { name: "Action", nouns: [
        "Vanguard", "Strike", "Bullet", "Commando", "Ambush", "Thunderbolt", "Outlaw", "Convoy",
        "Getaway", "Renegade", "Hardline", "Overdrive", "Firestorm", "Backlash", "Gauntlet", "Breakout",
    ] },
    Genre { name: "Adventure", nouns: [
        "Expedition", "Voyage", "Compass", "Treasure", "Canyon", "Lagoon", "Caravan", "Jungle",
        "Summit", "Atlas", "Island", "Frontier", "Relic", "Odyssey", "Passage", "Wilderness",
    ] },
    Genre { name: "Animation", nouns: [
        "Puppet", "Crayon", "Teapot", "Kitten", "Balloon", "Acorn", "Penguin", "Snowflake",
        "Bumblebee", "Toybox", "Marble", "Pumpkin", "Hedgehog", "Kite", "Sparrow", "Button",
    ] },
    Genre { name: "Comedy", nouns: [
        "Honeymoon", "Neighbour", "Butler", "Weekend", "Roommate", "Casserole", "Wedding", "Landlord",
        "Umbrella", "Misunderstanding", "Salesman", "Vacation", "Uncle", "Pajamas", "Mailman", "Toupee",
    ] },
    Genre { name: "Crime", nouns: [
        "Heist", "Alibi", "Informant", "Syndicate", "Ransom", "Detective", "Witness", "Racket",
        "Verdict", "Safecracker", "Bribe", "Precinct", "Forger", "Smuggler", "Jury", "Kingpin",
    ] },
    Genre { name: "Documentary", nouns: [
        "Glacier", "Orchestra", "Harvest", "Railway", "Archive", "Factory", "Marathon", "Migration",
        "Laboratory", "Election", "Coral", "Kitchen", "Apprentice", "Vineyard", "Census", "Mosaic",
    ] },
    Genre { name: "Drama", nouns: [
        "Inheritance", "Farewell", "Daughter", "Confession", "Orchard", "Letter", "Winter", "Promise",
        "Widow", "Homecoming", "Silence", "Harbour", "Teacher", "Forgiveness", "Autumn", "Regret",
    ] },
    Genre { name: "Fantasy", nouns: [
        "Dragon", "Sorcerer", "Enchantment", "Crown", "Griffin", "Amulet", "Prophecy", "Grove",
        "Unicorn", "Spellbook", "Throne", "Wyvern", "Oracle", "Rune", "Faerie", "Cauldron",
    ] },
    Genre { name: "Horror", nouns: [
        "Crypt", "Haunting", "Scarecrow", "Graveyard", "Possession", "Asylum", "Werewolf", "Nightmare",
        "Cellar", "Seance", "Mausoleum", "Ghoul", "Curse", "Phantom", "Swamp", "Coffin",
    ] },
    Genre { name: "Musical", nouns: [
        "Serenade", "Cabaret", "Chorus", "Melody", "Ballroom", "Carousel", "Overture", "Saxophone",
        "Tango", "Lullaby", "Encore", "Minstrel", "Waltz", "Rhapsody", "Operetta", "Jukebox",
    ] },
    Genre { name: "Sci-Fi", nouns: [
        "Android", "Nebula", "Starship", "Asteroid", "Hologram", "Colony", "Quasar", "Cyborg",
        "Reactor", "Orbit", "Wormhole", "Telescope", "Satellite", "Mutant", "Galaxy", "Paradox",
    ] },
    Genre { name: "Western", nouns: [
        "Saloon", "Sheriff", "Stagecoach", "Mustang", "Prairie", "Ranch", "Gunslinger", "Bounty",
        "Rodeo", "Homestead", "Coyote", "Posse", "Lasso", "Tumbleweed", "Marshal", "Sundown",
    ] },
];

/// All series names of a genre in drawn order, the short ones first.
pub(super) fn series_names(genre: usize, rng: &mut impl Rng) -> Vec<String> {
    let mut names = Vec::with_capacity(SERIES_OF_A_GENRE);
    for adjective in ADJECTIVES {
        for noun in GENRES[genre].nouns {
            names.push(format!("{adjective} {noun}"));
        }
    }
    names.shuffle(rng);
    let mut long: Vec<String> =
        names.iter().flat_map(|name| PLACES.map(|place| format!("{name} of {place}"))).collect();
    long.shuffle(rng);
    names.append(&mut long);
    names
}
