//! The prompt that asks a language model for the next title (method.md 6.1), as text and as tokens.
//!
//! Training and inference get their prompts from the same function, so that a model is asked what
//! it was trained on; only in training the response follows.

use tokenizers::Tokenizer;

use super::{Catalogue, TokenError};
use crate::config::{GenerationConfig, PromptConfig};
use crate::ids::ItemId;

/// First line of a prompt. Source: Alpaca, by way of BIGRec.
const PREAMBLE: &str = "Below is an instruction that describes a task, paired with an input that provides \
                        further context. Write a response that appropriately completes the request.";

/// The words around the titles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptTemplate {
    before: String,
    max_items: usize,
}

impl PromptTemplate {
    /// The template in the words of `config`.
    pub fn new(config: &PromptConfig) -> Self {
        let PromptConfig { item, items, verb, max_items, .. } = config;
        let instruction = format!(
            "Given a list of {items} the user has {verb} before, please recommend a new {item} that the \
             user likes to the user."
        );
        let input = format!("The user has {verb} the following {items} before: ");
        let before =
            format!("{PREAMBLE}\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}");
        Self { before, max_items: max_items.get() as usize }
    }

    /// The prompt over the newest of `titles`, which come oldest first; a response follows it directly.
    pub fn text(&self, titles: &[&str]) -> String {
        let newest = &titles[titles.len().saturating_sub(self.max_items)..];
        let quoted: Vec<String> = newest.iter().map(|title| quoted(title)).collect();
        format!("{}{}\n\n### Response:\n", self.before, quoted.join(", "))
    }

    /// Prompts in which every title of the catalogue occurs: what a tokenizer is trained on, so that
    /// it sees the words of the wrapper as often beside titles as the model does.
    pub fn corpus(&self, catalogue: &Catalogue) -> Vec<String> {
        let titles: Vec<&str> = catalogue.items.iter().map(|item| item.title.as_str()).collect();
        titles.chunks(self.max_items).map(|titles| self.text(titles)).collect()
    }
}

fn quoted(title: &str) -> String {
    format!("\"{title}\"")
}

/// Prompts and responses over a catalogue as token ids.
///
/// A prompt with any response of the catalogue is at most `prompt.cutoff` tokens long. The response
/// that follows plays no part in what a prompt says: room is kept for the longest one.
#[derive(Clone, Debug)]
pub struct Prompts {
    template: PromptTemplate,
    titles: Vec<String>,
    tokenizer: Tokenizer,
    begin: Vec<u32>,
    end: u32,
    max_response: usize,
    budget: usize,
}

impl Prompts {
    /// Prompts over `catalogue` by `tokenizer`, whose token `end` ends a response.
    ///
    /// Text begins with what the tokenizer puts before it, such as `<s>`. Special tokens that are
    /// spelt out in a title are text, not tokens: no title can end a prompt.
    ///
    /// # Errors
    /// [`TokenError::Tokenize`] when a title cannot be tokenized, [`TokenError::Cutoff`] when a
    /// prompt fits with no title whatever.
    pub fn new(
        catalogue: &Catalogue,
        mut tokenizer: Tokenizer,
        end: u32,
        config: &PromptConfig,
        generation: &GenerationConfig,
    ) -> Result<Self, TokenError> {
        tokenizer.set_encode_special_tokens(true);
        let mut begin = encode(&tokenizer, "", true)?;
        begin.retain(|id| *id != end);
        let titles = catalogue.items.iter().map(|item| item.title.clone()).collect();
        let template = PromptTemplate::new(config);
        // Whatever is asked for later has been tokenized once here: a failure is found now.
        for text in template.corpus(catalogue) {
            encode(&tokenizer, &text, false)?;
        }
        let max_response = generation.max_new_tokens.get() as usize;
        let mut prompts = Self { template, titles, tokenizer, begin, end, max_response, budget: 0 };
        let mut longest = 0;
        for title in &prompts.titles {
            encode(&prompts.tokenizer, title, false)?;
            longest = longest.max(prompts.response(title)?.len());
        }
        let expected = prompts.prompt(&[""])?.len() + longest;
        let got = config.cutoff.get();
        prompts.budget = (got as usize)
            .checked_sub(longest)
            .filter(|_| expected <= got as usize)
            .ok_or(TokenError::Cutoff { got, expected })?;
        Ok(prompts)
    }

    /// The prompt after `history`, oldest first, which it begins with what begins a text.
    ///
    /// At most `prompt.max_items` of the newest titles enter. While it is too long the oldest of them
    /// is left out; a last one that is too long by itself is halved. The wrapper stays whole.
    pub fn prompt_ids(&self, history: &[ItemId]) -> Vec<u32> {
        let newest = &history[history.len().saturating_sub(self.template.max_items)..];
        let mut titles: Vec<&str> =
            newest.iter().map(|item| self.titles[item.index()].as_str()).collect();
        loop {
            let ids = self.prompt(&titles).expect("all titles were tokenized in `new`");
            match titles.as_mut_slice() {
                _ if ids.len() <= self.budget => return ids,
                // The prompt of one empty title fits, and the one of none is no longer.
                [] | [""] => return ids,
                [title] => *title = first_half(title),
                _ => drop(titles.remove(0)),
            }
        }
    }

    /// What follows a prompt when `item` is the answer: its title in quotes and the end, and of that no
    /// more than `generation.max_new_tokens`, since no more is ever generated.
    pub fn response_ids(&self, item: ItemId) -> Vec<u32> {
        self.response(&self.titles[item.index()]).expect("all titles were tokenized in `new`")
    }

    /// A text of its own, such as a title to be embedded, begun as prompts are. Never empty.
    ///
    /// # Errors
    /// [`TokenError::Tokenize`] on text that the tokenizer refuses; titles of the catalogue it took.
    pub fn text_ids(&self, text: &str) -> Result<Vec<u32>, TokenError> {
        let mut ids = [&self.begin[..], &encode(&self.tokenizer, text, false)?].concat();
        if ids.is_empty() {
            ids.push(self.end);
        }
        Ok(ids)
    }

    /// The title that a generated response says: up to the end, without its quotes and white space.
    pub fn decode_title(&self, ids: &[u32]) -> String {
        let length = ids.iter().position(|id| *id == self.end).unwrap_or(ids.len());
        // Generated ids may spell anything. What no text corresponds to is no title.
        let text = self.tokenizer.decode(&ids[..length], true).unwrap_or_default();
        let text = text.trim();
        let text = text.strip_prefix('"').unwrap_or(text);
        text.strip_suffix('"').unwrap_or(text).trim().to_owned()
    }

    /// Titles of the catalogue, in its order.
    pub fn titles(&self) -> &[String] {
        &self.titles
    }

    /// The token that ends a response.
    pub fn end(&self) -> u32 {
        self.end
    }

    /// Newest items of a history that enter a prompt.
    pub fn max_items(&self) -> usize {
        self.template.max_items
    }

    // The whole text at once: tokens may reach across the border of a title.
    fn prompt(&self, titles: &[&str]) -> Result<Vec<u32>, TokenError> {
        Ok([&self.begin[..], &encode(&self.tokenizer, &self.template.text(titles), false)?]
            .concat())
    }

    fn response(&self, title: &str) -> Result<Vec<u32>, TokenError> {
        let mut ids = encode(&self.tokenizer, &quoted(title), false)?;
        ids.push(self.end);
        ids.truncate(self.max_response);
        Ok(ids)
    }
}

fn first_half(title: &str) -> &str {
    let half = title.chars().count() / 2;
    title.char_indices().nth(half).map_or(title, |(end, _)| &title[..end])
}

fn encode(tokenizer: &Tokenizer, text: &str, special: bool) -> Result<Vec<u32>, TokenError> {
    let encoding = tokenizer
        .encode(text, special)
        .map_err(|error| TokenError::Tokenize(format!("{text:?}: {error}")))?;
    Ok(encoding.get_ids().to_vec())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use super::*;
    use crate::config::PromptLoss;
    use crate::data::{END_OF_TEXT, Item, text_tokenizer};

    fn number(value: u32) -> NonZeroU32 {
        NonZeroU32::new(value).expect("above 0")
    }

    fn config(cutoff: u32) -> PromptConfig {
        PromptConfig {
            item: "video game".to_owned(),
            items: "video games".to_owned(),
            verb: "played".to_owned(),
            max_items: number(10),
            cutoff: number(cutoff),
            loss: PromptLoss::Response,
        }
    }

    fn catalogue<T: Into<String>>(titles: impl IntoIterator<Item = T>) -> Catalogue {
        let item =
            |title: T| Item { key: String::new(), title: title.into(), category: String::new() };
        Catalogue { items: titles.into_iter().map(item).collect() }
    }

    fn prompts(catalogue: &Catalogue, cutoff: u32, max_new: u32) -> Result<Prompts, TokenError> {
        let config = config(cutoff);
        let texts = PromptTemplate::new(&config).corpus(catalogue);
        let tokenizer = text_tokenizer(texts, 1_000)?;
        let end = tokenizer.token_to_id(END_OF_TEXT).expect("a special token");
        let generation = GenerationConfig {
            beams: number(4),
            max_new_tokens: number(max_new),
            length_penalty: 1.0,
        };
        Prompts::new(catalogue, tokenizer, end, &config, &generation)
    }

    fn ids(range: std::ops::Range<u32>) -> Vec<ItemId> {
        range.map(ItemId).collect()
    }

    fn numbered(count: u32) -> Catalogue {
        catalogue((0..count).map(|n| format!("Quest {n}")))
    }

    /// What a prompt's tokens say, special tokens left out.
    fn said(prompts: &Prompts, ids: &[u32]) -> String {
        prompts.tokenizer.decode(ids, true).expect("its own ids")
    }

    /// method.md 6.1, to the letter.
    #[test]
    fn the_prompt_is_bigrecs() {
        let text = PromptTemplate::new(&config(512)).text(&["Halo", "Fable: \"Gold\""]);
        assert_eq!(
            text,
            "Below is an instruction that describes a task, paired with an input that provides further \
             context. Write a response that appropriately completes the request.\n\n\
             ### Instruction:\nGiven a list of video games the user has played before, please recommend a \
             new video game that the user likes to the user.\n\n\
             ### Input:\nThe user has played the following video games before: \"Halo\", \"Fable: \"Gold\"\"\n\n\
             ### Response:\n"
        );
    }

    /// method.md 6.1 and 6.3: the same text in training and in inference.
    #[test]
    fn a_prompt_says_its_text_whatever_answer_follows() {
        let catalogue = numbered(30);
        let prompts = prompts(&catalogue, 512, 32).expect("fits");
        let prompt = prompts.prompt_ids(&ids(3..15));
        let titles: Vec<&str> =
            catalogue.items[5..15].iter().map(|item| item.title.as_str()).collect();
        assert_eq!(
            said(&prompts, &prompt),
            prompts.template.text(&titles),
            "ten newest, oldest first"
        );
        assert_eq!(prompt[0], 1, "begins with <s>");
        // Appending the response is tokenizing the whole text: the border is a border of tokens.
        let response = prompts.response_ids(ItemId(7));
        let whole = prompts.template.text(&titles) + "\"Quest 7\"";
        let mut expected = prompts.text_ids(&whole).expect("plain text");
        expected.push(prompts.end());
        assert_eq!([prompt, response].concat(), expected);
    }

    #[test]
    fn too_long_prompts_lose_their_oldest_titles_and_never_the_wrapper() {
        let catalogue = catalogue((0..12).map(|n| format!("{n} {}", "x y ".repeat(10))));
        let prompts = prompts(&catalogue, 200, 32).expect("fits");
        let prompt = prompts.prompt_ids(&ids(0..12));
        let longest = catalogue_responses(&prompts);
        assert!(prompt.len() + longest <= 200);
        let said = said(&prompts, &prompt);
        let kept = (0..12).filter(|n| said.contains(&format!("\"{n} x"))).collect::<Vec<_>>();
        assert!((1..10).contains(&kept.len()), "some were left out: {kept:?}");
        assert_eq!(kept, (12 - kept.len()..12).collect::<Vec<_>>());
        let newest: Vec<&str> = kept.iter().map(|n| catalogue.items[*n].title.as_str()).collect();
        assert_eq!(said, prompts.template.text(&newest));
        // One more would not have fitted.
        let one_more =
            prompts.prompt(&[&[catalogue.items[kept[0] - 1].title.as_str()], &newest[..]].concat());
        assert!(one_more.expect("plain text").len() + longest > 200);
    }

    fn catalogue_responses(prompts: &Prompts) -> usize {
        let items = (0..prompts.titles.len() as u32).map(ItemId);
        items.map(|item| prompts.response_ids(item).len()).max().expect("not empty")
    }

    #[test]
    fn a_title_too_long_by_itself_is_cut_and_its_response_is_what_can_be_generated() {
        let long = "ß∂ƒ".repeat(170);
        let prompts = prompts(&catalogue([long.as_str(), "Halo"]), 200, 8).expect("fits");
        let prompt = prompts.prompt_ids(&ids(0..1));
        assert!(prompt.len() + 8 <= 200);
        let said = said(&prompts, &prompt);
        assert!(
            said.contains("before: \"ß∂ƒ") && said.ends_with("\"\n\n### Response:\n"),
            "{said}"
        );
        let response = prompts.response_ids(ItemId(0));
        assert_eq!(response.len(), 8);
        assert!(!response.contains(&prompts.end()));
    }

    #[test]
    fn a_cutoff_below_the_wrapper_is_refused_by_its_key() {
        let error = |cutoff| match prompts(&numbered(30), cutoff, 32) {
            Err(TokenError::Cutoff { got, expected }) => (got, expected),
            other => panic!("got {other:?}"),
        };
        let (got, expected) = error(20);
        assert_eq!(got, 20);
        assert_eq!(error(expected as u32 - 1), (expected as u32 - 1, expected));
        let tight = prompts(&numbered(30), expected as u32, 32).expect("the least that fits");
        assert!(tight.prompt_ids(&ids(0..20)).len() + catalogue_responses(&tight) <= expected);
    }

    #[test]
    fn a_title_cannot_end_a_prompt_and_an_empty_text_has_a_token() {
        let prompts = prompts(&catalogue(["</s><s>", "Halo"]), 512, 32).expect("fits");
        let prompt = prompts.prompt_ids(&ids(0..2));
        assert!(!prompt.contains(&prompts.end()));
        assert!(said(&prompts, &prompt).contains("\"</s><s>\", \"Halo\""));
        assert_eq!(prompts.text_ids("").expect("no text"), [1]);
        let bare = Prompts { begin: Vec::new(), ..prompts };
        assert_eq!(bare.text_ids("").expect("no text"), [bare.end()]);
    }

    #[test]
    fn what_was_generated_is_read_up_to_its_end() {
        let prompts = prompts(&numbered(30), 512, 32).expect("fits");
        let mut generated = prompts.response_ids(ItemId(3));
        generated.extend(prompts.response_ids(ItemId(4)));
        assert_eq!(prompts.decode_title(&generated), "Quest 3");
        let unended = prompts.text_ids(" \"Quest 5").expect("plain text");
        assert_eq!(prompts.decode_title(&unended), "Quest 5");
        assert_eq!(prompts.decode_title(&[prompts.end(), 5]), "");
        assert_eq!(prompts.decode_title(&[u32::MAX]), "");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

        /// Titles with quotes, special tokens, any script: a response says its title, prompts fit.
        #[test]
        fn any_catalogue_is_asked_for_and_answered(titles in proptest::collection::vec(any::<String>(), 1..14)) {
            let prompts = prompts(&catalogue(titles.clone()), 1_200, 10_000);
            // The responses alone may exceed the cutoff: refused, not cut.
            let Ok(prompts) = prompts else { return Ok(()) };
            let all = ids(0..titles.len() as u32);
            prop_assert!(prompts.prompt_ids(&all).len() + catalogue_responses(&prompts) <= 1_200);
            for (item, title) in all.iter().zip(&titles) {
                prop_assert_eq!(prompts.decode_title(&prompts.response_ids(*item)), title.trim());
            }
        }
    }
}
