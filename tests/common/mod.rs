//! Small models and batches that the integration tests share.

#![allow(dead_code, reason = "every test binary uses its share of these helpers")]

pub mod federation;
pub mod link;
pub mod pretrained;

use std::sync::Arc;

use fellrec::config::{
    LoraConfig, ModelConfig, OptimizerConfig, OrNone, RecformerConfig, SplitConfig, Trainable,
};
use fellrec::data::{Catalogue, Item, ItemTexts, item_text_tokenizer};
use fellrec::ids::{ClientId, Round, StepId};
use fellrec::model::architecture::{Architecture, BlockKind};
use fellrec::model::backbone::Backbone;
use fellrec::model::causal_lm::CausalLm;
use fellrec::model::cut::{Cut, Place};
use fellrec::model::item_tokens::ItemTokens;
use fellrec::model::layout::Layout;
use fellrec::model::mask::MaskSeed;
use fellrec::model::recformer::RecFormer;
use fellrec::model::rope::RopeTable;
use fellrec::model::spec::BaseWeights;
use fellrec::model::start::StartingPoint;
use fellrec::split::{BodySession, ClientModel, ClientSettings, FrameLimits, Stage};
use fellrec::training::{AdamW, TrainablePart};
use tch::{Device, Kind};

pub const SEED: u64 = 7;

pub fn model(trainable: Trainable) -> ModelConfig {
    let text = r#"
        backbone = "item-tokens"
        hidden = 16
        layers = 4
        heads = 4
        kv_heads = 2
        ffn = 24
        rope_theta = 10000.0
        norm_eps = 1e-6
        init_std = 0.02
        vocab = 30
        checkpoint = "none"
        adapter = "none"
        tokenizer = "none"
        max_title_tokens = 4
        max_history = 8
        trainable = "full"
        dropout = 0.1
    "#;
    ModelConfig { trainable, ..toml::from_str(text).expect("the text is a model section") }
}

pub fn lora() -> LoraConfig {
    let text = r#"
        rank = 4
        alpha = 8.0
        dropout = 0.1
        targets = ["q_proj", "v_proj", "down_proj"]
    "#;
    toml::from_str(text).expect("the text is a lora section")
}

pub fn optimizer() -> OptimizerConfig {
    let text = r#"
        learning_rate = 1e-2
        beta1 = 0.9
        beta2 = 0.98
        eps = 1e-8
        weight_decay = 0.01
        clip_norm = 0.05
        warmup_steps = 3
        reset_each_round = false
    "#;
    toml::from_str(text).expect("the text is an optimizer section")
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ends {
    Items,
    Language { tied: bool },
    Texts,
}

pub const ITEMS: u32 = 30;

pub fn recformer() -> RecformerConfig {
    let text = r#"
        window = 6
        max_items = 4
        max_tokens = 48
        max_attribute_tokens = 12
        temperature = 0.05
        table_batch = 7
        table_traffic_mib = 1
        freeze_table_from = "none"
    "#;
    toml::from_str(text).expect("the text is a recformer section")
}

/// Titles of different lengths, every third item without a category.
pub fn texts() -> ItemTexts {
    let item = |n: u32| Item {
        key: n.to_string(),
        title: "ab cd ef gh ij"
            .chars()
            .cycle()
            .skip(n as usize % 10)
            .take(3 + n as usize)
            .collect(),
        category: if n.is_multiple_of(3) { String::new() } else { format!("c{}|x", n % 5) },
    };
    let catalogue = Catalogue { items: (0..ITEMS).map(item).collect() };
    let tokenizer = item_text_tokenizer(&catalogue, model(Trainable::Full).vocab);
    let texts = ItemTexts::new(&catalogue, &tokenizer.expect("plain text"), &recformer());
    texts.expect("the titles can be tokenized")
}

pub fn architecture(ends: Ends, model: &ModelConfig) -> Architecture {
    match ends {
        Ends::Items => Architecture::llama(model, 40),
        Ends::Language { tied: true } => Architecture::llama(model, model.vocab),
        Ends::Language { tied: false } => Architecture::llama(model, model.vocab).untied(),
        Ends::Texts => Architecture::recformer(model, &recformer(), texts().vocab()),
    }
}

pub fn backbone(ends: Ends, architecture: &Architecture) -> Box<dyn Backbone> {
    match ends {
        Ends::Items => {
            let titles: Vec<Vec<u32>> =
                (0..30u32).map(|item| vec![item % 40, (item * 7 + 3) % 40]).collect();
            Box::new(ItemTokens::new(architecture, &titles, Device::Cpu))
        }
        Ends::Language { .. } => Box::new(CausalLm::new(architecture)),
        Ends::Texts => {
            let BlockKind::Encoder(encoder) = &architecture.blocks else {
                panic!("a RecFormer has encoder blocks");
            };
            Box::new(RecFormer::new(architecture, encoder, recformer().max_items))
        }
    }
}

/// Rotary tables of 256 positions.
pub fn rope(architecture: &Architecture) -> RopeTable {
    RopeTable::of(architecture, 256, Kind::Float, Device::Cpu)
}

/// What a shard of `place` computes with; takes anything.
pub fn stage_of(
    layout: &Layout,
    place: Place,
    base: BaseWeights,
    kind: Kind,
    recompute: bool,
) -> Stage {
    let architecture = &layout.architecture;
    let limits =
        FrameLimits { width: architecture.hidden, kind, rows: i64::MAX, positions: i64::MAX };
    Stage {
        layout: Arc::new(layout.clone()),
        place,
        base,
        rope: RopeTable::of(architecture, 256, kind, Device::Cpu),
        limits,
        run_seed: SEED,
        recompute,
    }
}

/// One client and the stages that serve it, all in this thread.
pub struct Party {
    pub layout: Layout,
    pub client: ClientModel,
    pub stages: Vec<BodySession>,
}

pub fn split(k_front: i64, k_back: i64, stages: OrNone<Vec<(i64, i64)>>) -> SplitConfig {
    SplitConfig { stages, ..SplitConfig::new(k_front, k_back) }
}

impl Party {
    pub fn new(ends: Ends, trainable: Trainable, split: &SplitConfig, recompute: bool) -> Self {
        Self::proximal(ends, trainable, split, recompute, 0.0)
    }

    /// With start weights of a standard deviation of 0.3: logits that differ.
    pub fn sharpened(ends: Ends, trainable: Trainable, split: &SplitConfig) -> Self {
        let model = ModelConfig { init_std: 0.3, ..model(trainable) };
        Self::built(Kind::Float, &model, ends, split, false, 0.0)
    }

    /// With the proximal term `mu / 2 * ||Theta - Theta_start||^2`.
    pub fn proximal(
        ends: Ends,
        trainable: Trainable,
        split: &SplitConfig,
        recompute: bool,
        mu: f64,
    ) -> Self {
        Self::built(Kind::Float, &model(trainable), ends, split, recompute, mu)
    }

    /// Of any size, its frozen weights and activations of a number type.
    pub fn built(
        kind: Kind,
        model: &ModelConfig,
        ends: Ends,
        split: &SplitConfig,
        recompute: bool,
        mu: f64,
    ) -> Self {
        let trainable = model.trainable;
        let architecture = architecture(ends, model);
        let backbone = backbone(ends, &architecture);
        let cut = Cut::new(architecture.layers, split);
        let layout = Layout::new(&architecture, trainable, &lora(), cut, backbone.as_ref());
        let places = layout.cut.places();
        let start = StartingPoint::random(SEED);
        let base = layout.frozen_base(&places, &start, kind, Device::Cpu);
        let base = base.expect("drawn");
        let rope = RopeTable::of(&architecture, 256, kind, Device::Cpu);
        let part = |place| {
            let slice = layout.initial_slice(place, &start).expect("drawn");
            let part = TrainablePart::new(&slice, AdamW::new(&optimizer()), Device::Cpu);
            part.anchored(&slice, mu)
        };
        let stages = (0..layout.cut.stages().len())
            .map(|stage| {
                let place = Place::Stage(stage);
                let stage = stage_of(&layout, place, base.share(), kind, recompute);
                BodySession::new(&stage, ClientId(0), part(place))
            })
            .collect();
        let client = ClientModel::new(
            backbone,
            &layout,
            base.share(),
            &rope,
            ClientSettings {
                recompute,
                dropout: model.dropout,
                loss_chunk: 5,
                cosine: (ends == Ends::Texts).then_some(recformer().temperature),
            },
            part(Place::Front),
            part(Place::Back),
        );
        Self { layout, client, stages }
    }
}

pub fn step_id(step: u64) -> StepId {
    StepId { round: Round(0), step }
}

pub fn masks(step: u64) -> MaskSeed {
    MaskSeed { run_seed: SEED, client: ClientId(0), step: step_id(step) }
}
