//! Titles as token ids, by a tokenizer that is given or trained on the catalogue.

use std::path::{Path, PathBuf};

use thiserror::Error;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::normalizers::Lowercase;
use tokenizers::pre_tokenizers::whitespace::Whitespace;
use tokenizers::{AddedToken, DecoderWrapper, PostProcessorWrapper, Tokenizer, TokenizerBuilder};

use super::Catalogue;
use crate::config::ModelConfig;

/// Stands for characters that the training text did not have.
pub(super) const UNKNOWN: &str = "[UNK]";

/// Why titles could not be turned into tokens.
#[derive(Debug, Error)]
pub enum TokenError {
    /// The configured tokenizer could not be read.
    #[error("failed to read tokenizer {path} (model.tokenizer): {reason}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the library said.
        reason: String,
    },
    /// The configured tokenizer marks no start of a sequence.
    #[error("tokenizer {path} (model.tokenizer) knows none of {expected}, which start a text")]
    NoStart {
        /// The file.
        path: PathBuf,
        /// Tokens that would have done.
        expected: String,
    },
    /// The library refused the titles.
    #[error("failed to tokenize the catalogue: {0}")]
    Tokenize(String),
}

/// Tokens of every title of a catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TitleTokens {
    /// Ids below `vocab`, in catalogue order.
    pub titles: Vec<Vec<u32>>,
    /// Tokens that the tokenizer knows.
    pub vocab: i64,
}

impl TitleTokens {
    /// Tokens of `catalogue` by `model.tokenizer`, or by byte pairs trained on its titles; at most
    /// `model.max_title_tokens` a title.
    ///
    /// Equal catalogues give equal tokens: training breaks its ties by the text alone.
    pub fn new(catalogue: &Catalogue, model: &ModelConfig) -> Result<Self, TokenError> {
        let tokenizer = match model.tokenizer.as_option() {
            Some(path) => read(path)?,
            None => {
                let titles = catalogue.items.iter().map(|item| item.title.as_str());
                train(titles, model.vocab as usize, &[UNKNOWN])?
            }
        };
        let limit = model.max_title_tokens as usize;
        let mut titles = Vec::with_capacity(catalogue.items.len());
        for item in &catalogue.items {
            let encoding = tokenizer
                .encode(item.title.as_str(), false)
                .map_err(|error| TokenError::Tokenize(format!("{:?}: {error}", item.title)))?;
            titles.push(encoding.get_ids().iter().take(limit).copied().collect());
        }
        Ok(Self { titles, vocab: tokenizer.get_vocab_size(true) as i64 })
    }
}

/// Byte pairs of lower-cased `texts`; special tokens come first and must hold [`UNKNOWN`].
pub(super) fn train<'a>(
    texts: impl Iterator<Item = &'a str> + Send,
    vocab: usize,
    special: &[&str],
) -> Result<Tokenizer, TokenError> {
    try_train(texts, vocab, special).map_err(|error| TokenError::Tokenize(error.to_string()))
}

fn try_train<'a>(
    texts: impl Iterator<Item = &'a str> + Send,
    vocab: usize,
    special: &[&str],
) -> tokenizers::Result<Tokenizer> {
    let model = BPE::builder().unk_token(UNKNOWN.to_owned()).build()?;
    let mut tokenizer = TokenizerBuilder::new()
        .with_model(model)
        .with_normalizer(Some(Lowercase))
        .with_pre_tokenizer(Some(Whitespace))
        .with_post_processor(None::<PostProcessorWrapper>)
        .with_decoder(None::<DecoderWrapper>)
        .build()?;
    let mut trainer = BpeTrainerBuilder::new()
        .show_progress(false)
        .vocab_size(vocab)
        .special_tokens(special.iter().map(|token| AddedToken::from(*token, true)).collect())
        .build();
    tokenizer.train(&mut trainer, texts)?;
    Ok(tokenizer.into())
}

pub(super) fn read(path: &Path) -> Result<Tokenizer, TokenError> {
    Tokenizer::from_file(path)
        .map_err(|error| TokenError::Read { path: path.to_owned(), reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn training_is_deterministic_and_gives_known_ids() {
        let titles: Vec<String> =
            (0..300).map(|n| format!("The {} of {} ({})", n % 17, n % 31, 1950 + n % 50)).collect();
        let titles: Vec<&str> = titles.iter().map(String::as_str).collect();
        let train = || train(titles.iter().copied(), 120, &[UNKNOWN]).expect("plain text");
        let (first, second) = (train(), train());
        for title in &titles {
            let ids =
                |t: &Tokenizer| t.encode(*title, false).expect("plain text").get_ids().to_vec();
            assert_eq!(ids(&first), ids(&second));
            assert!(ids(&first).iter().all(|id| (*id as usize) < first.get_vocab_size(true)));
        }
    }
}
