//! All decodings of one shard under one bound: who decodes keeps its cache, who waits longest loses it.

use std::collections::BTreeMap;

use super::SplitError;
use super::decode::BodyDecoding;
use crate::ids::ClientId;

/// Caches by client.
#[derive(Debug)]
pub struct DecodePool {
    /// Bytes that all caches together may take.
    limit: u64,
    held: BTreeMap<ClientId, Held>,
    clock: u64,
}

#[derive(Debug)]
struct Held {
    decoding: BodyDecoding,
    used: u64,
}

impl DecodePool {
    /// A pool of at most `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self { limit, held: BTreeMap::new(), clock: 0 }
    }

    /// Runs a client's turn on what its earlier turns left here, and makes room for what is left
    /// then: caches that nobody has used for longest go first.
    ///
    /// # Errors
    /// What `run` returned, or [`SplitError::CacheTooLarge`] if this one alone is over the limit.
    pub fn turn<T>(
        &mut self,
        client: ClientId,
        run: impl FnOnce(&mut Option<BodyDecoding>) -> Result<T, SplitError>,
    ) -> Result<T, SplitError> {
        let mut decoding = self.held.remove(&client).map(|held| held.decoding);
        let answer = run(&mut decoding)?;
        let Some(decoding) = decoding else { return Ok(answer) };
        let needed = decoding.bytes();
        if needed > self.limit {
            return Err(SplitError::CacheTooLarge { needed, limit: self.limit });
        }
        self.make_room(needed);
        self.clock += 1;
        self.held.insert(client, Held { decoding, used: self.clock });
        Ok(answer)
    }

    /// Drops what a client left.
    pub fn drop_client(&mut self, client: ClientId) {
        self.held.remove(&client);
    }

    /// Bytes of all caches.
    pub fn bytes(&self) -> u64 {
        self.held.values().map(|held| held.decoding.bytes()).sum()
    }

    fn make_room(&mut self, needed: u64) {
        while self.bytes() + needed > self.limit {
            let oldest = self.held.iter().min_by_key(|(_, held)| held.used);
            let Some((client, _)) = oldest.map(|(client, held)| (*client, held)) else { return };
            tracing::debug!(%client, "decode cache evicted");
            self.held.remove(&client);
        }
    }
}
