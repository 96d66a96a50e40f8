//! What clients train on, and the model that goes with it.

use std::sync::Arc;

use tch::Device;

use super::BlueprintError;
use crate::config::{BackboneKind, Config, ModelConfig, OrNone};
use crate::data::{Catalogue, ClientData, TitleTokens, TrainingRows, UserSplit};
use crate::ids::ClientId;
use crate::model::architecture::Architecture;
use crate::model::backbone::Backbone;
use crate::model::causal_lm::CausalLm;
use crate::model::item_tokens::ItemTokens;
use crate::model::pretrained::Checkpoint;
use crate::training::{Examples, HistoryExamples, RandomTokens};

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
    pub clients: Vec<Arc<ClientData>>,
    pub rows: TrainingRows,
    pub items: ItemView,
}

/// Items as a backbone sees them.
#[derive(Debug)]
pub(super) enum ItemView {
    /// Title tokens, one vector an item.
    Titles(TitleTokens),
}

impl Workload {
    /// The network: the checkpoint's, or one of the configured dimensions.
    pub fn architecture(&self, config: &Config, checkpoint: Option<&Checkpoint>) -> Architecture {
        match self {
            Self::Histories(histories) => match checkpoint {
                Some(checkpoint) => checkpoint.architecture().clone(),
                None => Architecture::llama(&config.model, histories.items.vocab()),
            },
            Self::RandomTokens { tokens, .. } => {
                Architecture::llama(&config.model, tokens.vocab).untied()
            }
        }
    }

    /// The ends of the model on a device.
    pub fn backbone(&self, architecture: &Architecture, device: Device) -> Box<dyn Backbone> {
        match self {
            Self::Histories(Histories { items: ItemView::Titles(tokens), .. }) => {
                Box::new(ItemTokens::new(architecture, &tokens.titles, device))
            }
            Self::RandomTokens { .. } => Box::new(CausalLm::new(architecture)),
        }
    }

    /// A client's training rows.
    pub fn examples(&self, client: ClientId, config: &Config) -> Box<dyn Examples> {
        match self {
            Self::Histories(Histories { clients, rows, .. }) => Box::new(HistoryExamples::among(
                &clients[client.0 as usize],
                rows,
                config.model.max_history as usize,
            )),
            Self::RandomTokens { tokens, .. } => {
                Box::new(RandomTokens { seed: tokens.seed + u64::from(client.0), ..tokens.clone() })
            }
        }
    }

    /// Number of clients.
    pub fn clients(&self) -> u32 {
        match self {
            Self::Histories(histories) => histories.clients.len() as u32,
            Self::RandomTokens { clients, .. } => *clients,
        }
    }

    /// A client's users; none on random tokens.
    pub fn client_data(&self, client: ClientId) -> Option<&Arc<ClientData>> {
        match self {
            Self::Histories(histories) => Some(&histories.clients[client.0 as usize]),
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
                let longest = config.model.max_history as usize;
                let users = histories.clients[client.0 as usize].users.iter();
                let trained = users.filter(|user| histories.rows.admit(user));
                trained.map(|user| user.train.len().min(longest)).sum()
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

    /// Positions of the longest input.
    pub fn longest_input(&self, config: &Config) -> i64 {
        match self {
            Self::Histories(_) => config.model.max_history,
            Self::RandomTokens { tokens, .. } => tokens.length,
        }
    }
}

impl ItemView {
    /// The catalogue of `dataset` for the configured backbone.
    ///
    /// # Errors
    /// No tokenizer, or one that knows more tokens than the checkpoint's embedding.
    pub fn new(
        catalogue: &Catalogue,
        config: &Config,
        checkpoint: Option<&Checkpoint>,
    ) -> Result<Self, BlueprintError> {
        let model = with_tokenizer(&config.model, checkpoint)?;
        let view = match config.model.backbone {
            BackboneKind::ItemTokens => Self::Titles(TitleTokens::new(catalogue, &model)?),
        };
        let known = view.vocab();
        match checkpoint.map(|checkpoint| checkpoint.architecture().vocab) {
            Some(vocab) if vocab < known => Err(BlueprintError::Vocabulary { known, vocab }),
            _ => Ok(view),
        }
    }

    /// Tokens that the tokenizer knows.
    fn vocab(&self) -> i64 {
        match self {
            Self::Titles(tokens) => tokens.vocab,
        }
    }

    /// Items of the catalogue.
    fn count(&self) -> usize {
        match self {
            Self::Titles(tokens) => tokens.titles.len(),
        }
    }
}

/// The section with the checkpoint's own tokenizer where it names none.
fn with_tokenizer(
    model: &ModelConfig,
    checkpoint: Option<&Checkpoint>,
) -> Result<ModelConfig, BlueprintError> {
    let mut model = model.clone();
    if let (OrNone::None, Some(checkpoint)) = (&model.tokenizer, checkpoint) {
        let folder = checkpoint.folder().to_owned();
        let tokenizer = checkpoint.tokenizer().ok_or(BlueprintError::NoTokenizer { folder })?;
        model.tokenizer = OrNone::Some(tokenizer);
    }
    Ok(model)
}
