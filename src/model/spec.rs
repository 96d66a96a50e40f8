//! Which tensors a model has, by checkpoint name, and how a base without a checkpoint starts.
//!
//! Every tensor draws from its own generator, seeded by its name: a party that holds one stage
//! makes exactly the values a party that holds all of them makes.

use std::collections::BTreeMap;

use rand::Rng;
use tch::{Device, Kind, Tensor};

use crate::seed;

/// How a tensor starts when no checkpoint holds it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// Uniform in `[-bound, bound]`.
    Uniform(f64),
    /// All zero.
    Zeros,
    /// All this value.
    Constant(f64),
    /// All one.
    Ones,
}

/// A tensor of the model: checkpoint name, shape, start value.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    /// Name in a Hugging Face checkpoint where it has one.
    pub name: String,
    /// Dimensions.
    pub shape: Vec<i64>,
    /// Start value.
    pub init: Init,
}

impl TensorSpec {
    /// A spec from its parts.
    pub fn new(name: impl Into<String>, shape: &[i64], init: Init) -> Self {
        Self { name: name.into(), shape: shape.to_vec(), init }
    }

    /// Elements of the tensor.
    pub fn numel(&self) -> i64 {
        self.shape.iter().product()
    }

    /// The start value, f32 on the CPU, drawn from (`run_seed`, name).
    pub fn initial(&self, run_seed: u64) -> Tensor {
        let options = (Kind::Float, Device::Cpu);
        match self.init {
            Init::Zeros => Tensor::zeros(self.shape.as_slice(), options),
            Init::Constant(value) => Tensor::full(self.shape.as_slice(), value, options),
            Init::Ones => Tensor::ones(self.shape.as_slice(), options),
            Init::Normal(std) => self.drawn(&normals(run_seed, &self.name, self.numel(), std)),
            Init::Uniform(bound) => {
                let mut rng = seed::rng(run_seed, &self.name, &[]);
                let values: Vec<f32> = (0..self.numel())
                    .map(|_| ((rng.random::<f64>() * 2.0 - 1.0) * bound) as f32)
                    .collect();
                self.drawn(&values)
            }
        }
    }

    fn drawn(&self, values: &[f32]) -> Tensor {
        Tensor::from_slice(values).view(self.shape.as_slice())
    }
}

/// Box-Muller over a generator of the tensor's own.
fn normals(run_seed: u64, name: &str, count: i64, std: f64) -> Vec<f32> {
    let mut rng = seed::rng(run_seed, name, &[]);
    let mut values = Vec::with_capacity(count as usize + 1);
    while (values.len() as i64) < count {
        let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt() * std;
        let (sin, cos) = (std::f64::consts::TAU * rng.random::<f64>()).sin_cos();
        values.push((radius * cos) as f32);
        values.push((radius * sin) as f32);
    }
    values.truncate(count as usize);
    values
}

/// The frozen base: one copy a process and device, handed out by [`BaseWeights::share`].
#[derive(Debug)]
pub struct BaseWeights {
    tensors: BTreeMap<String, Tensor>,
}

impl BaseWeights {
    /// A base with these tensors.
    pub fn new(tensors: BTreeMap<String, Tensor>) -> Self {
        Self { tensors }
    }

    /// Handles on the same storage, for another thread of this process. Nobody writes to it.
    pub fn share(&self) -> Self {
        let tensors =
            self.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone()));
        Self { tensors: tensors.collect() }
    }

    /// A handle on one tensor.
    pub fn get(&self, name: &str) -> Option<Tensor> {
        self.tensors.get(name).map(Tensor::shallow_clone)
    }

    /// Bytes of all tensors.
    pub fn bytes(&self) -> u64 {
        self.tensors.values().map(|t| (t.numel() * t.kind().elt_size_in_bytes()) as u64).sum()
    }
}

/// The tensors a part of the model computes with: a client's own where it trains them, else the base's.
#[derive(Debug)]
pub struct Params<'a> {
    /// Frozen tensors.
    pub base: &'a BaseWeights,
    /// Leaves that train, by name, of every client in the passes. Several share what they do not train, so they
    /// train adapters only.
    pub trainable: &'a [&'a BTreeMap<String, Tensor>],
}

impl Params<'_> {
    /// A handle on the tensor of this name, the trainable one first.
    ///
    /// # Panics
    /// If neither side has it: the specs that filled both name every tensor a layer asks for.
    pub fn tensor(&self, name: &str) -> Tensor {
        self.optional(name).unwrap_or_else(|| panic!("the specs name `{name}`"))
    }

    /// Like [`Params::tensor`] for tensors that a model may lack, such as biases.
    pub fn optional(&self, name: &str) -> Option<Tensor> {
        self.of_each(name).into_iter().next().or_else(|| self.base.get(name))
    }

    /// The tensor of this name that each client trains, in their order; none where they do not train it.
    pub fn of_each(&self, name: &str) -> Vec<Tensor> {
        self.trainable.iter().filter_map(|of| of.get(name)).map(Tensor::shallow_clone).collect()
    }
}
