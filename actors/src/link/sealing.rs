//! Payloads that the broker carries and cannot read: AES-256-GCM under keys that only the two ends have.
//!
//! Shards, aggregator and supervisor each have a secret (the shards have one together), and everybody else has, for each
//! of these roles, a key that is derived from its secret and the own name (HKDF-SHA256, RFC 5869). So a client and a
//! shard, or any two who talk, share a key, nobody's key opens what is for somebody else, and a member that is added
//! later needs nothing from those who are there. What is bound to the payload: run, sender, receiver, call and name of
//! the message. What the broker still sees: who sends what kind of message to whom, how long, and when.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use data_encoding::HEXLOWER_PERMISSIVE as HEX;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::envelope::CallId;
use super::subjects::RunId;
use crate::registry::MemberName;

/// Bytes of a key.
const KEY: usize = 32;
/// Separates these keys from any others made of the same secrets.
const PURPOSE: &[u8] = b"fellrec seal 1";

/// Why something could not be sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SealError {
    /// The kit has no key for the other end.
    #[error("the kit has no key for {0}")]
    NoKey(MemberName),
    /// Not sealed for this member, or changed on the way.
    #[error("the payload is not sealed by {0} for this message: are both kits of one federation?")]
    Broken(MemberName),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

/// Those who have a secret that keys are derived from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Keeper {
    Shards,
    Aggregator,
    Supervisor,
}

impl Keeper {
    fn of(member: MemberName) -> Option<Self> {
        match member {
            MemberName::Client(_) | MemberName::Operator => None,
            MemberName::Shard(_) => Some(Self::Shards),
            MemberName::Aggregator => Some(Self::Aggregator),
            MemberName::Supervisor => Some(Self::Supervisor),
        }
    }
}

/// A secret or a key; as text in hexadecimal, and never in a log.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
struct Secret([u8; KEY]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl From<Secret> for String {
    fn from(secret: Secret) -> Self {
        HEX.encode(&secret.0)
    }
}

impl TryFrom<String> for Secret {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let bytes = HEX.decode(text.as_bytes()).ok();
        let bytes = bytes.and_then(|bytes| <[u8; KEY]>::try_from(bytes).ok());
        bytes.map(Self).ok_or_else(|| format!("expected {} hexadecimal digits", 2 * KEY))
    }
}

impl Secret {
    fn random() -> Result<Self, SealError> {
        let mut bytes = [0; KEY];
        SystemRandom::new().fill(&mut bytes).map_err(|_| SealError::Random)?;
        Ok(Self(bytes))
    }

    /// Another secret, for what `info` says.
    fn derive(&self, info: &[&[u8]]) -> Self {
        let mut derived = [0; KEY];
        let secret = Salt::new(HKDF_SHA256, PURPOSE).extract(&self.0);
        let expanded =
            secret.expand(info, HKDF_SHA256).expect("32 bytes are no more than HKDF gives");
        expanded.fill(&mut derived).expect("as long as it was asked for");
        Self(derived)
    }
}

/// Every secret of a federation; whoever has them reads everything.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealSecrets {
    secrets: BTreeMap<Keeper, Secret>,
}

impl SealSecrets {
    /// New ones.
    ///
    /// # Errors
    /// [`SealError::Random`].
    pub fn generate() -> Result<Self, SealError> {
        let all = [Keeper::Shards, Keeper::Aggregator, Keeper::Supervisor];
        let secrets = all.into_iter().map(|keeper| Ok((keeper, Secret::random()?)));
        Ok(Self { secrets: secrets.collect::<Result<_, SealError>>()? })
    }

    /// What a member is to have of them.
    pub fn keys_of(&self, member: MemberName) -> SealKeys {
        let own = Keeper::of(member);
        let above = self.secrets.iter().filter(|(keeper, _)| Some(**keeper) > own);
        let name = member.to_string();
        let shared = above.map(|(keeper, secret)| (*keeper, secret.derive(&[name.as_bytes()])));
        let secret = own.and_then(|own| self.secrets.get(&own).cloned());
        SealKeys { secret, shared: shared.collect() }
    }
}

/// A member's keys, as a file of its kit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealKeys {
    /// What the keys of those below are derived from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<Secret>,
    /// Keys with those above.
    #[serde(default)]
    shared: BTreeMap<Keeper, Secret>,
}

/// Which payload it is: it opens as no other.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// Who seals.
    pub from: MemberName,
    /// Who opens.
    pub to: MemberName,
    /// The call that it belongs to.
    pub call: CallId,
    /// Name of the message.
    pub name: &'a str,
    /// Whether it is the answer to it.
    pub answer: bool,
}

/// Seals and opens for one member.
#[derive(Clone, Debug)]
pub struct Sealer {
    me: MemberName,
    run: RunId,
    keys: Arc<SealKeys>,
}

impl Sealer {
    /// With the keys of a kit.
    pub fn new(me: MemberName, run: RunId, keys: SealKeys) -> Self {
        Self { me, run, keys: Arc::new(keys) }
    }

    fn key(&self, other: MemberName) -> Result<LessSafeKey, SealError> {
        let keeper = Keeper::of(other).filter(|keeper| Some(*keeper) > Keeper::of(self.me));
        let pair = match keeper {
            Some(keeper) => self.keys.shared.get(&keeper).cloned(),
            None => {
                let secret = self.keys.secret.as_ref();
                secret.map(|secret| secret.derive(&[other.to_string().as_bytes()]))
            }
        };
        let pair = pair.ok_or(SealError::NoKey(other))?;
        let Secret(key) = pair.derive(&[b"run ", self.run.as_str().as_bytes()]);
        let key = UnboundKey::new(&AES_256_GCM, &key).map_err(|_| SealError::NoKey(other))?;
        Ok(LessSafeKey::new(key))
    }

    fn bound_to(&self, envelope: &Envelope<'_>) -> Aad<String> {
        let Envelope { from, to, call, name, answer } = envelope;
        let CallId { life, number } = call;
        Aad::from(format!("{from} {to} {life} {number} {answer} {name}"))
    }

    /// Seals in place; the nonce is drawn, and follows what it sealed.
    ///
    /// # Errors
    /// [`SealError::NoKey`] and [`SealError::Random`].
    pub fn seal(&self, envelope: &Envelope<'_>, mut frame: Vec<u8>) -> Result<Vec<u8>, SealError> {
        let key = self.key(envelope.to)?;
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| SealError::Random)?;
        let unique = Nonce::assume_unique_for_key(nonce);
        key.seal_in_place_append_tag(unique, self.bound_to(envelope), &mut frame)
            .map_err(|_| SealError::NoKey(envelope.to))?;
        frame.extend_from_slice(&nonce);
        Ok(frame)
    }

    /// Opens what [`Sealer::seal`] made at the other end.
    ///
    /// # Errors
    /// [`SealError::NoKey`] and [`SealError::Broken`].
    pub fn open(&self, envelope: &Envelope<'_>, sealed: Bytes) -> Result<Bytes, SealError> {
        let broken = || SealError::Broken(envelope.from);
        let key = self.key(envelope.from)?;
        let length = sealed.len().checked_sub(NONCE_LEN).ok_or_else(broken)?;
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&sealed[length..]);
        let mut frame = sealed.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        frame.truncate(length);
        let unique = Nonce::assume_unique_for_key(nonce);
        let opened = key.open_in_place(unique, self.bound_to(envelope), &mut frame);
        let plain = opened.map_err(|_| broken())?.len();
        frame.truncate(plain);
        Ok(frame.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> MemberName {
        text.parse().unwrap()
    }

    fn sealer(secrets: &SealSecrets, who: &str) -> Sealer {
        let text = toml::to_string(&secrets.keys_of(name(who))).unwrap();
        Sealer::new(name(who), "r".parse().unwrap(), toml::from_str(&text).unwrap())
    }

    fn envelope<'a>(from: &str, to: &str) -> Envelope<'a> {
        let call = CallId { life: 7, number: 3 };
        Envelope { from: name(from), to: name(to), call, name: "forward-body", answer: false }
    }

    #[test]
    fn any_two_who_talk_understand_each_other() {
        let secrets = SealSecrets::generate().unwrap();
        let pairs = [
            ("client-3", "shard-0-1"),
            ("client-3", "aggregator"),
            ("shard-0-1", "aggregator"),
            ("client-3", "supervisor"),
            ("operator", "supervisor"),
            ("aggregator", "supervisor"),
        ];
        for (one, other) in pairs.into_iter().flat_map(|(a, b)| [(a, b), (b, a)]) {
            let asked = envelope(one, other);
            let sealed = sealer(&secrets, one).seal(&asked, b"weights".to_vec()).unwrap();
            assert!(!sealed.windows(7).any(|window| window == b"weights"));
            let opened = sealer(&secrets, other).open(&asked, sealed.into()).unwrap();
            assert_eq!(&opened[..], b"weights", "{one} to {other}");
        }
    }

    #[test]
    fn nobody_else_opens_it_and_it_opens_as_nothing_else() {
        let secrets = SealSecrets::generate().unwrap();
        let asked = envelope("client-3", "shard-0-1");
        let sealed: Bytes =
            sealer(&secrets, "client-3").seal(&asked, b"weights".to_vec()).unwrap().into();
        // Another replica of the stages has the same rights.
        let shard = sealer(&secrets, "shard-0-1");
        assert!(shard.open(&asked, sealed.clone()).is_ok());
        let others = ["client-4", "aggregator", "supervisor", "operator"];
        for other in others {
            assert!(sealer(&secrets, other).open(&asked, sealed.clone()).is_err(), "{other}");
        }
        let changed = [
            Envelope { from: name("client-4"), ..asked },
            Envelope { call: CallId { life: 7, number: 4 }, ..asked },
            Envelope { call: CallId { life: 8, number: 3 }, ..asked },
            Envelope { name: "backward-body", ..asked },
            Envelope { answer: true, ..asked },
        ];
        for envelope in changed {
            assert!(shard.open(&envelope, sealed.clone()).is_err(), "{envelope:?}");
        }
        for position in 0..sealed.len() {
            let mut damaged = sealed.to_vec();
            damaged[position] ^= 1;
            assert!(shard.open(&asked, damaged.into()).is_err(), "byte {position}");
        }
        for length in 0..sealed.len() {
            assert!(shard.open(&asked, sealed.slice(..length)).is_err(), "{length} bytes");
        }
        let stranger = SealSecrets::generate().unwrap();
        assert!(sealer(&stranger, "shard-0-1").open(&asked, sealed).is_err());
    }

    #[test]
    fn a_client_has_no_secret_and_no_key_shows_in_a_log() {
        let keys = SealSecrets::generate().unwrap().keys_of(name("client-3"));
        assert!(keys.secret.is_none());
        assert_eq!(keys.shared.len(), 3);
        let shown = format!("{keys:?}");
        for secret in keys.shared.into_values() {
            assert!(!shown.contains(&String::from(secret)));
        }
        let short = toml::from_str::<SealKeys>("secret = \"00ff\"").unwrap_err().to_string();
        assert!(short.contains("64 hexadecimal digits"), "{short}");
    }
}
