//! Values that are a word or something else: `"none"` or a value, a quorum, a device.
//!
//! Written as visitors and not as untagged enums, so that a wrong value is refused with the
//! type that was expected.

use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroU32;

use serde::de::value::{F64Deserializer, I64Deserializer, SeqAccessDeserializer, StrDeserializer};
use serde::de::{self, Deserialize, Deserializer, IntoDeserializer, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use super::{DeviceName, Quorum};

/// A key that `"none"` switches off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrNone<T> {
    /// Switched off.
    None,
    /// In force with this value.
    Some(T),
}

impl<T> OrNone<T> {
    /// The value as an `Option`.
    pub fn as_option(&self) -> Option<&T> {
        match self {
            OrNone::None => None,
            OrNone::Some(value) => Some(value),
        }
    }
}

impl<T: Copy> OrNone<T> {
    /// A copy of the value as an `Option`.
    pub fn get(&self) -> Option<T> {
        self.as_option().copied()
    }
}

impl<T: Serialize> Serialize for OrNone<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            OrNone::None => serializer.serialize_str("none"),
            OrNone::Some(value) => value.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OrNone<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OrNoneVisitor(PhantomData))
    }
}

struct OrNoneVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OrNoneVisitor<T> {
    type Value = OrNone<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"none\" or a value")
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Self::Value, E> {
        if word == "none" {
            return Ok(OrNone::None);
        }
        T::deserialize(StrDeserializer::new(word))
            .map(OrNone::Some)
            .map_err(|error: E| E::custom(format!("{}, or \"none\"", error.to_string().trim_end())))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
        T::deserialize(I64Deserializer::new(number)).map(OrNone::Some)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        T::deserialize(number.into_deserializer()).map(OrNone::Some)
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Self::Value, E> {
        T::deserialize(F64Deserializer::new(number)).map(OrNone::Some)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        T::deserialize(SeqAccessDeserializer::new(seq)).map(OrNone::Some)
    }
}

impl Serialize for Quorum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Quorum::All => serializer.serialize_str("all"),
            Quorum::Majority => serializer.serialize_str("majority"),
            Quorum::AtLeast(clients) => serializer.serialize_u32(clients.get()),
        }
    }
}

impl<'de> Deserialize<'de> for Quorum {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(QuorumVisitor)
    }
}

struct QuorumVisitor;

impl Visitor<'_> for QuorumVisitor {
    type Value = Quorum;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"all\", \"majority\" or a number of clients above 0")
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Quorum, E> {
        match word {
            "all" => Ok(Quorum::All),
            "majority" => Ok(Quorum::Majority),
            other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
        }
    }

    fn visit_i64<E: de::Error>(self, clients: i64) -> Result<Quorum, E> {
        u32::try_from(clients)
            .ok()
            .and_then(NonZeroU32::new)
            .map(Quorum::AtLeast)
            .ok_or_else(|| E::invalid_value(de::Unexpected::Signed(clients), &self))
    }

    fn visit_u64<E: de::Error>(self, clients: u64) -> Result<Quorum, E> {
        u32::try_from(clients)
            .ok()
            .and_then(NonZeroU32::new)
            .map(Quorum::AtLeast)
            .ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(clients), &self))
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceName::Cpu => f.write_str("cpu"),
            DeviceName::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl Serialize for DeviceName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DeviceName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        if name == "cpu" {
            return Ok(DeviceName::Cpu);
        }
        name.strip_prefix("cuda:")
            .and_then(|index| index.parse().ok())
            .map(DeviceName::Cuda)
            .ok_or_else(|| {
                de::Error::invalid_value(de::Unexpected::Str(&name), &"\"cpu\" or \"cuda:N\"")
            })
    }
}
