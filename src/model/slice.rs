//! What a client trains, cut by who holds it: the tensors of one part, and all of them.
//!
//! Owns names, order, digests and files of trainable tensors. What the tensors mean is the
//! layers' business, who sends them where the protocol's.

mod file;
mod layout;
mod order;

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest as _, Sha256};
use tch::{Kind, Tensor};

pub use file::SliceFileError;
pub use layout::LayoutError;
pub use order::natural_cmp;

use super::packed;

/// Where a tensor lives in the U-shaped split (method.md section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Embedding and first blocks, on the client.
    Front,
    /// Blocks between, on the server.
    Body,
    /// Last blocks and head, on the client.
    Back,
}

impl Part {
    /// Every part in checkpoint order.
    pub const ALL: [Part; 3] = [Part::Front, Part::Body, Part::Back];
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Front => "front",
            Part::Body => "body",
            Part::Back => "back",
        })
    }
}

/// SHA-256 of a slice in lower-case hex. Equal digests mean equal names, types, shapes and bits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(String);

impl Digest {
    /// Digest of bytes that are no slice, such as a manifest.
    pub fn of(bytes: &[u8]) -> Self {
        Sha256::new_with_prefix(bytes).into()
    }

    /// The 64 hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Sha256> for Digest {
    fn from(hasher: Sha256) -> Self {
        Self(format!("{:x}", hasher.finalize()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A tensor under its checkpoint name.
#[derive(Debug, Serialize, Deserialize)]
pub struct NamedTensor {
    /// Name in the checkpoint, equal to the upstream name.
    pub name: String,
    /// Its values; any shape.
    #[serde(with = "packed")]
    pub tensor: Tensor,
}

impl NamedTensor {
    /// Puts a name to a tensor.
    pub fn new(name: impl Into<String>, tensor: Tensor) -> Self {
        Self { name: name.into(), tensor }
    }

    /// First byte and the byte after the last that the tensor can touch.
    fn extent(&self) -> (usize, usize) {
        let start = self.tensor.data_ptr() as usize;
        if self.tensor.numel() == 0 {
            return (start, start);
        }
        let last: i64 =
            self.tensor.size().iter().zip(self.tensor.stride()).map(|(n, s)| (n - 1) * s).sum();
        let elements = usize::try_from(last + 1).expect("torch strides are not negative");
        (start, start + elements * self.tensor.kind().elt_size_in_bytes())
    }
}

/// The trainable tensors of one part, names unique and in natural order (`layers.9` before
/// `layers.10`).
///
/// Build it with [`Slice::new`], which sorts. Copying is explicit: a slice that crosses an actor
/// boundary is a [`Slice::deep_copy`].
#[derive(Default, Serialize)]
#[serde(transparent)]
pub struct Slice {
    /// In checkpoint-name order.
    pub tensors: Vec<NamedTensor>,
}

impl Slice {
    /// Takes the tensors and sorts them by name. Names must be unique.
    pub fn new(mut tensors: Vec<NamedTensor>) -> Self {
        tensors.sort_by(|a, b| natural_cmp(&a.name, &b.name));
        debug_assert!(tensors.windows(2).all(|w| w[0].name != w[1].name), "names are unique");
        Self { tensors }
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.iter().find(|t| t.name == name).map(|t| &t.tensor)
    }

    /// Handles on the same storage, for tensors that nobody writes to any more.
    pub fn share(&self) -> Self {
        let share = |named: &NamedTensor| {
            NamedTensor::new(named.name.clone(), named.tensor.shallow_clone())
        };
        Self { tensors: self.tensors.iter().map(share).collect() }
    }

    /// Detached copy that shares no storage with this slice (protocol.md section 3).
    pub fn deep_copy(&self) -> Self {
        let copy =
            |t: &NamedTensor| NamedTensor::new(&t.name, t.tensor.detach().contiguous().copy());
        Self { tensors: self.tensors.iter().map(copy).collect() }
    }

    /// SHA-256 over names, number types, shapes and bits, in order.
    pub fn digest(&self) -> Digest {
        let mut hasher = Sha256::new();
        self.hash_into(&mut hasher);
        hasher.into()
    }

    fn hash_into(&self, hasher: &mut Sha256) {
        // Every field of unknown length is preceded by its length, so no two slices read alike.
        hasher.update((self.tensors.len() as u64).to_le_bytes());
        for named in &self.tensors {
            let dtype = format!("{:?}", named.tensor.kind());
            for text in [named.name.as_str(), dtype.as_str()] {
                hasher.update((text.len() as u64).to_le_bytes());
                hasher.update(text);
            }
            let shape = named.tensor.size();
            hasher.update((shape.len() as u64).to_le_bytes());
            for dim in shape {
                hasher.update(dim.to_le_bytes());
            }
            packed::with_raw_bytes(&named.tensor, |bytes| hasher.update(bytes));
        }
    }

    /// Trainable numbers.
    pub fn numel(&self) -> usize {
        self.tensors.iter().map(|t| t.tensor.numel()).sum()
    }

    /// Size of the numbers in memory. Unit: bytes.
    pub fn bytes(&self) -> usize {
        self.tensors.iter().map(|t| t.tensor.numel() * t.tensor.kind().elt_size_in_bytes()).sum()
    }

    /// Name of the first tensor that holds a NaN or an infinity.
    pub fn has_non_finite(&self) -> Option<&str> {
        self.tensors.iter().find(|t| !all_finite(&t.tensor)).map(|t| t.name.as_str())
    }

    /// Sum of the squares of all numbers, tensor by tensor in name order.
    pub fn squared_norm(&self) -> f64 {
        let squared = |t: &NamedTensor| {
            let wide = t.tensor.detach().to_kind(Kind::Double);
            wide.square().sum(Kind::Double).double_value(&[])
        };
        self.tensors.iter().map(squared).sum()
    }

    /// Whether writing into one slice in place could change the other.
    pub fn shares_storage(&self, other: &Slice) -> bool {
        let theirs: Vec<_> = other.tensors.iter().map(NamedTensor::extent).collect();
        self.tensors.iter().map(NamedTensor::extent).any(|(start, end)| {
            theirs.iter().any(|&(their_start, their_end)| start < their_end && their_start < end)
        })
    }
}

/// Refused unless names are unique and in order: whoever sends a slice made it with [`Slice::new`].
impl<'de> Deserialize<'de> for Slice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let tensors = Vec::<NamedTensor>::deserialize(deserializer)?;
        let rising = |pair: &[NamedTensor]| natural_cmp(&pair[0].name, &pair[1].name).is_lt();
        match tensors.windows(2).find(|pair| !rising(pair)) {
            None => Ok(Self { tensors }),
            Some(pair) => Err(D::Error::custom(format!(
                "tensor {} follows {}, expected unique names in order",
                pair[1].name, pair[0].name
            ))),
        }
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slice({} tensors, {} numbers)", self.tensors.len(), self.numel())
    }
}

fn all_finite(tensor: &Tensor) -> bool {
    tensor.detach().isfinite().all().int64_value(&[]) != 0
}

/// All trainable tensors of one client: Theta_c of method.md.
#[derive(Debug, Default)]
pub struct Theta {
    /// Held by the client.
    pub front: Slice,
    /// Held by the shard.
    pub body: Slice,
    /// Held by the client.
    pub back: Slice,
}

impl Theta {
    /// The slice of one part.
    pub fn part(&self, part: Part) -> &Slice {
        match part {
            Part::Front => &self.front,
            Part::Body => &self.body,
            Part::Back => &self.back,
        }
    }

    /// Every tensor with its part: front, then body, then back, each in name order.
    pub fn iter(&self) -> impl Iterator<Item = (Part, &NamedTensor)> {
        Part::ALL
            .into_iter()
            .flat_map(|part| self.part(part).tensors.iter().map(move |t| (part, t)))
    }

    /// Detached copy that shares no storage with this one.
    pub fn deep_copy(&self) -> Self {
        Self {
            front: self.front.deep_copy(),
            body: self.body.deep_copy(),
            back: self.back.deep_copy(),
        }
    }

    /// Other handles on the same storage.
    pub fn share(&self) -> Self {
        Self { front: self.front.share(), body: self.body.share(), back: self.back.share() }
    }

    /// SHA-256 over the three slices, in checkpoint order.
    pub fn digest(&self) -> Digest {
        let mut hasher = Sha256::new();
        Part::ALL.into_iter().for_each(|part| self.part(part).hash_into(&mut hasher));
        hasher.into()
    }

    /// Trainable numbers.
    pub fn numel(&self) -> usize {
        Part::ALL.into_iter().map(|part| self.part(part).numel()).sum()
    }

    /// Size of the numbers in memory. Unit: bytes.
    pub fn bytes(&self) -> usize {
        Part::ALL.into_iter().map(|part| self.part(part).bytes()).sum()
    }

    /// Name of the first tensor that holds a NaN or an infinity.
    pub fn has_non_finite(&self) -> Option<&str> {
        Part::ALL.into_iter().find_map(|part| self.part(part).has_non_finite())
    }
}
