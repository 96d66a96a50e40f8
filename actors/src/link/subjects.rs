//! Who listens where: the subjects of a run on the broker (architecture.md 5).
//!
//! ```text
//! fell.RUN.open.STAGE.FROM     queue group `shards`: which replica serves FROM?
//! fell.RUN.s.SHARD.VERB.FROM   to a shard          fell.RUN.agg.VERB.FROM   to the aggregator
//! fell.RUN.c.CLIENT.VERB.FROM  to a client         fell.RUN.sup.VERB.FROM   to the supervisor
//! _INBOX_FROM.>                answers, to FROM only
//! ```
//!
//! The sender stands in the subject, where the broker checks it against the sender's certificate; what a
//! payload says of its sender counts for nothing.

use std::fmt;
use std::str::FromStr;

use fellrec::ids::ShardId;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::registry::MemberName;

/// Queue group in which the replicas of a stage answer who serves a client.
pub const SHARDS: &str = "shards";

/// Longest name that may stand between two dots.
const LONGEST: usize = 64;

/// A name that cannot stand in a subject.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{got:?} is no name for a run: expected 1 to {LONGEST} of A-Z, a-z, 0-9, - and _")]
pub struct BadRunId {
    got: String,
}

/// Name of a run on its broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(String);

impl RunId {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RunId {
    type Err = BadRunId;

    fn from_str(text: &str) -> Result<Self, BadRunId> {
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if (1..=LONGEST).contains(&text.len()) && text.chars().all(legal) {
            return Ok(Self(text.to_owned()));
        }
        Err(BadRunId { got: text.to_owned() })
    }
}

impl TryFrom<String> for RunId {
    type Error = BadRunId;

    fn try_from(text: String) -> Result<Self, BadRunId> {
        text.parse()
    }
}

impl From<RunId> for String {
    fn from(run: RunId) -> Self {
        run.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a request asks of the link at the other end; the last but one name of its subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// A control message, whole.
    Call,
    /// Its answer, where that takes time.
    Wait,
    /// A small message with tensors, whole.
    Step,
    /// A chunk of a large one.
    Put,
    /// Its answer, or a chunk of it.
    Get,
}

/// Which of a member's two connections a request takes: behind megabytes a control message would wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Control: small, at once.
    Control,
    /// Tensors.
    Bulk,
}

impl Verb {
    /// Every verb with the lane that it takes.
    pub const ALL: [(Verb, Lane); 5] = [
        (Verb::Call, Lane::Control),
        (Verb::Wait, Lane::Control),
        (Verb::Step, Lane::Bulk),
        (Verb::Put, Lane::Bulk),
        (Verb::Get, Lane::Bulk),
    ];

    fn token(self) -> &'static str {
        match self {
            Verb::Call => "call",
            Verb::Wait => "wait",
            Verb::Step => "step",
            Verb::Put => "put",
            Verb::Get => "get",
        }
    }
}

/// Subjects of one run.
#[derive(Clone, Debug)]
pub struct Subjects {
    run: RunId,
}

impl Subjects {
    /// Of this run.
    pub fn new(run: RunId) -> Self {
        Self { run }
    }

    /// Where `from` sends what is for `to`.
    pub fn to(&self, to: MemberName, verb: Verb, from: MemberName) -> String {
        format!("{}.{}.{from}", self.of(to), verb.token())
    }

    /// All that is for `member` with a verb.
    pub fn all_to(&self, to: MemberName, verb: Verb) -> String {
        format!("{}.{}.*", self.of(to), verb.token())
    }

    /// Where `from` asks for a replica of `stage`.
    pub fn open(&self, stage: u32, from: MemberName) -> String {
        format!("fell.{}.open.{stage}.{from}", self.run)
    }

    /// All that ask for a replica of `stage`.
    pub fn all_open(&self, stage: u32) -> String {
        format!("fell.{}.open.{stage}.*", self.run)
    }

    fn of(&self, member: MemberName) -> String {
        let run = &self.run;
        match member {
            MemberName::Client(_) => format!("fell.{run}.c.{member}"),
            MemberName::Shard(_) => format!("fell.{run}.s.{member}"),
            MemberName::Aggregator => format!("fell.{run}.agg"),
            MemberName::Supervisor => format!("fell.{run}.sup"),
            // Nobody calls an operator.
            MemberName::Operator => format!("fell.{run}.op"),
        }
    }
}

/// Prefix of the subjects that carry answers to `member`.
pub fn inbox(member: MemberName) -> String {
    format!("_INBOX_{member}")
}

/// The sender that a subject names, if the answer goes to that sender and nobody else.
pub fn sender(subject: &str, reply: Option<&str>) -> Result<MemberName, String> {
    let name = subject.rsplit('.').next().unwrap_or_default();
    let from: MemberName = name.parse().map_err(|()| format!("{name:?} is no member"))?;
    let Some(reply) = reply else { return Ok(from) };
    let expected = format!("{}.", inbox(from));
    if reply.starts_with(&expected) {
        return Ok(from);
    }
    Err(format!("{from} wants its answer at {reply:?}, expected a subject below {expected}"))
}

impl FromStr for MemberName {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let member = match text.split_once('-') {
            None => match text {
                "aggregator" => MemberName::Aggregator,
                "supervisor" => MemberName::Supervisor,
                "operator" => MemberName::Operator,
                _ => return Err(()),
            },
            Some(("client", number)) => {
                MemberName::Client(fellrec::ids::ClientId(number.parse().map_err(|_| ())?))
            }
            Some(("shard", numbers)) => {
                let (stage, replica) = numbers.split_once('-').ok_or(())?;
                let number = |text: &str| text.parse().map_err(|_| ());
                MemberName::Shard(ShardId { stage: number(stage)?, replica: number(replica)? })
            }
            Some(_) => return Err(()),
        };
        // One spelling a member: not +3, not 03.
        if member.to_string() == text { Ok(member) } else { Err(()) }
    }
}

#[cfg(test)]
mod tests {
    use fellrec::ids::ClientId;

    use super::*;

    #[test]
    fn names_of_members_read_as_they_are_written() {
        let shard = MemberName::Shard(ShardId { stage: 1, replica: 20 });
        let members = [
            (MemberName::Client(ClientId(3)), "client-3"),
            (shard, "shard-1-20"),
            (MemberName::Aggregator, "aggregator"),
            (MemberName::Supervisor, "supervisor"),
            (MemberName::Operator, "operator"),
        ];
        for (member, name) in members {
            assert_eq!((member.to_string().as_str(), name.parse()), (name, Ok(member)));
        }
        for name in ["", "client", "client-", "client-03", "client-+3", "client--3", "shard-1", "x"]
        {
            assert_eq!(name.parse::<MemberName>(), Err(()), "{name}");
        }
    }

    #[test]
    fn runs_have_names_that_cannot_reach_beyond_their_place() {
        assert!("shops_2026-11".parse::<RunId>().is_ok());
        for name in ["", "a.b", "a b", "*", ">", "é", &"x".repeat(65)] {
            assert!(name.parse::<RunId>().is_err(), "{name}");
        }
    }

    #[test]
    fn a_sender_is_who_the_subject_says_and_is_answered_at_home_only() {
        let subject = "fell.r.agg.call.client-3";
        let client = MemberName::Client(ClientId(3));
        assert_eq!(sender(subject, Some("_INBOX_client-3.a.b")), Ok(client));
        assert_eq!(sender(subject, None), Ok(client));
        for reply in
            ["_INBOX_client-4.a", "_INBOX_client-33.a", "fell.r.agg.call.client-3", "_INBOX.a"]
        {
            let refused = sender(subject, Some(reply)).unwrap_err();
            assert!(refused.contains("client-3") && refused.contains(reply), "{refused}");
        }
        assert!(sender("fell.r.agg.call.nobody", Some("_INBOX_nobody.a")).is_err());
    }

    #[test]
    fn subjects_name_run_receiver_verb_and_sender() {
        let subjects = Subjects::new("r".parse().unwrap());
        let client = MemberName::Client(ClientId(3));
        let shard = MemberName::Shard(ShardId { stage: 0, replica: 1 });
        assert_eq!(subjects.to(shard, Verb::Put, client), "fell.r.s.shard-0-1.put.client-3");
        assert_eq!(
            subjects.to(client, Verb::Call, MemberName::Supervisor),
            "fell.r.c.client-3.call.supervisor"
        );
        assert_eq!(
            subjects.to(MemberName::Aggregator, Verb::Get, shard),
            "fell.r.agg.get.shard-0-1"
        );
        assert_eq!(subjects.all_to(client, Verb::Call), "fell.r.c.client-3.call.*");
        assert_eq!(subjects.open(0, client), "fell.r.open.0.client-3");
    }
}
