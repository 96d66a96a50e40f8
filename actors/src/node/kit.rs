//! A member's kit: who it is, where the broker is, and the files that prove it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::link::connection::{Dial, TlsFiles};
use crate::link::sealing::{SealKeys, Sealer};
use crate::link::subjects::RunId;
use crate::registry::MemberName;

/// Name of the file that describes a kit, within its folder.
pub const KIT_FILE: &str = "kit.toml";

/// Why a kit cannot be used.
#[derive(Debug, Error)]
pub enum KitError {
    /// A file cannot be read.
    #[error("failed to read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is no kit.
    #[error("{path} describes no kit")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why not.
        source: Box<toml::de::Error>,
    },
    /// It names nobody.
    #[error(
        "{path}: member is {got:?}, expected client-N, shard-STAGE-REPLICA, aggregator, supervisor or operator"
    )]
    Member {
        /// The file.
        path: PathBuf,
        /// What it says.
        got: String,
    },
    /// The file of the sealing keys is none.
    #[error("{path} holds no sealing keys: {why}")]
    SealKeys {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Others could read the key.
    #[error(
        "{path} has mode {got:o}, expected 600: others could act as this member; run chmod 600"
    )]
    OpenKey {
        /// The key.
        path: PathBuf,
        /// Its mode.
        got: u32,
    },
}

/// A kit as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KitFile {
    /// Name of the run.
    pub run: RunId,
    /// Who this is.
    pub member: String,
    /// Address of the broker, `host:port`.
    pub broker: String,
    /// Shards of each stage.
    pub replicas: u32,
    /// Certificates; a broker without any is for trials on one machine.
    pub tls: Option<TlsNames>,
    /// File of the keys that keep payloads from the broker; without it the broker can read them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal: Option<PathBuf>,
}

/// Names of the certificates' files within the kit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsNames {
    /// The federation's own authority.
    pub ca: PathBuf,
    /// This member's certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// A kit that was read and checked.
#[derive(Clone, Debug)]
pub struct Kit {
    /// Name of the run.
    pub run: RunId,
    /// Who this is.
    pub member: MemberName,
    /// Address of the broker.
    pub broker: String,
    /// Shards of each stage.
    pub replicas: u32,
    /// Certificates.
    pub tls: Option<TlsFiles>,
    /// Keys that keep payloads from the broker.
    pub seal: Option<SealKeys>,
    /// The folder.
    pub folder: PathBuf,
}

impl Kit {
    /// Reads the kit in a folder.
    ///
    /// # Errors
    /// Every [`KitError`].
    pub fn read(folder: &Path) -> Result<Self, KitError> {
        let path = folder.join(KIT_FILE);
        let text = fs::read_to_string(&path)
            .map_err(|source| KitError::Read { path: path.clone(), source })?;
        let file: KitFile = toml::from_str(&text)
            .map_err(|source| KitError::Parse { path: path.clone(), source: Box::new(source) })?;
        let KitFile { run, member, broker, replicas, tls, seal } = file;
        let Ok(member) = member.parse() else {
            return Err(KitError::Member { path, got: member });
        };
        let tls = tls.map(|TlsNames { ca, cert, key }| TlsFiles {
            ca: folder.join(ca),
            cert: folder.join(cert),
            key: folder.join(key),
        });
        if let Some(tls) = &tls {
            check_key(&tls.key)?;
        }
        let seal = seal.map(|name| seal_keys(&folder.join(name))).transpose()?;
        let folder = folder.to_owned();
        Ok(Self { run, member, broker, replicas, tls, seal, folder })
    }

    /// Seals this member's payloads, if its kit has keys for that.
    pub fn sealer(&self) -> Option<Sealer> {
        let keys = self.seal.clone()?;
        Some(Sealer::new(self.member, self.run.clone(), keys))
    }

    /// The config that came with the kit.
    pub fn config(&self) -> PathBuf {
        self.folder.join("config.toml")
    }

    pub(super) fn dial(&self, patience: Duration) -> Dial {
        Dial { broker: self.broker.clone(), member: self.member, tls: self.tls.clone(), patience }
    }
}

fn seal_keys(path: &Path) -> Result<SealKeys, KitError> {
    check_key(path)?;
    let text = fs::read_to_string(path)
        .map_err(|source| KitError::Read { path: path.to_owned(), source })?;
    toml::from_str(&text).map_err(|source| {
        // What is wrong is said without the line that it is in: it would show the key.
        let why = source.message().to_owned();
        KitError::SealKeys { path: path.to_owned(), why }
    })
}

#[cfg(unix)]
fn check_key(path: &Path) -> Result<(), KitError> {
    use std::os::unix::fs::PermissionsExt;
    let found =
        fs::metadata(path).map_err(|source| KitError::Read { path: path.to_owned(), source })?;
    let got = found.permissions().mode() & 0o777;
    if got & 0o077 == 0 {
        return Ok(());
    }
    Err(KitError::OpenKey { path: path.to_owned(), got })
}
