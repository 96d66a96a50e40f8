//! Rotary positions as `config.json` spells them.
//!
//! transformers 4: `rope_theta` beside `rope_scaling: null | {"rope_type" or "type": .., ..}`.
//! transformers 5: `rope_parameters: {"rope_theta": .., "rope_type": .., ..}`.

use super::error::PretrainedError;
use super::json::JsonObject;
use crate::model::architecture::{Rope, RopeScaling};

/// Base of the frequencies where a file gives none: that of all three decoder configs.
const DEFAULT_THETA: f64 = 10_000.0;

/// Reads either spelling; a file with both must mean the same by them.
pub(super) fn rope(config: &JsonObject) -> Result<Rope, PretrainedError> {
    whole_heads(config)?;
    let theta = config.positive("rope_theta")?;
    let mut ropes = Vec::new();
    for key in ["rope_parameters", "rope_scaling"] {
        let Some(parameters) = config.object(key)? else { continue };
        whole_heads(&parameters)?;
        let theta = parameters.positive("rope_theta")?.or(theta).unwrap_or(DEFAULT_THETA);
        ropes.push(Rope { theta, scaling: scaling(&parameters, config)? });
    }
    match ropes.as_slice() {
        [ours, other] if ours != other => {
            Err(config.wrong("rope_scaling", "the same as rope_parameters"))
        }
        [ours, ..] => Ok(ours.clone()),
        [] => Ok(Rope { theta: theta.unwrap_or(DEFAULT_THETA), scaling: RopeScaling::None }),
    }
}

/// Heads are rotated as a whole.
fn whole_heads(parameters: &JsonObject) -> Result<(), PretrainedError> {
    match parameters.positive("partial_rotary_factor")? {
        None | Some(1.0) => Ok(()),
        Some(_) => Err(parameters.wrong("partial_rotary_factor", "1")),
    }
}

fn scaling(parameters: &JsonObject, config: &JsonObject) -> Result<RopeScaling, PretrainedError> {
    let key = if parameters.value("rope_type").is_some() { "rope_type" } else { "type" };
    match parameters.text(key)? {
        Some("default") => Ok(RopeScaling::None),
        Some("linear") => Ok(RopeScaling::Linear { factor: number(parameters, "factor")? }),
        Some("llama3") => llama3(parameters, config),
        // Without a type, `rope_parameters` may hold theta alone, or something per kind of layer.
        None if parameters.entries().all(|(key, _)| key == "rope_theta") => Ok(RopeScaling::None),
        None => Err(parameters.wrong("rope_type", "default, linear or llama3")),
        Some(_) => Err(parameters.wrong(key, "default, linear or llama3")),
    }
}

fn llama3(parameters: &JsonObject, config: &JsonObject) -> Result<RopeScaling, PretrainedError> {
    const ORIGINAL: &str = "original_max_position_embeddings";
    let low_freq_factor = number(parameters, "low_freq_factor")?;
    let high_freq_factor = number(parameters, "high_freq_factor")?;
    if high_freq_factor <= low_freq_factor {
        let expected = format!("more than low_freq_factor, {low_freq_factor}");
        return Err(parameters.wrong("high_freq_factor", expected));
    }
    let original = match parameters.dimension(ORIGINAL)? {
        Some(original) => original,
        // transformers 5 fills it in from here.
        None => match config.dimension("max_position_embeddings")? {
            Some(positions) => positions,
            None => return Err(parameters.wrong(ORIGINAL, "a value")),
        },
    };
    Ok(RopeScaling::Llama3 {
        factor: number(parameters, "factor")?,
        low_freq_factor,
        high_freq_factor,
        original_positions: original as f64,
    })
}

fn number(parameters: &JsonObject, key: &str) -> Result<f64, PretrainedError> {
    parameters.required(key, parameters.positive(key)?)
}
