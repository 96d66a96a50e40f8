//! The description of a federation that its kits are made from.

use std::path::{Path, PathBuf};

use fellrec::ids::{ClientId, ShardId};
use serde::{Deserialize, Serialize};

use super::ProvisionError;
use crate::link::subjects::RunId;
use crate::registry::MemberName;

/// Days that certificates hold where the description does not say.
const DAYS: u16 = 365;

/// `fed.toml`: who takes part, and where the broker is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Name of the run, part of every subject.
    pub run: RunId,
    /// Address of the broker as members dial it, `host:port`.
    pub broker: String,
    /// Clients, numbered from 0.
    pub clients: u32,
    /// Stages of the server's blocks.
    #[serde(default = "one")]
    pub stages: u32,
    /// Shards of each stage.
    #[serde(default = "one")]
    pub replicas: u32,
    /// Days that certificates hold.
    #[serde(default = "days")]
    pub days: u16,
    /// Whether payloads are sealed, so that the broker's operator reads none.
    #[serde(default = "yes")]
    pub seal: bool,
    /// The run's configuration, copied into every kit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<PathBuf>,
}

fn one() -> u32 {
    1
}

fn yes() -> bool {
    true
}

fn days() -> u16 {
    DAYS
}

impl Plan {
    /// Parses and checks a description; `path` is for messages, and relative paths start from its folder.
    ///
    /// # Errors
    /// [`ProvisionError::Plan`], [`ProvisionError::Setting`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ProvisionError> {
        let mut plan: Self = toml::from_str(text).map_err(|source| ProvisionError::Plan {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        let counts = [
            ("clients", plan.clients),
            ("stages", plan.stages),
            ("replicas", plan.replicas),
            ("days", u32::from(plan.days)),
        ];
        for (key, got) in counts {
            if got == 0 {
                return Err(plan_error(path, key, "0", "at least 1"));
            }
        }
        if plan.host_and_port().is_none() {
            let expected = "host:port, such as broker.example.org:4222";
            return Err(plan_error(path, "broker", &plan.broker, expected));
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        plan.config = plan.config.map(|config| folder.join(config));
        Ok(plan)
    }

    /// The broker's host and port.
    pub fn host_and_port(&self) -> Option<(&str, u16)> {
        let (host, port) = self.broker.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = port.parse().ok().filter(|port| *port > 0)?;
        (!host.is_empty()).then_some((host, port))
    }

    /// Everybody, an operator with a console included.
    pub fn members(&self) -> Vec<MemberName> {
        let shards = (0..self.stages).flat_map(|stage| {
            (0..self.replicas).map(move |replica| MemberName::Shard(ShardId { stage, replica }))
        });
        [MemberName::Supervisor, MemberName::Aggregator, MemberName::Operator]
            .into_iter()
            .chain(shards)
            .chain((0..self.clients).map(|client| MemberName::Client(ClientId(client))))
            .collect()
    }

    /// Makes room for another member: the next client, or the next replica of every stage.
    pub fn widen(&mut self, member: MemberName) -> bool {
        match member {
            MemberName::Client(ClientId(client)) if client == self.clients => self.clients += 1,
            MemberName::Shard(ShardId { stage, replica })
                if stage < self.stages && replica == self.replicas =>
            {
                self.replicas += 1;
            }
            _ => return self.members().contains(&member),
        }
        true
    }
}

fn plan_error(path: &Path, key: &'static str, got: &str, expected: &'static str) -> ProvisionError {
    ProvisionError::Setting { path: path.to_owned(), key, got: got.to_owned(), expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = "run = \"shops\"\nbroker = \"nats.example.org:4222\"\nclients = 2\n";

    fn parse(text: &str) -> Result<Plan, ProvisionError> {
        Plan::parse(text, Path::new("plans/fed.toml"))
    }

    #[test]
    fn a_short_description_is_enough() {
        let plan = parse(&format!("{PLAN}replicas = 2\nconfig = \"demo.toml\"\n")).unwrap();
        let names: Vec<String> = plan.members().iter().map(MemberName::to_string).collect();
        let expected = [
            "supervisor",
            "aggregator",
            "operator",
            "shard-0-0",
            "shard-0-1",
            "client-0",
            "client-1",
        ];
        assert_eq!(names, expected);
        assert_eq!(plan.config, Some("plans/demo.toml".into()));
        assert_eq!(plan.host_and_port(), Some(("nats.example.org", 4222)));
    }

    #[test]
    fn what_is_wrong_is_named_with_what_was_expected() {
        let cases = [
            ("clients = 2", "clients = 0", "clients"),
            ("nats.example.org:4222", "nats.example.org", "broker"),
            ("nats.example.org:4222", ":0", "broker"),
            ("\"shops\"", "\"my shops\"", "A-Z"),
            ("clients", "cleints", "cleints"),
        ];
        for (from, to, named) in cases {
            let error = parse(&PLAN.replace(from, to)).unwrap_err();
            let message = fellrec::told::chain(&error);
            assert!(message.contains(named) && message.contains("fed.toml"), "{message}");
        }
    }

    #[test]
    fn only_the_next_one_can_be_added() {
        let mut plan = parse(PLAN).unwrap();
        for (name, fits) in
            [("client-2", true), ("client-4", false), ("shard-0-1", true), ("shard-1-0", false)]
        {
            assert_eq!(plan.widen(name.parse().unwrap()), fits, "{name}");
        }
        assert_eq!((plan.clients, plan.replicas), (3, 2));
    }
}
