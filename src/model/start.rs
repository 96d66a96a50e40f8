//! What a run starts from: the base, and the first adapters on it.

use std::sync::{Arc, OnceLock};

use tch::{Device, Kind, Tensor};

use super::pretrained::{Adapter, Checkpoint, PretrainedError};
use super::slice::Digest;
use super::spec::TensorSpec;

/// Where start values come from: drawn from the run's seed, or read from files.
///
/// Every tensor is made or read on its own, so that a party that holds one stage touches no other.
#[derive(Clone, Debug)]
pub struct StartingPoint {
    run_seed: u64,
    checkpoint: Option<Arc<Checkpoint>>,
    adapter: Option<Arc<Adapter>>,
    /// Of the checkpoint, once somebody asked for it: it costs a pass over all of it.
    digest: Arc<OnceLock<Digest>>,
}

impl StartingPoint {
    /// Everything is drawn from the seed.
    pub fn random(run_seed: u64) -> Self {
        Self { run_seed, checkpoint: None, adapter: None, digest: Arc::default() }
    }

    /// The base is read from a checkpoint; what it does not have is drawn.
    pub fn pretrained(run_seed: u64, checkpoint: Arc<Checkpoint>) -> Self {
        let checkpoint = Some(checkpoint);
        Self { run_seed, checkpoint, adapter: None, digest: Arc::default() }
    }

    /// The same with the matrices of an adapter that was checked against the model.
    pub fn adapted(self, adapter: Option<Arc<Adapter>>) -> Self {
        Self { adapter, ..self }
    }

    /// The checkpoint, if there is one.
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoint.as_deref()
    }

    /// SHA-256 of the checkpoint's tensors; `None` where the base is drawn.
    ///
    /// # Errors
    /// The checkpoint could not be read.
    pub fn digest(&self) -> Result<Option<Digest>, PretrainedError> {
        let Some(checkpoint) = &self.checkpoint else { return Ok(None) };
        if let Some(digest) = self.digest.get() {
            return Ok(Some(digest.clone()));
        }
        let digest = checkpoint.digest()?;
        Ok(Some(self.digest.get_or_init(|| digest).clone()))
    }

    /// A tensor of the base.
    ///
    /// # Errors
    /// The checkpoint lacks it or could not be read.
    pub fn base(
        &self,
        spec: &TensorSpec,
        kind: Kind,
        device: Device,
    ) -> Result<Tensor, PretrainedError> {
        match &self.checkpoint {
            Some(checkpoint) => checkpoint.tensor(spec, kind, device),
            None => Ok(spec.initial(self.run_seed).to_kind(kind).to_device(device)),
        }
    }

    /// A tensor that no base has: a matrix of an adapter, a projector; f32 on the CPU.
    ///
    /// # Errors
    /// The adapter's file could not be read.
    pub fn adapter(&self, spec: &TensorSpec) -> Result<Tensor, PretrainedError> {
        match &self.adapter {
            Some(adapter) if adapter.holds(&spec.name) => {
                adapter.tensor(spec, Kind::Float, Device::Cpu)
            }
            _ => Ok(spec.initial(self.run_seed)),
        }
    }

    /// SHA-256 of the adapter; `None` where it is drawn.
    ///
    /// # Errors
    /// The adapter's file could not be read.
    pub fn adapter_digest(&self) -> Result<Option<Digest>, PretrainedError> {
        self.adapter.as_ref().map(|adapter| adapter.digest()).transpose()
    }
}
