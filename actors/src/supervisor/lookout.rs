//! Who of a federation over nodes is alive: told by their heartbeats, asked by whoever misses somebody.
//!
//! Members are started again by those who run their nodes, not from here: all that the supervisor can do is
//! wait for their return, for as long as `nodes.absence_secs`.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix::dev::MessageResponse;
use fellrec::checkpoint::Fingerprint;
use fellrec::split::wire::PROTOCOL;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::warn;

use crate::as_json;
use crate::registry::MemberName;

/// Pause between the heartbeats of a member.
pub const BEAT: Duration = Duration::from_secs(1);
/// Heartbeats that may fail to come before somebody else is preferred.
const MISSED_BEATS: u32 = 4;
/// Clocks that are further apart make the logs of two nodes unreadable side by side, and certificates fail.
const CLOCKS_APART: Duration = Duration::from_secs(30);

/// What must agree before a member may join (protocol.md 6).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Door {
    /// Version of the messages.
    pub protocol: u8,
    /// What the bits of the run depend on: product, libtorch, processor, config, base.
    #[serde(with = "as_json")]
    pub fingerprint: Fingerprint,
    /// SHA-256 of the tokenizer's file; `None` where there is no text.
    pub tokenizer: Option<String>,
    /// Milliseconds since 1970.
    pub clock_ms: u64,
}

impl Door {
    /// This process' side of it.
    pub fn new(fingerprint: Fingerprint, tokenizer: Option<String>) -> Self {
        Self { protocol: PROTOCOL, fingerprint, tokenizer, clock_ms: now_ms() }
    }

    /// The same at this time.
    pub fn now(&self) -> Self {
        Self { clock_ms: now_ms(), ..self.clone() }
    }

    /// Why a member must not join, with both values.
    fn refuses(&self, theirs: &Self) -> Option<String> {
        if self.protocol != theirs.protocol {
            let (ours, theirs) = (self.protocol, theirs.protocol);
            return Some(format!("protocol: the supervisor has {ours}, the member {theirs}"));
        }
        if let Some(difference) = self.fingerprint.difference(&theirs.fingerprint) {
            return Some(format!("at the supervisor and at the member {difference}"));
        }
        if self.tokenizer != theirs.tokenizer {
            let read = |digest: &Option<String>| digest.clone().unwrap_or("none".to_owned());
            let (ours, theirs) = (read(&self.tokenizer), read(&theirs.tokenizer));
            return Some(format!("tokenizer: the supervisor has {ours}, the member {theirs}"));
        }
        None
    }

    fn clocks_apart(&self, theirs: &Self) -> Option<Duration> {
        let apart = Duration::from_millis(now_ms().abs_diff(theirs.clock_ms));
        (apart > CLOCKS_APART).then_some(apart)
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_millis() as u64
}

/// What a member is told at its heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, MessageResponse)]
pub enum Heard {
    /// All is well.
    Welcome,
    /// This life is not known here: say what you are.
    Introduce,
    /// It may not join, and why.
    Refused(String),
    /// It is to leave, and still needed: it takes on nothing new.
    Drain,
    /// It is to leave, and needed no more.
    Leave,
    /// The run is over: nobody will ask it for anything.
    Over,
}

/// A member's life as it was heard of last.
#[derive(Clone, Copy, Debug)]
struct Seen {
    life: u64,
    at: Instant,
}

/// A member that has not been here in this life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Whether another life of it was here before.
    pub again: bool,
}

/// Members by their heartbeats.
#[derive(Clone, Debug)]
pub struct Lookout {
    door: Door,
    deterministic: bool,
    absence: Duration,
    seen: watch::Sender<BTreeMap<MemberName, Seen>>,
}

impl Lookout {
    /// Nobody has been heard of yet. A member that is missed is waited for as long as `absence`.
    pub fn new(door: Door, deterministic: bool, absence: Duration) -> Self {
        Self { door, deterministic, absence, seen: watch::Sender::default() }
    }

    /// Takes a heartbeat in.
    pub fn hear(
        &self,
        member: MemberName,
        life: u64,
        door: Option<&Door>,
    ) -> (Heard, Option<Joined>) {
        let before = self.seen.borrow().get(&member).map(|seen| seen.life);
        if before != Some(life) {
            let Some(theirs) = door else { return (Heard::Introduce, None) };
            if let Some(reason) = self.door.refuses(theirs) {
                if self.deterministic || self.door.protocol != theirs.protocol {
                    warn!(%member, reason, "not let in");
                    return (Heard::Refused(reason), None);
                }
                warn!(%member, reason, "let in all the same: bits may differ");
            }
            if let Some(apart) = self.door.clocks_apart(theirs) {
                warn!(%member, seconds = apart.as_secs(), "its clock and ours are apart");
            }
        }
        let seen = Seen { life, at: Instant::now() };
        self.seen.send_modify(|members| {
            members.insert(member, seen);
        });
        let joined = (before != Some(life)).then_some(Joined { again: before.is_some() });
        (Heard::Welcome, joined)
    }

    /// Waits until somebody who can serve in a member's place, mostly it itself, is heard of; after
    /// the member was missed at `since`.
    ///
    /// # Errors
    /// Nobody was heard for as long as `nodes.absence_secs`.
    pub async fn wait_for(&self, member: MemberName, since: Instant) -> Result<(), String> {
        let mut seen = self.seen.subscribe();
        let absence = self.absence;
        let back = seen.wait_for(|members| {
            let heard = |at: Instant| at > since;
            members.get(&member).is_some_and(|seen| heard(seen.at)) || served(members, member)
        });
        match timeout_at(since + absence, back).await {
            Ok(_) => Ok(()),
            Err(_) => Err(format!(
                "{member} has not been heard of for {} s; is its node running?",
                absence.as_secs()
            )),
        }
    }

    /// Waits until all of these are here, or as long as `nodes.absence_secs`; returns who is not.
    pub async fn wait_for_all(&self, members: &[MemberName]) -> Vec<MemberName> {
        let mut seen = self.seen.subscribe();
        let all = |heard: &BTreeMap<MemberName, Seen>| {
            members.iter().all(|member| heard.contains_key(member))
        };
        // Whoever is not here by then is absent, which is no error.
        let _ = timeout_at(Instant::now() + self.absence, seen.wait_for(all)).await;
        let heard = self.seen.borrow();
        members.iter().copied().filter(|member| !heard.contains_key(member)).collect()
    }

    /// Waits until nobody is here any more, or as long as `patience`.
    pub async fn wait_for_none(&self, patience: Duration) {
        let mut seen = self.seen.subscribe();
        // Whoever has not left by then has to find out by itself.
        let _ = timeout(patience, seen.wait_for(BTreeMap::is_empty)).await;
    }

    /// Members that were here and have been silent for too long, each said once: they count as never
    /// heard of from then on.
    pub fn silent(&self) -> Vec<MemberName> {
        let too_long = |seen: &Seen| seen.at.elapsed() > self.absence;
        let seen = self.seen.borrow();
        let silent = seen.iter().filter(|(_, seen)| too_long(seen)).map(|(member, _)| *member);
        let silent: Vec<MemberName> = silent.collect();
        drop(seen);
        if !silent.is_empty() {
            self.seen.send_modify(|members| members.retain(|_, seen| !too_long(seen)));
        }
        silent
    }

    /// The life in which a member is here.
    pub fn life_of(&self, member: MemberName) -> Option<u64> {
        self.seen.borrow().get(&member).map(|seen| seen.life)
    }

    /// Whether another replica of a shard's stage is here, and `stays`.
    pub fn is_replaceable(&self, member: MemberName, stays: impl Fn(&MemberName) -> bool) -> bool {
        let seen = self.seen.borrow();
        let staying = seen.iter().filter(|(other, _)| stays(other));
        served(&staying.map(|(other, seen)| (*other, *seen)).collect(), member)
    }

    /// Counts a member as never heard of.
    pub fn forget(&self, member: MemberName) {
        self.seen.send_modify(|members| {
            members.remove(&member);
        });
    }

    /// Whether a member has been heard of and not been silent for too long.
    pub fn is_here(&self, member: MemberName) -> bool {
        self.seen.borrow().contains_key(&member)
    }

    /// Who is here, and how long ago each was heard.
    pub fn present(&self) -> BTreeMap<MemberName, Duration> {
        self.seen.borrow().iter().map(|(member, seen)| (*member, seen.at.elapsed())).collect()
    }
}

/// Whether another replica of a shard's stage is heard of just now.
fn served(members: &BTreeMap<MemberName, Seen>, member: MemberName) -> bool {
    let MemberName::Shard(lost) = member else { return false };
    members.iter().any(|(other, seen)| match other {
        MemberName::Shard(shard) => {
            *shard != lost && shard.stage == lost.stage && seen.at.elapsed() < MISSED_BEATS * BEAT
        }
        _ => false,
    })
}
