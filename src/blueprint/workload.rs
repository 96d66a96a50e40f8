//! What clients train on, and the model that goes with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tch::Device;
use tokenizers::Tokenizer;

use super::BlueprintError;
use crate::config::{BackboneKind, Config, OrNone};
use crate::data::{
    Catalogue, ClientData, END_OF_TEXT, ItemTexts, PromptTemplate, Prompts, TitleTokens,
    TrainingRows, UserSplit, item_text_tokenizer, read_tokenizer, text_tokenizer, title_tokenizer,
};
use crate::ids::ClientId;
use crate::model::architecture::{Architecture, BlockKind};
use crate::model::backbone::Backbone;
use crate::model::causal_lm::CausalLm;
use crate::model::item_tokens::ItemTokens;
use crate::model::pretrained::Checkpoint;
use crate::model::recformer::RecFormer;
use crate::ranking::HistoryInputs;
use crate::training::{
    Examples, HistoryExamples, ItemTable, PromptExamples, RandomTokens, TextExamples,
};

/// What clients train on.
#[derive(Debug)]
pub(super) enum Workload {
    /// Users' histories.
    Histories(Histories),
    /// Random tokens, the load of the benches.
    RandomTokens { clients: u32, tokens: RandomTokens },
}

/// Users on clients, and items as the backbone sees them.
#[derive(Debug)]
pub(super) struct Histories {
    /// Of the clients whose users are known here.
    pub clients: BTreeMap<ClientId, Arc<ClientData>>,
    /// All clients.
    pub count: u32,
    pub rows: TrainingRows,
    pub items: ItemView,
    pub tokenizer: Box<Tokenizer>,
}

/// Items as a backbone sees them.
#[derive(Debug)]
pub(super) enum ItemView {
    /// Title tokens, one vector an item.
    Titles(TitleTokens),
    /// Prompts that list titles.
    Prompts {
        prompts: Arc<Prompts>,
        /// Tokens that the tokenizer knows.
        vocab: i64,
    },
    /// Text for an encoder.
    Texts(Arc<ItemTexts>),
}

impl Workload {
    /// The network: the checkpoint's, or one of the configured dimensions.
    pub fn architecture(&self, config: &Config, checkpoint: Option<&Checkpoint>) -> Architecture {
        match self {
            Self::Histories(histories) => match checkpoint {
                Some(checkpoint) => checkpoint.architecture().clone(),
                None => histories.items.architecture(config),
            },
            Self::RandomTokens { tokens, .. } => {
                Architecture::llama(&config.model, tokens.vocab).untied()
            }
        }
    }

    /// The ends of the model on a device.
    pub fn backbone(&self, architecture: &Architecture, device: Device) -> Box<dyn Backbone> {
        match self {
            Self::Histories(histories) => histories.items.backbone(architecture, device),
            Self::RandomTokens { .. } => Box::new(CausalLm::new(architecture)),
        }
    }

    /// A client's training rows; only of a client whose users are known here.
    pub fn examples(&self, client: ClientId, config: &Config) -> Box<dyn Examples> {
        match self {
            Self::Histories(Histories { clients, rows, items, .. }) => {
                let data = &clients[&client];
                match items {
                    ItemView::Titles(_) => {
                        let longest = config.model.max_history as usize;
                        Box::new(HistoryExamples::among(data, rows, longest))
                    }
                    ItemView::Prompts { prompts, .. } => {
                        let prompts = Arc::clone(prompts);
                        Box::new(PromptExamples::new(data, rows, prompts, config.prompt.loss))
                    }
                    ItemView::Texts(texts) => {
                        Box::new(TextExamples::among(data, rows, Arc::clone(texts)))
                    }
                }
            }
            Self::RandomTokens { tokens, .. } => {
                Box::new(RandomTokens { seed: tokens.seed + u64::from(client.0), ..tokens.clone() })
            }
        }
    }

    /// Number of clients.
    pub fn clients(&self) -> u32 {
        match self {
            Self::Histories(histories) => histories.count,
            Self::RandomTokens { clients, .. } => *clients,
        }
    }

    /// A client's users; none on random tokens, or where the client has them for itself.
    pub fn client_data(&self, client: ClientId) -> Option<&Arc<ClientData>> {
        match self {
            Self::Histories(histories) => histories.clients.get(&client),
            Self::RandomTokens { .. } => None,
        }
    }

    /// Whether a user's training items are trained on, as far as there are enough of them.
    pub fn trains_on(&self, user: &UserSplit) -> bool {
        match self {
            Self::Histories(histories) => histories.rows.admit(user),
            Self::RandomTokens { .. } => false,
        }
    }

    /// Positions of one epoch: how long a client computes, in relation to the others.
    pub fn training_load(&self, client: ClientId, config: &Config) -> usize {
        match self {
            Self::Histories(histories) => {
                let Some(data) = histories.clients.get(&client) else { return 0 };
                let trained = data.users.iter().filter(|user| histories.rows.admit(user));
                match &histories.items {
                    ItemView::Titles(_) => {
                        let longest = config.model.max_history as usize;
                        trained.map(|user| user.train.len().min(longest)).sum()
                    }
                    ItemView::Texts(texts) => {
                        trained.map(|user| texts.history_length(&user.train)).sum()
                    }
                    ItemView::Prompts { prompts, .. } => prompt_load(prompts, trained),
                }
            }
            Self::RandomTokens { tokens, .. } => tokens.sequences,
        }
    }

    /// Items or tokens that are scored at a position.
    pub fn candidates(&self) -> u64 {
        match self {
            Self::Histories(histories) => histories.items.count() as u64,
            Self::RandomTokens { tokens, .. } => tokens.vocab as u64,
        }
    }

    /// How histories enter the model; `None` where they enter as prompts, or where there are none.
    pub fn inputs(&self, config: &Config) -> Option<HistoryInputs> {
        let Self::Histories(Histories { items, .. }) = self else { return None };
        match items {
            ItemView::Titles(_) => Some(HistoryInputs::Items(config.model.max_history as usize)),
            ItemView::Texts(texts) => Some(HistoryInputs::Texts(Arc::clone(texts))),
            ItemView::Prompts { .. } => None,
        }
    }

    /// The candidates that have to be encoded, where they are.
    pub fn item_table(&self, config: &Config) -> Option<ItemTable> {
        match self {
            Self::Histories(Histories { items: ItemView::Texts(texts), .. }) => {
                let batch = config.recformer.table_batch as usize;
                Some(ItemTable::new(Arc::clone(texts), batch))
            }
            _ => None,
        }
    }

    /// What text became tokens by; none for random tokens.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        match self {
            Self::Histories(histories) => Some(&histories.tokenizer),
            Self::RandomTokens { .. } => None,
        }
    }

    /// Prompts over the catalogue, where the backbone writes titles.
    pub fn prompts(&self) -> Option<&Arc<Prompts>> {
        match self {
            Self::Histories(Histories { items: ItemView::Prompts { prompts, .. }, .. }) => {
                Some(prompts)
            }
            _ => None,
        }
    }

    /// Positions of the longest input.
    pub fn longest_input(&self, config: &Config) -> i64 {
        match self {
            Self::Histories(Histories { items: ItemView::Titles(_), .. }) => {
                config.model.max_history
            }
            Self::Histories(Histories { items: ItemView::Texts(_), .. }) => {
                config.recformer.max_tokens
            }
            Self::Histories(Histories { items: ItemView::Prompts { .. }, .. }) => {
                let generated = config.generation.max_new_tokens.get();
                i64::from(config.prompt.cutoff.get()) + i64::from(generated)
            }
            Self::RandomTokens { tokens, .. } => tokens.length,
        }
    }
}

impl ItemView {
    /// The catalogue of `dataset` for the configured backbone.
    ///
    /// # Errors
    /// A checkpoint of another kind than the backbone needs; no tokenizer, or one that knows more tokens
    /// than the checkpoint's embedding.
    pub fn new(
        catalogue: &Catalogue,
        config: &Config,
        checkpoint: Option<&Checkpoint>,
    ) -> Result<(Self, Tokenizer), BlueprintError> {
        if let Some(checkpoint) = checkpoint {
            check_kind(config, checkpoint)?;
        }
        let tokenizer = tokenizer(catalogue, config, checkpoint)?;
        let view = match config.model.backbone {
            BackboneKind::ItemTokens => {
                let limit = config.model.max_title_tokens as usize;
                Self::Titles(TitleTokens::new(catalogue, &tokenizer, limit)?)
            }
            BackboneKind::Bigrec => {
                Self::prompts(catalogue, config, tokenizer.clone(), checkpoint)?
            }
            BackboneKind::Recformer => {
                Self::Texts(Arc::new(ItemTexts::new(catalogue, &tokenizer, &config.recformer)?))
            }
        };
        let known = view.vocab();
        match checkpoint.map(|checkpoint| checkpoint.architecture().vocab) {
            Some(vocab) if vocab < known => Err(BlueprintError::Vocabulary { known, vocab }),
            _ => Ok((view, tokenizer)),
        }
    }

    fn prompts(
        catalogue: &Catalogue,
        config: &Config,
        tokenizer: Tokenizer,
        checkpoint: Option<&Checkpoint>,
    ) -> Result<Self, BlueprintError> {
        let named =
            checkpoint.and_then(|checkpoint| checkpoint.special_tokens().eos.first().copied());
        let known = named.and_then(|id| u32::try_from(id).ok());
        let end = known.or_else(|| tokenizer.token_to_id(END_OF_TEXT));
        let end = end.ok_or(BlueprintError::NoEnd { expected: END_OF_TEXT })?;
        let vocab = tokenizer.get_vocab_size(true) as i64;
        let prompts = Prompts::new(catalogue, tokenizer, end, &config.prompt, &config.generation)?;
        Ok(Self::Prompts { prompts: Arc::new(prompts), vocab })
    }

    /// Tokens that the tokenizer knows.
    fn vocab(&self) -> i64 {
        match self {
            Self::Titles(tokens) => tokens.vocab,
            Self::Prompts { vocab, .. } => *vocab,
            Self::Texts(texts) => texts.vocab(),
        }
    }

    /// The network of the configured dimensions.
    fn architecture(&self, config: &Config) -> Architecture {
        match self {
            Self::Titles(_) | Self::Prompts { .. } => {
                Architecture::llama(&config.model, self.vocab())
            }
            Self::Texts(texts) => {
                Architecture::recformer(&config.model, &config.recformer, texts.vocab())
            }
        }
    }

    /// The ends of the model on a device.
    fn backbone(&self, architecture: &Architecture, device: Device) -> Box<dyn Backbone> {
        match (self, &architecture.blocks) {
            (Self::Texts(texts), BlockKind::Encoder(encoder)) => {
                Box::new(RecFormer::new(architecture, encoder, texts.max_items()))
            }
            (Self::Titles(tokens), BlockKind::Decoder(_)) => {
                Box::new(ItemTokens::new(architecture, &tokens.titles, device))
            }
            (Self::Prompts { .. }, BlockKind::Decoder(_)) => Box::new(CausalLm::new(architecture)),
            _ => unreachable!("a checkpoint of another kind is refused"),
        }
    }

    /// Items of the catalogue.
    fn count(&self) -> usize {
        match self {
            Self::Titles(tokens) => tokens.titles.len(),
            Self::Prompts { prompts, .. } => prompts.titles().len(),
            Self::Texts(texts) => texts.items(),
        }
    }
}

/// Whether a checkpoint is of the kind that the backbone computes with and has room for its texts.
fn check_kind(config: &Config, checkpoint: &Checkpoint) -> Result<(), BlueprintError> {
    let (backbone, family) = (config.model.backbone, checkpoint.family());
    let kind = |expected| BlueprintError::Kind { backbone, family, expected };
    match (backbone, &checkpoint.architecture().blocks) {
        (BackboneKind::ItemTokens | BackboneKind::Bigrec, BlockKind::Decoder(_)) => Ok(()),
        (BackboneKind::ItemTokens | BackboneKind::Bigrec, BlockKind::Encoder(_)) => {
            Err(kind("a causal model"))
        }
        (BackboneKind::Recformer, BlockKind::Decoder(_)) => Err(kind("an encoder")),
        (BackboneKind::Recformer, BlockKind::Encoder(encoder)) => {
            let room = |key, got: i64, room: i64| match got > room {
                true => Err(BlueprintError::Room { key, got, room }),
                false => Ok(()),
            };
            room("recformer.max_tokens", config.recformer.max_tokens, encoder.longest())?;
            // The first row is of the first token. Without a table there is a new one, of any size.
            let items = encoder.item_positions;
            if items == 0 {
                return Ok(());
            }
            room("recformer.max_items", config.recformer.max_items, items - 1)
        }
    }
}

/// Positions of all prompts of one epoch, from those of the first users.
fn prompt_load<'a>(prompts: &Prompts, users: impl Iterator<Item = &'a UserSplit>) -> usize {
    /// Users whose prompts are made for the estimate.
    const SAMPLE: usize = 64;
    let users: Vec<&UserSplit> = users.filter(|user| user.is_row()).collect();
    let sample = &users[..users.len().min(SAMPLE)];
    let tokens: usize = sample.iter().map(|user| prompts.prompt_ids(&user.train).len()).sum();
    tokens * users.len() / sample.len().max(1)
}

/// `model.tokenizer`, or else the checkpoint's own, or else one that is trained on the catalogue.
fn tokenizer(
    catalogue: &Catalogue,
    config: &Config,
    checkpoint: Option<&Checkpoint>,
) -> Result<Tokenizer, BlueprintError> {
    if let OrNone::Some(path) = &config.model.tokenizer {
        return Ok(read_tokenizer(path)?);
    }
    if let Some(checkpoint) = checkpoint {
        let folder = checkpoint.folder().to_owned();
        let path = checkpoint.tokenizer().ok_or(BlueprintError::NoTokenizer { folder })?;
        return Ok(read_tokenizer(&path)?);
    }
    let vocab = config.model.vocab;
    Ok(match config.model.backbone {
        BackboneKind::ItemTokens => title_tokenizer(catalogue, vocab)?,
        BackboneKind::Bigrec => {
            text_tokenizer(PromptTemplate::new(&config.prompt).corpus(catalogue), vocab)?
        }
        BackboneKind::Recformer => item_text_tokenizer(catalogue, vocab)?,
    })
}
