//! Rules of the section `nodes`.

use crate::config::Config;
use crate::config::checks::Checks;

/// Chunks of more than 1 MiB hold up the broker; smaller ones than 16 KiB cost more than they carry.
const CHUNK_KIB: std::ops::RangeInclusive<u32> = 16..=1024;

impl Config {
    pub(super) fn check_nodes(&self, checks: &mut Checks) {
        let nodes = &self.nodes;
        let (chunk, held, message) = (nodes.chunk_kib, nodes.held_mib, nodes.max_message_mib);
        let legal = CHUNK_KIB.contains(&chunk.get());
        checks.require(legal, "nodes.chunk_kib", chunk, "must be in 16..=1024");
        let fits = held >= message;
        checks.require(fits, "nodes.held_mib", held, "must be at least nodes.max_message_mib");
    }
}
