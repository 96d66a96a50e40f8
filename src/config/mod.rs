//! Configuration: what each key means lives in `configs/default.toml`, what is legal lives here.
//!
//! One file a section group. [`Config`] is what the files, the environment and `--set` resolve to
//! after [`Config::validate`]; nothing else in the crate reads a configuration source.

mod checks;
mod data;
mod error;
mod federation;
mod keys;
mod layers;
mod model;
mod nodes;
mod optional;
mod presets;
mod pretrain;
mod prompt;
mod recformer;
mod runtime;
mod source;
mod stored;
mod training;
mod validate;

use serde::{Deserialize, Serialize};

pub use data::{
    AssignmentKind, ClientsConfig, DataConfig, DataFormat, SplitKind, SyntheticConfig, TableConfig,
};
pub use error::{ConfigError, Violation};
pub use federation::{
    FederationConfig, HeatingConfig, HeatingForm, HeatingOverride, MOST_REOPENINGS, MixingConfig,
    MixingGroups, MixingRuleKind, Normalisation, Quorum, RobustKind, ScreeningConfig,
    SimilarityKind,
};
pub use keys::{KeyDoc, keys};
pub use layers::{Layers, Loaded, MethodLayer};
pub use model::{BackboneKind, LoraConfig, ModelConfig, Projection, SplitConfig, Trainable};
pub use nodes::NodesConfig;
pub use optional::OrNone;
pub use presets::{DEFAULT_TOML, PRESETS, Preset};
pub use pretrain::PretrainConfig;
pub use prompt::{GenerationConfig, GroundingConfig, PromptConfig, PromptLoss};
pub use recformer::RecformerConfig;
pub use runtime::{
    CheckpointConfig, DeviceName, DtypeName, LoggingConfig, RunConfig, RuntimeConfig,
};
pub use source::Origin;
pub use stored::Entry;
pub use training::{EvaluationConfig, OptimizerConfig, TrainingConfig};

/// Environment variables with this prefix set keys: `FELLREC__SECTION__KEY`.
pub const ENVIRONMENT_PREFIX: &str = "FELLREC__";

/// A whole run, resolved and validated. Sections and keys are those of `configs/default.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the sections are documented at their types and in default.toml")]
pub struct Config {
    pub run: RunConfig,
    pub data: DataConfig,
    pub clients: ClientsConfig,
    pub model: ModelConfig,
    pub recformer: RecformerConfig,
    pub lora: LoraConfig,
    pub split: SplitConfig,
    pub training: TrainingConfig,
    pub optimizer: OptimizerConfig,
    pub prompt: PromptConfig,
    pub generation: GenerationConfig,
    pub grounding: GroundingConfig,
    pub pretrain: PretrainConfig,
    pub federation: FederationConfig,
    pub mixing: MixingConfig,
    pub heating: HeatingConfig,
    pub screening: ScreeningConfig,
    pub evaluation: EvaluationConfig,
    pub checkpoint: CheckpointConfig,
    pub runtime: RuntimeConfig,
    pub nodes: NodesConfig,
    pub logging: LoggingConfig,
}
