//! `fellrec provision`: the identities of a federation and its broker's configuration, as a folder.
//!
//! ```text
//! federation.toml    the description, as it stands now
//! members.json       who has a certificate until when, and who had one
//! ca/                the authority; whoever has its key can be anybody, and the secrets that payloads are sealed by
//! broker/            what the broker is started with
//! kits/MEMBER/       what that member's node is started with: to be brought there, and nowhere else
//! ```

mod broker;
mod certificates;
mod plan;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use broker::{MAIN_FILE, Rights};
pub use plan::Plan;

use crate::link::sealing::{SealError, SealSecrets};
use crate::node::{KIT_FILE, KitFile, TlsNames};
use crate::registry::MemberName;
use certificates::{Authority, Signed, today};

const PLAN_FILE: &str = "federation.toml";
const LEDGER_FILE: &str = "members.json";
const AUTHORITY_KEY: &str = "ca/ca.key";
const AUTHORITY_CERT: &str = "ca/ca.pem";
/// What sealing keys are derived from.
const SEAL_SECRETS: &str = "ca/seal.toml";
/// A member's sealing keys, within its kit.
const SEAL_FILE: &str = "seal.toml";

/// Why nothing was provisioned.
#[derive(Debug, Error)]
pub enum ProvisionError {
    /// The description cannot be parsed.
    #[error("{path} describes no federation")]
    Plan {
        /// The file.
        path: PathBuf,
        /// Where and why not.
        source: Box<toml::de::Error>,
    },
    /// A value that cannot be.
    #[error("{path}: {key}: got {got:?}, expected {expected}")]
    Setting {
        /// The file.
        path: PathBuf,
        /// Its key.
        key: &'static str,
        /// What it says.
        got: String,
        /// What it could say.
        expected: &'static str,
    },
    /// A file could not be read or written.
    #[error("failed to access {path}")]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something else is there.
    #[error(
        "{path} is not empty: give a new folder, or change this one with add, renew and revoke"
    )]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// The ledger is none.
    #[error("{path} is no ledger of members")]
    Ledger {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// Nobody of that name.
    #[error("{got} is no member, expected one of {expected}")]
    NoMember {
        /// The name.
        got: String,
        /// Who there is, or could be.
        expected: String,
    },
    /// The sealing secrets could not be made.
    #[error("failed to make sealing keys")]
    Seal(#[from] SealError),
    /// The file of the sealing secrets is none.
    #[error("{path} holds no sealing secrets: {why}")]
    SealSecrets {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Certificates could not be made.
    #[error("failed to make a certificate")]
    Certificate(#[from] rcgen::Error),
}

/// What is known of one member's certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Last day on which it holds.
    pub until: Date,
    /// Day on which it was revoked.
    pub revoked: Option<Date>,
}

/// Members by name.
pub type Ledger = BTreeMap<String, Entry>;

/// The folder of a provisioned federation.
pub struct Provision {
    root: PathBuf,
    plan: Plan,
    ledger: Ledger,
}

impl Provision {
    /// Makes everything anew in an empty folder.
    ///
    /// # Errors
    /// Every [`ProvisionError`].
    pub fn create(plan: Plan, root: &Path) -> Result<Self, ProvisionError> {
        if fs::read_dir(root).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(ProvisionError::Occupied { path: root.to_owned() });
        }
        let (authority, signed) = Authority::new(&plan.run)?;
        let (host, _) = plan.host_and_port().expect("checked when it was parsed");
        let server = authority.broker(host, plan.days)?;
        let mut provision = Self { root: root.to_owned(), plan, ledger: Ledger::new() };
        provision.write(AUTHORITY_CERT, &signed.cert, PUBLIC)?;
        provision.write(AUTHORITY_KEY, &signed.key, SECRET)?;
        provision.write("broker/ca.pem", &signed.cert, PUBLIC)?;
        provision.write("broker/server.pem", &server.cert, PUBLIC)?;
        provision.write("broker/server.key", &server.key, SECRET)?;
        if provision.plan.seal {
            let secrets =
                toml::to_string(&SealSecrets::generate()?).expect("secrets are plain data");
            provision.write(SEAL_SECRETS, &secrets, SECRET)?;
        }
        for member in provision.plan.members() {
            provision.issue(&authority, member)?;
        }
        provision.write(&format!("broker/{MAIN_FILE}"), &broker::main(&provision.plan), PUBLIC)?;
        provision.save()?;
        Ok(provision)
    }

    /// Reads a folder that [`Provision::create`] made.
    ///
    /// # Errors
    /// It is none, or cannot be read.
    pub fn open(root: &Path) -> Result<Self, ProvisionError> {
        let read = |name: &str| {
            let path = root.join(name);
            fs::read_to_string(&path)
                .map_err(|source| ProvisionError::Io { path: path.clone(), source })
                .map(|text| (path, text))
        };
        let (path, text) = read(PLAN_FILE)?;
        let plan = Plan::parse(&text, &path)?;
        let (path, text) = read(LEDGER_FILE)?;
        let ledger = serde_json::from_str(&text)
            .map_err(|source| ProvisionError::Ledger { path, source })?;
        Ok(Self { root: root.to_owned(), plan, ledger })
    }

    /// The description, as it stands now.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Who has a certificate, and who had one.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The kit of a member.
    pub fn kit(&self, member: MemberName) -> PathBuf {
        self.root.join("kits").join(member.to_string())
    }

    /// The broker's folder.
    pub fn broker(&self) -> PathBuf {
        self.root.join("broker")
    }

    /// Adds the next client or the next replica, or somebody who was revoked.
    ///
    /// # Errors
    /// There is no such next one, or it has a certificate that holds.
    pub fn add(&mut self, name: &str) -> Result<(), ProvisionError> {
        let member = name.parse().ok().filter(|member| self.plan.widen(*member));
        let free = |member: &MemberName| {
            self.ledger.get(&member.to_string()).is_none_or(|entry| entry.revoked.is_some())
        };
        let member = member.filter(free).ok_or_else(|| self.no_member(name, true))?;
        self.reissue(member)
    }

    /// Gives a member a new key and a new certificate.
    ///
    /// # Errors
    /// No such member.
    pub fn renew(&mut self, name: &str) -> Result<(), ProvisionError> {
        let member = self.current(name)?;
        self.reissue(member)
    }

    /// Takes a member's rights: the broker no longer lets it in once it has reloaded.
    ///
    /// # Errors
    /// No such member.
    pub fn revoke(&mut self, name: &str) -> Result<(), ProvisionError> {
        let member = self.current(name)?;
        if let Some(entry) = self.ledger.get_mut(&member.to_string()) {
            entry.revoked = Some(today());
        }
        self.save()
    }

    fn current(&self, name: &str) -> Result<MemberName, ProvisionError> {
        let holds = self.ledger.get(name).is_some_and(|entry| entry.revoked.is_none());
        name.parse().ok().filter(|_| holds).ok_or_else(|| self.no_member(name, false))
    }

    fn no_member(&self, got: &str, adding: bool) -> ProvisionError {
        let expected = match adding {
            true => {
                let next = format!("client-{}", self.plan.clients);
                let shards = (0..self.plan.stages)
                    .map(|stage| format!("shard-{stage}-{}", self.plan.replicas));
                let revoked = self.ledger.iter().filter(|(_, entry)| entry.revoked.is_some());
                let revoked = revoked.map(|(name, _)| name.clone());
                std::iter::once(next).chain(shards).chain(revoked).collect::<Vec<_>>()
            }
            false => {
                let holding = self.ledger.iter().filter(|(_, entry)| entry.revoked.is_none());
                holding.map(|(name, _)| name.clone()).collect()
            }
        };
        ProvisionError::NoMember { got: got.to_owned(), expected: expected.join(", ") }
    }

    fn reissue(&mut self, member: MemberName) -> Result<(), ProvisionError> {
        let path = self.root.join(AUTHORITY_KEY);
        let key =
            fs::read_to_string(&path).map_err(|source| ProvisionError::Io { path, source })?;
        self.issue(&Authority::from_key(&self.plan.run, &key)?, member)?;
        self.save()
    }

    fn issue(&mut self, authority: &Authority, member: MemberName) -> Result<(), ProvisionError> {
        let Signed { cert, key, until } =
            authority.member(member, &self.plan.run, self.plan.days)?;
        let kit = KitFile {
            run: self.plan.run.clone(),
            member: member.to_string(),
            broker: self.plan.broker.clone(),
            replicas: self.plan.replicas,
            tls: Some(TlsNames {
                ca: "ca.pem".into(),
                cert: "cert.pem".into(),
                key: "key.pem".into(),
            }),
            seal: self.plan.seal.then(|| SEAL_FILE.into()),
        };
        let file = |name: &str| format!("kits/{member}/{name}");
        let text = toml::to_string(&kit).expect("a kit is plain data");
        self.write(&file(KIT_FILE), &text, PUBLIC)?;
        let ca = self.root.join(AUTHORITY_CERT);
        let ca =
            fs::read_to_string(&ca).map_err(|source| ProvisionError::Io { path: ca, source })?;
        self.write(&file("ca.pem"), &ca, PUBLIC)?;
        self.write(&file("cert.pem"), &cert, PUBLIC)?;
        self.write(&file("key.pem"), &key, SECRET)?;
        if self.plan.seal {
            let keys = self.seal_secrets()?.keys_of(member);
            let keys = toml::to_string(&keys).expect("keys are plain data");
            self.write(&file(SEAL_FILE), &keys, SECRET)?;
        }
        self.write(&file("START"), &start(member), PUBLIC)?;
        if let Some(config) = &self.plan.config {
            let text = fs::read_to_string(config)
                .map_err(|source| ProvisionError::Io { path: config.clone(), source })?;
            self.write(&file("config.toml"), &text, PUBLIC)?;
        }
        self.ledger.insert(member.to_string(), Entry { until, revoked: None });
        Ok(())
    }

    fn seal_secrets(&self) -> Result<SealSecrets, ProvisionError> {
        let path = self.root.join(SEAL_SECRETS);
        let text = fs::read_to_string(&path)
            .map_err(|source| ProvisionError::Io { path: path.clone(), source })?;
        toml::from_str(&text).map_err(|source| {
            // Without the line that it is in: it would show the secret.
            ProvisionError::SealSecrets { path, why: source.message().to_owned() }
        })
    }

    /// Writes who is let in, and the description.
    fn save(&self) -> Result<(), ProvisionError> {
        let holding = self.ledger.iter().filter(|(_, entry)| entry.revoked.is_none());
        let members = holding.filter_map(|(name, _)| name.parse().ok());
        let text = broker::members(&self.plan, members);
        self.write(&format!("broker/{}", broker::MEMBERS_FILE), &text, PUBLIC)?;
        let ledger = serde_json::to_string_pretty(&self.ledger).expect("a ledger is plain data");
        self.write(LEDGER_FILE, &ledger, PUBLIC)?;
        let mut plan = self.plan.clone();
        plan.config = plan.config.map(|config| std::path::absolute(&config).unwrap_or(config));
        let plan = toml::to_string(&plan).expect("a description is plain data");
        self.write(PLAN_FILE, &plan, PUBLIC)
    }

    /// Writes a file whole or not at all, with its mode from the start; folders are the owner's alone.
    fn write(&self, name: &str, text: &str, mode: u32) -> Result<(), ProvisionError> {
        let path = self.root.join(name);
        let failed = |source| ProvisionError::Io { path: path.clone(), source };
        let folder = path.parent().unwrap_or(&self.root);
        create_private(folder).map_err(failed)?;
        let mut file = tempfile::Builder::new()
            .permissions(permissions(mode))
            .tempfile_in(folder)
            .map_err(failed)?;
        io::Write::write_all(&mut file, text.as_bytes()).map_err(failed)?;
        file.persist(&path).map_err(|error| failed(error.error))?;
        Ok(())
    }
}

const SECRET: u32 = 0o600;
const PUBLIC: u32 = 0o644;

fn permissions(mode: u32) -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(mode)
}

fn create_private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// How the member is started, for whoever has the kit.
fn start(member: MemberName) -> String {
    let more = match member {
        MemberName::Client(_) => {
            " --data DATA\n\nDATA is the folder with the public catalogue and this client's interactions."
        }
        MemberName::Shard(_) => {
            " --data DATA --store STORE\n\nDATA is the folder with the public catalogue, STORE the folder that all \
             replicas of the stage share."
        }
        MemberName::Operator => {
            return "fellrec status --kit .\n".to_owned();
        }
        MemberName::Aggregator | MemberName::Supervisor => {
            " --data DATA\n\nDATA is the folder with the public catalogue."
        }
    };
    format!("fellrec node --kit .{more}\n")
}
