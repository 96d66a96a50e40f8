//! Tensors in messages between nodes: number type, shape and raw bytes, for `#[serde(with = "packed")]`.
//!
//! Nothing is lost and nothing is computed: what arrives has the bits that were sent, on the CPU.
//! Little-endian, as on every platform libtorch ships for.

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_bytes::Bytes;
use tch::{Device, Kind, Tensor};

/// Dimensions that a tensor in a message may have.
const MOST_DIMENSIONS: usize = 8;

/// A tensor as it is written.
#[derive(Serialize, Deserialize)]
struct Packed<'a> {
    kind: Number,
    shape: Vec<i64>,
    #[serde(borrow)]
    data: &'a Bytes,
}

/// Number types that cross between nodes.
#[derive(Clone, Copy, Serialize, Deserialize)]
enum Number {
    F32,
    Bf16,
    F16,
    F64,
    I64,
}

impl Number {
    fn of(kind: Kind) -> Option<Self> {
        Some(match kind {
            Kind::Float => Self::F32,
            Kind::BFloat16 => Self::Bf16,
            Kind::Half => Self::F16,
            Kind::Double => Self::F64,
            Kind::Int64 => Self::I64,
            _ => return None,
        })
    }

    fn kind(self) -> Kind {
        match self {
            Self::F32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
            Self::F16 => Kind::Half,
            Self::F64 => Kind::Double,
            Self::I64 => Kind::Int64,
        }
    }
}

/// Hands the raw bytes of a tensor, row by row, to `take`; no copy is made of one that is dense and on the CPU.
pub fn with_raw_bytes<R>(tensor: &Tensor, take: impl FnOnce(&[u8]) -> R) -> R {
    let dense = tensor.detach().to_device(Device::Cpu).contiguous();
    let length = dense.numel() * dense.kind().elt_size_in_bytes();
    if length == 0 {
        // Without numbers there may be no storage.
        return take(&[]);
    }
    // SAFETY: the storage of a dense tensor on the CPU has `length` initialised bytes from its data pointer
    // on, and `dense` keeps it alive until `take` has returned.
    #[allow(
        unsafe_code,
        reason = "tch gives no view of a tensor's bytes, and a copy costs as much as sending them"
    )]
    let bytes = unsafe { std::slice::from_raw_parts(dense.data_ptr().cast::<u8>(), length) };
    take(bytes)
}

/// Writes a tensor.
///
/// # Errors
/// A number type that no message has.
pub fn serialize<S: Serializer>(tensor: &Tensor, serializer: S) -> Result<S::Ok, S::Error> {
    let kind = Number::of(tensor.kind())
        .ok_or_else(|| S::Error::custom(format!("no message carries {:?}", tensor.kind())))?;
    let shape = tensor.size();
    with_raw_bytes(tensor, |bytes| {
        Packed { kind, shape, data: Bytes::new(bytes) }.serialize(serializer)
    })
}

/// Reads a tensor.
///
/// # Errors
/// A shape that is none, or that the bytes do not fill.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Tensor, D::Error> {
    let Packed { kind, shape, data } = Packed::deserialize(deserializer)?;
    let kind = kind.kind();
    let elements = elements(&shape)
        .ok_or_else(|| D::Error::custom(format!("{} dimensions {shape:?}", shape.len())))?;
    let expected = elements.checked_mul(kind.elt_size_in_bytes());
    if expected != Some(data.len()) {
        let got = data.len();
        return Err(D::Error::custom(format!("shape {shape:?} of {kind:?} with {got} bytes")));
    }
    Tensor::f_from_data_size(data, &shape, kind).map_err(D::Error::custom)
}

/// Numbers of a tensor of this shape, if it is one.
fn elements(shape: &[i64]) -> Option<usize> {
    if shape.len() > MOST_DIMENSIONS {
        return None;
    }
    shape.iter().try_fold(1, |product: usize, dim| product.checked_mul(usize::try_from(*dim).ok()?))
}

/// For `#[serde(with = "packed::option")]`.
pub mod option {
    use super::*;

    #[derive(Serialize)]
    #[serde(transparent)]
    struct Borrowed<'a>(#[serde(with = "super")] &'a Tensor);

    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Owned(#[serde(with = "super")] Tensor);

    /// Writes a tensor that may be absent.
    ///
    /// # Errors
    /// As [`super::serialize`].
    pub fn serialize<S: Serializer>(
        tensor: &Option<Tensor>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        tensor.as_ref().map(Borrowed).serialize(serializer)
    }

    /// Reads a tensor that may be absent.
    ///
    /// # Errors
    /// As [`super::deserialize`].
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Tensor>, D::Error> {
        Ok(Option::<Owned>::deserialize(deserializer)?.map(|Owned(tensor)| tensor))
    }
}
