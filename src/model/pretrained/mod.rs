//! Hugging Face folders: `config.json`, safetensors weights and PEFT adapters, read without trust.
//!
//! Owns which files a folder has, what they must say and how their tensors are found by name. Which
//! tensors a model needs is the layers' business; they come in as [`TensorSpec`]s.
//!
//! [`TensorSpec`]: super::spec::TensorSpec

mod adapter;
mod adapter_file;
mod checkpoint;
mod checkpoint_file;
mod config_json;
mod error;
mod files;
mod json;
mod mapped;
mod names;
mod rope_json;
mod weights;

/// The file that says what a model is.
pub const CONFIG: &str = "config.json";
/// The file that says how one writes text with it.
const GENERATION: &str = "generation_config.json";

pub use adapter::Adapter;
pub use adapter_file::write_adapter;
pub use checkpoint::{Checkpoint, SpecialTokens};
pub use checkpoint_file::{write_checkpoint, write_tokenizer};
pub use config_json::Family;
pub use error::{PretrainedError, TensorProblem};
