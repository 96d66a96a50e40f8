//! Where random numbers come from: every draw of a run has its own generator, named by what it is for.
//!
//! Nothing keeps random state (protocol.md 1): a generator is derived again from the run's seed, a
//! purpose and the numbers that tell its uses apart (client, round, step). Draws therefore do not
//! depend on the order in which actors ran, and a resumed run draws what an undisturbed one draws.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use sha2::{Digest, Sha256};

/// Separates these keys from any other use of SHA-256; the number changes when the derivation does.
const DOMAIN: &[u8] = b"fellrec seed 1";

/// Generator of one purpose. Equal arguments give equal streams; any difference gives unrelated ones.
///
/// `purpose` is a short fixed text such as `"batch order"`; `parts` are the ids that tell its uses
/// apart, in an order the purpose fixes, such as `[client, round, step]`.
///
/// The key is SHA-256 over the domain, the run seed, the length of the purpose, the purpose and
/// the parts (integers as 64 bits, little endian). The length keeps a purpose from running into its parts.
pub fn rng(run_seed: u64, purpose: &str, parts: &[u64]) -> ChaCha8Rng {
    let mut hasher = Sha256::new();
    hasher.update(DOMAIN);
    hasher.update(run_seed.to_le_bytes());
    hasher.update((purpose.len() as u64).to_le_bytes());
    hasher.update(purpose.as_bytes());
    for part in parts {
        hasher.update(part.to_le_bytes());
    }
    ChaCha8Rng::from_seed(hasher.finalize().into())
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::RngCore;

    use super::*;

    fn first(run_seed: u64, purpose: &str, parts: &[u64]) -> u64 {
        rng(run_seed, purpose, parts).next_u64()
    }

    #[test]
    fn equal_arguments_give_equal_streams() {
        let (mut left, mut right) = (rng(42, "masks", &[1, 2]), rng(42, "masks", &[1, 2]));
        for _ in 0..100 {
            assert_eq!(left.next_u64(), right.next_u64());
        }
    }

    #[test]
    fn every_argument_matters() {
        let base = first(42, "masks", &[1, 2]);
        for other in [
            first(43, "masks", &[1, 2]),
            first(42, "mask", &[1, 2]),
            first(42, "masks", &[2, 1]),
            first(42, "masks", &[1]),
            first(42, "masks", &[1, 2, 0]),
        ] {
            assert_ne!(base, other);
        }
    }

    /// Resuming a run with a newer build relies on it: a change here must change `DOMAIN`.
    #[test]
    fn the_derivation_is_frozen() {
        assert_eq!(first(42, "masks", &[1, 2]), 11_780_613_913_948_403_346);
    }
}
