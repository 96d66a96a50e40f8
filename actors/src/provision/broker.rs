//! The broker's configuration: mutual TLS, who may publish and hear what, limits.
//!
//! Nobody may anything that is not listed. Members are in a file of their own, so that adding, renewing or
//! revoking one changes that file alone, and a reload disturbs nobody.

use std::fmt::Write;

use super::certificates::user;
use super::plan::Plan;
use crate::link::subjects::{SHARDS, inbox};
use crate::registry::MemberName;

/// Name of the main file within the broker's folder.
pub const MAIN_FILE: &str = "nats.conf";
/// Name of the members' file within the broker's folder.
pub const MEMBERS_FILE: &str = "members.conf";

/// Subjects that a member may publish to and hear.
#[derive(Debug, PartialEq, Eq)]
pub struct Rights {
    /// May publish to.
    pub publish: Vec<String>,
    /// May hear; `subject queue` stands for a queue group.
    pub subscribe: Vec<String>,
    /// Whether others ask it things.
    pub answers: bool,
}

impl Rights {
    /// Of a member of a run.
    pub fn of(member: MemberName, run: &str) -> Self {
        let to = |what: &str| format!("fell.{run}.{what}.{member}");
        let own = |what: String| format!("fell.{run}.{what}.>");
        let answers = format!("{}.>", inbox(member));
        let (publish, subscribe) = match member {
            MemberName::Client(_) => (
                vec![to("open.*"), to("s.*.*"), to("agg.*"), to("sup.*")],
                vec![own(format!("c.{member}")), answers],
            ),
            MemberName::Shard(shard) => (
                vec![to("agg.*"), to("sup.*")],
                vec![
                    own(format!("s.{member}")),
                    format!("fell.{run}.open.{}.* {SHARDS}", shard.stage),
                    answers,
                ],
            ),
            MemberName::Aggregator => {
                (vec![to("c.*.*"), to("s.*.*"), to("sup.*")], vec![own("agg".to_owned()), answers])
            }
            MemberName::Supervisor => (
                [
                    vec![to("c.*.*"), to("s.*.*"), to("agg.*")],
                    ["$JS.API.>", "$JS.ACK.>", "$KV.>", "$O.>"].map(str::to_owned).to_vec(),
                ]
                .concat(),
                vec![own("sup".to_owned()), answers],
            ),
            MemberName::Operator => (vec![to("sup.*")], vec![answers]),
        };
        Self { publish, subscribe, answers: member != MemberName::Operator }
    }
}

/// The members' file.
pub fn members(plan: &Plan, members: impl IntoIterator<Item = MemberName>) -> String {
    let run = plan.run.to_string();
    let mut text =
        String::from("# Written by fellrec provision. Who is not here is not let in.\nusers = [\n");
    for member in members {
        let Rights { publish, subscribe, answers } = Rights::of(member, &run);
        let list = |subjects: &[String]| format!("[\"{}\"]", subjects.join("\", \""));
        let answers =
            if answers { "\n      allow_responses: { max: 1, expires: \"1m\" }" } else { "" };
        let _ = write!(
            text,
            "  {{\n    user: \"{}\"\n    permissions: {{\n      publish: {{ allow: {} }}\n      \
             subscribe: {{ allow: {} }}{answers}\n    }}\n  }}\n",
            user(member, &plan.run),
            list(&publish),
            list(&subscribe),
        );
    }
    text.push_str("]\n");
    text
}

/// The main file. Relative names are within the folder that the broker is started from.
pub fn main(plan: &Plan) -> String {
    let port = plan.host_and_port().map_or(4222, |(_, port)| port);
    format!(
        "# Written by fellrec provision for run {run}. Start it within this folder:\n\
         #   nats-server -c {MAIN_FILE}\n\
         # and after members were added, renewed or revoked:\n\
         #   nats-server --signal reload\n\
         server_name: \"fellrec-{run}\"\n\
         port: {port}\n\
         pid_file: \"nats.pid\"\n\
         # A chunk of nodes.chunk_kib and its head.\n\
         max_payload: 2MB\n\
         # What the broker holds for one receiver: twice credits times chunk, for every sender at once.\n\
         max_pending: 256MB\n\
         write_deadline: \"10s\"\n\
         max_connections: {connections}\n\
         tls {{\n  \
           cert_file: \"server.pem\"\n  key_file: \"server.key\"\n  ca_file: \"ca.pem\"\n  \
           # The address in a member's certificate is its user.\n  verify_and_map: true\n  timeout: 5\n\
         }}\n\
         jetstream {{\n  \
           store_dir: \"jetstream\"\n  sync_interval: always\n  max_memory_store: 64MB\n  \
           max_file_store: 4GB\n\
         }}\n\
         authorization {{\n  include \"{MEMBERS_FILE}\"\n}}\n",
        run = plan.run,
        // Two for each member, twice over while they reconnect.
        connections = 4 * plan.members().len().max(16) * 2,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_may_send_as_itself_and_hear_itself() {
        let rights = Rights::of("client-3".parse().unwrap(), "r");
        let publish = [
            "fell.r.open.*.client-3",
            "fell.r.s.*.*.client-3",
            "fell.r.agg.*.client-3",
            "fell.r.sup.*.client-3",
        ];
        assert_eq!(rights.publish, publish);
        assert_eq!(rights.subscribe, ["fell.r.c.client-3.>", "_INBOX_client-3.>"]);
    }

    #[test]
    fn only_the_supervisor_reaches_the_store_and_nobody_reaches_everything() {
        let plan = Plan::parse(
            "run = \"r\"\nbroker = \"b:1\"\nclients = 2\nreplicas = 2\n",
            std::path::Path::new("fed.toml"),
        );
        for member in plan.unwrap().members() {
            let rights = Rights::of(member, "r");
            let all = [&rights.publish[..], &rights.subscribe[..]].concat();
            let stores = all.iter().any(|subject| subject.starts_with('$'));
            assert_eq!(stores, member == MemberName::Supervisor, "{member}");
            assert!(all.iter().all(|subject| !["*", ">", "fell.>"].contains(&subject.as_str())));
            let own = format!(".{member}");
            let as_itself = |subject: &String| subject.starts_with('$') || subject.ends_with(&own);
            assert!(rights.publish.iter().all(as_itself), "{member}");
        }
    }
}
