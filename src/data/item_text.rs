//! Items as key-value text, in the manner of RecFormer (arXiv 2305.13731): `title THE TITLE category
//! ITS WORDS`, flattened to tokens, each with its type.
//!
//! A history is `<s>` and its items newest first, cut at the end: what is left out is the oldest.

use tokenizers::Tokenizer;

use super::tokens::{UNKNOWN, train};
use super::{Catalogue, Item, TokenError};
use crate::config::RecformerConfig;
use crate::ids::ItemId;

/// Token types: of the first token, of an attribute's name, of its value. The fourth row that RecFormer
/// embeds is for padding, which nothing here sees.
pub const TOKEN_TYPES: i64 = 4;
const START_TYPE: i64 = 0;
const KEY_TYPE: i64 = 1;
const VALUE_TYPE: i64 = 2;

/// First token of every text: RoBERTa's name for it, and BERT's.
const STARTS: [&str; 2] = ["<s>", "[CLS]"];

/// Tokens of a text, with the type and the item of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextRow {
    /// Token ids.
    pub ids: Vec<i64>,
    /// Token types, as many.
    pub token_types: Vec<i64>,
    /// Item positions, as many: 0 for the first token, then from 1.
    pub item_positions: Vec<i64>,
}

/// Texts of a whole catalogue, tokenized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemTexts {
    /// Tokens and types of every item, in catalogue order.
    items: Vec<Vec<(i64, i64)>>,
    start: i64,
    vocab: i64,
    max_items: usize,
    max_tokens: usize,
}

impl ItemTexts {
    /// Texts of `catalogue` in the tokens of `tokenizer`.
    ///
    /// # Errors
    /// One that has no token that starts a text.
    pub fn new(
        catalogue: &Catalogue,
        tokenizer: &Tokenizer,
        recformer: &RecformerConfig,
    ) -> Result<Self, TokenError> {
        let start = STARTS.iter().find_map(|token| tokenizer.token_to_id(token));
        let start = start.ok_or_else(|| TokenError::NoStart { expected: STARTS.join(", ") })?;
        let limit = recformer.max_attribute_tokens as usize;
        let text = |item: &Item| tokens(item, tokenizer, limit);
        Ok(Self {
            items: catalogue.items.iter().map(text).collect::<Result<_, _>>()?,
            start: i64::from(start),
            vocab: tokenizer.get_vocab_size(true) as i64,
            max_items: recformer.max_items as usize,
            max_tokens: recformer.max_tokens as usize,
        })
    }

    /// Items of the catalogue.
    pub fn items(&self) -> usize {
        self.items.len()
    }

    /// Items of the longest history.
    pub fn max_items(&self) -> i64 {
        self.max_items as i64
    }

    /// Tokens that the tokenizer knows: ids are below.
    pub fn vocab(&self) -> i64 {
        self.vocab
    }

    /// The text of a history, oldest item first as histories are; also of no item at all.
    pub fn history(&self, items: &[ItemId]) -> TextRow {
        let mut row = TextRow {
            ids: vec![self.start],
            token_types: vec![START_TYPE],
            item_positions: vec![0],
        };
        for (position, item) in items.iter().rev().take(self.max_items).enumerate() {
            let room = self.max_tokens - row.ids.len();
            for (id, token_type) in self.items[item.0 as usize].iter().take(room) {
                row.ids.push(*id);
                row.token_types.push(*token_type);
                row.item_positions.push(position as i64 + 1);
            }
        }
        row
    }

    /// Tokens of the text of a history.
    pub fn history_length(&self, items: &[ItemId]) -> usize {
        let newest = items.iter().rev().take(self.max_items);
        let tokens: usize = newest.map(|item| self.items[item.0 as usize].len()).sum();
        (tokens + 1).min(self.max_tokens)
    }

    /// The text of one item, as in the item table.
    pub fn item(&self, item: ItemId) -> TextRow {
        self.history(&[item])
    }

    /// Tokens of the text of one item.
    pub fn item_length(&self, item: ItemId) -> usize {
        self.history_length(&[item])
    }
}

/// Byte pairs over the catalogue's titles and categories, at most `vocab` tokens, with `<s>`.
///
/// # Errors
/// Text that cannot be tokenized.
pub fn item_text_tokenizer(catalogue: &Catalogue, vocab: i64) -> Result<Tokenizer, TokenError> {
    let texts = catalogue.items.iter().flat_map(|item| attributes(item).concat());
    let texts: Vec<String> = texts.collect();
    train(texts.iter().map(String::as_str), vocab as usize, &[UNKNOWN, STARTS[0]])
}

/// Names and values; an item without a category has one attribute only.
fn attributes(item: &Item) -> Vec<[String; 2]> {
    let attribute = |name: &str, value: String| [name.to_owned(), value];
    let mut attributes = vec![attribute("title", item.title.clone())];
    if !item.category.is_empty() {
        attributes.push(attribute("category", item.category.replace('|', " ")));
    }
    attributes
}

fn tokens(item: &Item, tokenizer: &Tokenizer, limit: usize) -> Result<Vec<(i64, i64)>, TokenError> {
    let mut tokens = Vec::new();
    for attribute in attributes(item) {
        let end = tokens.len() + limit;
        for (text, token_type) in attribute.iter().zip([KEY_TYPE, VALUE_TYPE]) {
            let encoding = tokenizer
                .encode(text.as_str(), false)
                .map_err(|error| TokenError::Tokenize(format!("{text:?}: {error}")))?;
            tokens.extend(encoding.get_ids().iter().map(|id| (i64::from(*id), token_type)));
        }
        tokens.truncate(end);
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{Config, Layers, Loaded};

    fn config(sets: &[&str]) -> Config {
        let sets = sets.iter().map(|set| (*set).to_owned()).collect();
        Loaded::load(&Layers { sets, ..Layers::default() }).expect("a legal config").config
    }

    fn catalogue(items: &[(&str, &str)]) -> Catalogue {
        let item = |(title, category): &(&str, &str)| Item {
            key: (*title).to_owned(),
            title: (*title).to_owned(),
            category: (*category).to_owned(),
        };
        Catalogue { items: items.iter().map(item).collect() }
    }

    fn texts(items: &[(&str, &str)], sets: &[&str]) -> ItemTexts {
        let config = config(sets);
        let catalogue = catalogue(items);
        let tokenizer = item_text_tokenizer(&catalogue, config.model.vocab).expect("plain text");
        ItemTexts::new(&catalogue, &tokenizer, &config.recformer).expect("plain text")
    }

    /// A tokenizer that has seen every word often enough knows it whole.
    const ITEMS: [(&str, &str); 3] =
        [("alpha beta", "red|blue"), ("gamma", ""), ("alpha gamma gamma", "red")];

    #[test]
    fn a_history_is_the_start_and_its_items_newest_first() {
        let texts = texts(&ITEMS, &[]);
        let row = texts.history(&[ItemId(0), ItemId(1), ItemId(2)]);
        // title alpha gamma gamma, category red; title gamma; title alpha beta, category red blue.
        assert_eq!(row.token_types, [0, 1, 2, 2, 2, 1, 2, 1, 2, 1, 2, 2, 1, 2, 2]);
        assert_eq!(row.item_positions, [0, 1, 1, 1, 1, 1, 1, 2, 2, 3, 3, 3, 3, 3, 3]);
        let (title, category, gamma) = (row.ids[1], row.ids[5], row.ids[3]);
        assert_eq!((row.ids[4], row.ids[8]), (gamma, gamma));
        assert_eq!((row.ids[7], row.ids[9], row.ids[12]), (title, title, category));
        assert_eq!(row.ids[0], texts.start);
        assert!(row.ids.iter().all(|id| (0..texts.vocab()).contains(id)));
    }

    #[test]
    fn attributes_items_and_the_whole_are_cut() {
        let cut = texts(&ITEMS, &["recformer.max_attribute_tokens=2"]);
        assert_eq!(cut.item(ItemId(2)).token_types, [0, 1, 2, 1, 2]);
        let cut = texts(&ITEMS, &["recformer.max_items=2"]);
        let all = [ItemId(0), ItemId(1), ItemId(2)];
        assert_eq!(cut.history(&all), cut.history(&all[1..]));
        let cut = texts(&ITEMS, &["recformer.max_tokens=8"]);
        let row = cut.history(&all);
        assert_eq!(row.item_positions, [0, 1, 1, 1, 1, 1, 1, 2]);
    }

    #[test]
    fn a_tokenizer_without_a_start_is_refused() {
        let tokenizer = train(["alpha"].into_iter(), 50, &[UNKNOWN]).unwrap();
        let refused = ItemTexts::new(&catalogue(&ITEMS), &tokenizer, &config(&[]).recformer);
        let message = refused.unwrap_err().to_string();
        assert!(message.contains("model.tokenizer") && message.contains("<s>, [CLS]"), "{message}");
    }

    proptest! {
        #[test]
        fn lengths_are_known_without_making_the_text(
            history in proptest::collection::vec(0..3u32, 0..12),
            max_items in 1..6u32,
            max_tokens in 2..30u32,
        ) {
            let texts = texts(
                &ITEMS,
                &[
                    &format!("recformer.max_items={max_items}"),
                    &format!("recformer.max_tokens={max_tokens}"),
                ],
            );
            let history: Vec<ItemId> = history.into_iter().map(ItemId).collect();
            let row = texts.history(&history);
            prop_assert_eq!(row.ids.len(), texts.history_length(&history));
            prop_assert!(row.ids.len() <= max_tokens as usize);
            prop_assert!(row.item_positions.iter().all(|p| *p <= i64::from(max_items)));
            prop_assert_eq!(row.ids.len(), row.token_types.len());
            prop_assert_eq!(row.ids.len(), row.item_positions.len());
        }
    }
}
