//! What the supervisor keeps with the broker: the right to supervise, and its last commit for whoever takes
//! its place (protocol.md 1).
//!
//! The right is one key that is only ever changed by who knows its last revision: a second supervisor cannot
//! hold it, and the first one notices when it has lost it. The commit is one object.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::kv::{self, UpdateErrorKind};
use async_nats::jetstream::object_store::{self, ObjectStore};
use async_nats::jetstream::{self, stream::StorageType};
use fellrec::split::wire;
use fellrec::told::chain;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

use super::connection::Connection;
use super::subjects::RunId;
use crate::supervisor::{Keeper, KeptCommit, Pending};

/// The key of the right to supervise.
const KEY: &str = "supervisor";
/// The object of the last commit.
const COMMIT: &str = "commit";
/// Pause between two words that the supervisor is alive.
const HOLD: Duration = Duration::from_secs(2);
/// A right that has not been renewed for that long is free.
const FREE_AFTER: Duration = Duration::from_secs(8);

/// Why the right to supervise is not ours.
#[derive(Clone, Debug, Error)]
pub enum FenceError {
    /// Somebody else holds it and is alive.
    #[error(
        "another supervisor of run {run} is alive: it renewed its right {} s ago; stop it first",
        ago.as_secs()
    )]
    Held {
        /// The run.
        run: RunId,
        /// When it was heard of.
        ago: Duration,
    },
    /// Somebody else took it.
    #[error(
        "another supervisor of run {run} has taken over; this one stops, its last commit stands"
    )]
    Taken {
        /// The run.
        run: RunId,
    },
    /// The broker's store does not answer.
    #[error("the broker's store does not answer: {cause}; is JetStream on, and its disk not full?")]
    Away {
        /// What was seen last.
        cause: String,
    },
}

/// The value of the key.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Right {
    /// Life of the supervisor.
    life: u64,
    /// Supervisors before it.
    epoch: u32,
}

/// The right to supervise a run, held.
pub struct Fence {
    run: RunId,
    right: Right,
    keys: kv::Store,
    objects: ObjectStore,
    revision: Mutex<u64>,
    patience: Duration,
}

impl Fence {
    /// Takes the right, if it is free; waits to see whether who holds it is alive, unless that is `dead`, a
    /// life that is known to be over.
    ///
    /// # Errors
    /// [`FenceError::Held`]; [`FenceError::Away`] after as long as `patience`.
    pub async fn take(
        connection: &Connection,
        run: &RunId,
        life: u64,
        dead: Option<u64>,
        patience: Duration,
    ) -> Result<Self, FenceError> {
        let started = Instant::now();
        loop {
            match Self::try_take(connection, run.clone(), life, dead, patience).await {
                Err(FenceError::Away { cause }) if started.elapsed() < patience => {
                    debug!(cause, "the broker's store does not answer");
                    sleep(Duration::from_millis(500)).await;
                }
                taken => return taken,
            }
        }
    }

    async fn try_take(
        connection: &Connection,
        run: RunId,
        life: u64,
        dead: Option<u64>,
        patience: Duration,
    ) -> Result<Self, FenceError> {
        let away = |error: &dyn std::error::Error| FenceError::Away { cause: chain(error) };
        let context = jetstream::new(connection.client().clone());
        let bucket = format!("fell-{run}");
        let config = kv::Config {
            bucket: bucket.clone(),
            storage: StorageType::File,
            history: 1,
            max_value_size: 1 << 10,
            max_bytes: 16 << 10,
            ..Default::default()
        };
        let keys =
            context.create_or_update_key_value(config).await.map_err(|error| away(&error))?;
        let objects = match context.get_object_store(&bucket).await {
            Ok(objects) => objects,
            Err(_) => {
                let config = object_store::Config {
                    bucket,
                    storage: StorageType::File,
                    ..Default::default()
                };
                context.create_object_store(config).await.map_err(|error| away(&error))?
            }
        };
        let (right, revision) = seize(&keys, &run, life, dead).await?;
        let revision = Mutex::new(revision);
        Ok(Self { run, right, keys, objects, revision, patience })
    }

    /// Supervisors before this one.
    pub fn epoch(&self) -> u32 {
        self.right.epoch
    }

    /// Makes sure that the right is still ours.
    ///
    /// # Errors
    /// [`FenceError::Taken`]; [`FenceError::Away`] after as long as `nodes.absence_secs`.
    pub async fn hold(&self) -> Result<(), FenceError> {
        let value = wire::encode(&self.right).expect("two numbers can be written");
        let started = Instant::now();
        let mut revision = self.revision.lock().await;
        loop {
            let cause = match self.keys.update(KEY, value.clone().into(), *revision).await {
                Ok(next) => {
                    *revision = next;
                    return Ok(());
                }
                Err(error) => {
                    // An update whose acknowledgement was lost has changed the revision as well.
                    match current(&self.keys).await {
                        Ok(Some((right, now))) if right.life == self.right.life => {
                            *revision = now;
                            if error.kind() != UpdateErrorKind::WrongLastRevision {
                                // It is ours, though it cannot be renewed, as with a full store.
                                warn!(
                                    error = chain(&error),
                                    "the right to supervise is not renewed"
                                );
                                return Ok(());
                            }
                            continue;
                        }
                        Ok(_) => return Err(FenceError::Taken { run: self.run.clone() }),
                        Err(cause) => cause,
                    }
                }
            };
            if started.elapsed() > self.patience {
                return Err(FenceError::Away { cause });
            }
            debug!(cause, "the broker's store does not answer");
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// Keeps a commit for whoever takes this supervisor's place. That it could not be kept is told, and
    /// stops nothing: it is on this machine's disk.
    pub async fn keep(&self, commit: &KeptCommit) {
        let frame = wire::encode(commit).expect("texts can be written");
        let kept = timeout(self.patience, self.objects.put(COMMIT, &mut frame.as_slice())).await;
        let error = match kept {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(chain(&error)),
            Err(late) => Some(chain(&late)),
        };
        if let Some(error) = error {
            warn!(
                error,
                "the commit is kept on this machine alone: the broker's store did not take it"
            );
        }
    }

    /// The last commit that was kept.
    ///
    /// # Errors
    /// [`FenceError::Away`].
    pub async fn kept(&self) -> Result<Option<KeptCommit>, FenceError> {
        let away = |error: &dyn std::error::Error| FenceError::Away { cause: chain(error) };
        let mut object = match self.objects.get(COMMIT).await {
            Ok(object) => object,
            Err(error) if error.kind() == object_store::GetErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(away(&error)),
        };
        let mut commit = Vec::new();
        object.read_to_end(&mut commit).await.map_err(|error| away(&error))?;
        wire::decode(&commit).map(Some).map_err(|error| away(&error))
    }
}

/// A fence that its supervisor can be given.
pub struct Held(pub Arc<Fence>);

impl Keeper for Held {
    fn hold(&self) -> Pending<Result<(), String>> {
        let fence = Arc::clone(&self.0);
        Box::pin(async move { fence.hold().await.map_err(|error| chain(&error)) })
    }

    fn lost(&self) -> Pending<String> {
        let fence = Arc::clone(&self.0);
        Box::pin(async move {
            loop {
                sleep(HOLD).await;
                if let Err(error) = fence.hold().await {
                    return chain(&error);
                }
            }
        })
    }

    fn keep(&self, commit: KeptCommit) -> Pending<()> {
        let fence = Arc::clone(&self.0);
        Box::pin(async move { fence.keep(&commit).await })
    }
}

async fn seize(
    keys: &kv::Store,
    run: &RunId,
    life: u64,
    dead: Option<u64>,
) -> Result<(Right, u64), FenceError> {
    let away = |cause| FenceError::Away { cause };
    let started = Instant::now();
    let first = current(keys).await.map_err(away)?;
    let Some((held, mut revision)) = first else {
        let right = Right { life, epoch: 0 };
        let value = wire::encode(&right).expect("two numbers can be written");
        let revision = match keys.create(KEY, value.into()).await {
            Ok(revision) => revision,
            Err(error) if error.kind() == kv::CreateErrorKind::AlreadyExists => {
                return Err(FenceError::Held { run: run.clone(), ago: Duration::ZERO });
            }
            Err(error) => return Err(away(chain(&error))),
        };
        return Ok((right, revision));
    };
    // Whoever is alive renews it, and with that its revision.
    while dead != Some(held.life) && started.elapsed() < FREE_AFTER {
        sleep(HOLD / 4).await;
        match current(keys).await.map_err(away)? {
            Some((_, now)) if now != revision => {
                return Err(FenceError::Held { run: run.clone(), ago: Duration::ZERO });
            }
            Some((_, now)) => revision = now,
            None => break,
        }
    }
    let right = Right { life, epoch: held.epoch + 1 };
    let value = wire::encode(&right).expect("two numbers can be written");
    let revision =
        keys.update(KEY, value.into(), revision).await.map_err(|error| match error.kind() {
            UpdateErrorKind::WrongLastRevision => {
                FenceError::Held { run: run.clone(), ago: Duration::ZERO }
            }
            _ => away(chain(&error)),
        })?;
    Ok((right, revision))
}

/// Who holds the right, and its revision.
async fn current(keys: &kv::Store) -> Result<Option<(Right, u64)>, String> {
    let entry = keys.entry(KEY).await.map_err(|error| chain(&error))?;
    let Some(entry) = entry else { return Ok(None) };
    let right = wire::decode(&entry.value).map_err(|error| chain(&error))?;
    Ok(Some((right, entry.revision)))
}
