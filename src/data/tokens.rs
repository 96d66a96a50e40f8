//! Titles as token ids, by a tokenizer that is given or trained on the catalogue; and tokenizers of
//! whole texts, for backbones that read and write them.

use std::path::{Path, PathBuf};

use thiserror::Error;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::normalizers::Lowercase;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::whitespace::Whitespace;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, Tokenizer,
    TokenizerBuilder,
};

use super::Catalogue;

/// Stands for characters that the training text did not have.
pub(super) const UNKNOWN: &str = "[UNK]";

/// Special tokens of [`text_tokenizer`], by id: what pads (id 0, as batches pad), begins and ends a text.
const SPECIAL: [&str; 3] = ["<pad>", "<s>", END_OF_TEXT];

/// Ends a text of [`text_tokenizer`].
pub const END_OF_TEXT: &str = "</s>";

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
    #[error(
        "the tokenizer (model.tokenizer, or else the checkpoint's) knows none of {expected}, which start a text"
    )]
    NoStart {
        /// Tokens that would have done.
        expected: String,
    },
    /// The library refused the titles.
    #[error("failed to tokenize the catalogue: {0}")]
    Tokenize(String),
    /// Fewer tokens than there are bytes and special tokens.
    #[error("model.vocab: got {got}, expected at least {expected} for a tokenizer of any text")]
    Vocabulary {
        /// Tokens allowed.
        got: i64,
        /// Tokens that every such tokenizer has.
        expected: i64,
    },
    /// Not even a prompt without titles fits.
    #[error("prompt.cutoff: got {got}, expected at least {expected} tokens for the bare prompt")]
    Cutoff {
        /// Tokens allowed.
        got: u32,
        /// Tokens of the prompt with one empty title, and of the longest response.
        expected: usize,
    },
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
    /// Tokens of `catalogue` by `tokenizer`, at most `limit` a title.
    ///
    /// # Errors
    /// A title that it refuses.
    pub fn new(
        catalogue: &Catalogue,
        tokenizer: &Tokenizer,
        limit: usize,
    ) -> Result<Self, TokenError> {
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

/// Byte pairs of the catalogue's titles in lower case, at most `vocab` tokens.
///
/// # Errors
/// Titles that the library refuses.
pub fn title_tokenizer(catalogue: &Catalogue, vocab: i64) -> Result<Tokenizer, TokenError> {
    let titles = catalogue.items.iter().map(|item| item.title.as_str());
    train(titles, vocab as usize, &[UNKNOWN])
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

/// A tokenizer for any text: byte pairs over UTF-8 bytes, trained on `texts`, at most `vocab` tokens.
///
/// What it encodes it decodes again, whatever the text. It begins a text with `<s>` where special
/// tokens are asked for; [`END_OF_TEXT`] is left to the caller. Equal texts give equal tokenizers.
///
/// # Errors
/// [`TokenError::Vocabulary`] when the bytes and special tokens alone exceed `vocab`.
pub fn text_tokenizer<T>(texts: T, vocab: i64) -> Result<Tokenizer, TokenError>
where
    T: IntoIterator<Item: AsRef<str> + Send, IntoIter: Send>,
{
    let expected = 256 + SPECIAL.len() as i64;
    if vocab < expected {
        return Err(TokenError::Vocabulary { got: vocab, expected });
    }
    train_on_bytes(texts.into_iter(), vocab as usize)
        .map_err(|error| TokenError::Tokenize(error.to_string()))
}

fn train_on_bytes<T>(texts: T, vocab: usize) -> tokenizers::Result<Tokenizer>
where
    T: Iterator<Item: AsRef<str> + Send> + Send,
{
    let begin = TemplateProcessing::builder()
        .try_single("<s> $A")?
        .special_tokens(vec![(SPECIAL[1], 1)])
        .build()?;
    // No prefix space and no normalizer: decoding must give back the text as it was.
    let bytes = ByteLevel::new(false, true, true);
    let mut tokenizer = TokenizerBuilder::new()
        .with_model(BPE::default())
        .with_normalizer(None::<NormalizerWrapper>)
        .with_pre_tokenizer(Some(bytes))
        .with_post_processor(Some(begin))
        .with_decoder(Some(bytes))
        .build()?;
    let mut trainer = BpeTrainerBuilder::new()
        .show_progress(false)
        .vocab_size(vocab)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(SPECIAL.iter().map(|&token| AddedToken::from(token, true)).collect())
        .build();
    tokenizer.train(&mut trainer, texts)?;
    Ok(tokenizer.into())
}

/// The tokenizer of a `tokenizer.json`.
///
/// # Errors
/// [`TokenError::Read`] when the file is missing or is no tokenizer.
pub fn read_tokenizer(path: &Path) -> Result<Tokenizer, TokenError> {
    Tokenizer::from_file(path)
        .map_err(|error| TokenError::Read { path: path.to_owned(), reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

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

    fn texts() -> Vec<String> {
        (0..200)
            .map(|n| format!("The user has watched \"Part {} of {}\"", n % 17, n % 31))
            .collect()
    }

    static OF_TEXTS: LazyLock<Tokenizer> = LazyLock::new(|| {
        let mut tokenizer = text_tokenizer(texts(), 400).expect("plain text");
        tokenizer.set_encode_special_tokens(true);
        tokenizer
    });

    proptest! {
        /// Also for scripts, control characters and special tokens that the training texts lack.
        #[test]
        fn a_text_tokenizer_gives_any_text_back(text in any::<String>(), special in 0..4_usize) {
            let text = SPECIAL.get(special).map_or(text.clone(), |token| format!("{text}{token}{text}"));
            let ids = OF_TEXTS.encode(text.as_str(), false).expect("any text").get_ids().to_vec();
            prop_assert!(ids.iter().all(|id| (3..400).contains(id)));
            prop_assert_eq!(OF_TEXTS.decode(&ids, true).expect("its own ids"), text);
        }
    }

    #[test]
    fn a_text_tokenizer_is_deterministic_and_the_same_after_saving() {
        let train = || text_tokenizer(texts(), 400).expect("plain text");
        let (first, second) = (train(), train());
        let json = first.to_string(false).expect("serialisable");
        assert_eq!(json, second.to_string(false).expect("serialisable"));
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("tokenizer.json");
        first.save(&path, false).expect("a writable folder");
        let saved = read_tokenizer(&path).expect("what was saved");
        let ids =
            |t: &Tokenizer| t.encode("watched \"Ωmega\"", true).expect("text").get_ids().to_vec();
        assert_eq!(ids(&saved), ids(&first));
        assert_eq!(ids(&saved)[0], 1, "a text begins with <s>");
        assert_eq!(SPECIAL.map(|token| saved.token_to_id(token)), [Some(0), Some(1), Some(2)]);
        let words = first.encode("The user has watched", false).expect("text");
        assert_eq!(words.get_ids().len(), 4, "words of the training texts are one token each");
    }

    #[test]
    fn a_vocabulary_below_the_bytes_is_refused_by_its_key() {
        let error = text_tokenizer(texts(), 258).expect_err("259 at least").to_string();
        assert!(error.starts_with("model.vocab: got 258, expected at least 259"), "{error}");
        assert_eq!(text_tokenizer(texts(), 259).expect("bytes only").get_vocab_size(true), 259);
    }
}
