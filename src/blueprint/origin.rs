//! What the model starts from, as the config names it: a checkpoint, an adapter, or nothing.

use std::sync::Arc;

use super::BlueprintError;
use crate::config::{Config, LoraConfig, OrNone};
use crate::model::layout::{Layout, model_specs};
use crate::model::pretrained::{Adapter, Checkpoint};
use crate::model::start::StartingPoint;

/// What the config says the model starts from; a checkpoint must hold exactly its model's tensors.
pub(super) fn starting_point(config: &Config) -> Result<StartingPoint, BlueprintError> {
    let OrNone::Some(folder) = &config.model.checkpoint else {
        return Ok(StartingPoint::random(config.run.seed));
    };
    let checkpoint = Checkpoint::open(folder)?;
    checkpoint.check(&model_specs(checkpoint.architecture()))?;
    Ok(StartingPoint::pretrained(config.run.seed, Arc::new(checkpoint)))
}

/// The PEFT adapter that `model.adapter` names; it must be exactly what `[lora]` describes.
pub(super) fn adapter(
    config: &Config,
    layout: &Layout,
) -> Result<Option<Arc<Adapter>>, BlueprintError> {
    let OrNone::Some(folder) = &config.model.adapter else { return Ok(None) };
    let of_adapter = |error| BlueprintError::Adapter(Box::new(error));
    let adapter = Adapter::open(folder).map_err(of_adapter)?;
    let (ours, its) = (&config.lora, adapter.lora());
    let differ = |key, got: String, expected: String| match got == expected {
        true => Ok(()),
        false => Err(BlueprintError::AdapterShape { key, got, expected }),
    };
    let targets = |lora: &LoraConfig| {
        let mut targets = lora.targets.clone();
        targets.sort();
        toml::Value::try_from(targets).map(|list| list.to_string()).unwrap_or_default()
    };
    differ("lora.rank", ours.rank.to_string(), its.rank.to_string())?;
    differ("lora.alpha", ours.alpha.to_string(), its.alpha.to_string())?;
    differ("lora.targets", targets(ours), targets(its))?;
    adapter.check(&layout.lora()).map_err(of_adapter)?;
    Ok(Some(Arc::new(adapter)))
}
