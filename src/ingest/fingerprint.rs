//! Keyed fingerprints of event ids (128 bits) and payloads (32 bits), by SipHash-1-3.
//!
//! The key is drawn at the first start and kept in the data directory, readable by the service only, since the
//! ledger keeps fingerprints on disk. Without the key nobody can construct two ids that collide.

use std::hash::Hasher;
use std::io;
use std::path::Path;

use siphasher::sip128::{Hasher128, SipHasher13};
use tallyhouse_ledger::{Fingerprint, KeyCheck};

use crate::secret::read_or_make_secret;

/// Bits of an id's fingerprint that choose the shard of the index.
const SHARD_BITS: u32 = 7;
/// Shards of the index.
pub const SHARDS: usize = 1 << SHARD_BITS;

/// What stands for an event's identity (organization and event id): 128 bits of SipHash-1-3.
///
/// Its highest bits choose the shard of the index, and the next ones the place within the shard, so
/// that the shards, one after the other, hold all ids in the order of their fingerprints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdFingerprint(u128);

impl IdFingerprint {
    /// Which shard of the index it belongs to.
    pub const fn shard(self) -> usize {
        (self.0 >> (u128::BITS - SHARD_BITS)) as usize
    }

    /// What is kept of it in its shard.
    #[allow(clippy::cast_possible_truncation, reason = "each word is cut out on purpose")]
    pub const fn words(self) -> [u32; 3] {
        let bits = self.0 << SHARD_BITS;
        [(bits >> 96) as u32, (bits >> 64) as u32, (bits >> 32) as u32]
    }

    /// What the ledger keeps of it.
    pub const fn in_ledger(self) -> Fingerprint {
        Fingerprint::of_hash(self.0)
    }

    /// The same of an id that is kept as these words in this shard.
    pub const fn of_words(shard: usize, words: [u32; 3]) -> Fingerprint {
        let [a, b, c] = words;
        let bits = (a as u128) << 96 | (b as u128) << 64 | (c as u128) << 32;
        Fingerprint::of_hash((shard as u128) << (u128::BITS - SHARD_BITS) | bits >> SHARD_BITS)
    }
}

/// What stands for an event's payload: 32 bits, enough to tell a repeated event from a different one
/// under the same id (which counts nothing either way).
pub type PayloadFingerprint = u32;

/// Makes fingerprints under one key.
#[derive(Clone, Copy)]
pub struct Fingerprinter {
    key: [u8; 16],
}

impl Fingerprinter {
    /// With the key of a file, which is made when there is none yet. Another key knows none of the
    /// ids that were fingerprinted before.
    ///
    /// # Errors
    /// When the file can be neither read nor made.
    pub fn open(path: &Path) -> io::Result<Self> {
        use sha2::{Digest as _, Sha256};
        let secret = read_or_make_secret(path)?;
        let digest: [u8; 32] = Sha256::digest(secret.expose()).into();
        let (key, _) = digest.split_first_chunk().ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { key: *key })
    }

    /// With a key that nobody will know again.
    pub fn random() -> Self {
        Self { key: rand::random() }
    }

    /// Tells this key, together with the database that the ids are counted in, from others.
    #[allow(clippy::cast_possible_truncation, reason = "64 bits of 128")]
    pub fn key_check(&self, database: &[u8]) -> KeyCheck {
        self.hash(&[b"key check: ", database].concat()) as u64
    }

    fn hash(&self, bytes: &[u8]) -> u128 {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write(bytes);
        hasher.finish128().as_u128()
    }

    /// Of the bytes that say whose and which event it is.
    pub fn id(&self, bytes: &[u8]) -> IdFingerprint {
        IdFingerprint(self.hash(bytes))
    }

    /// Of the bytes that say what happened.
    #[allow(clippy::cast_possible_truncation, reason = "32 bits of 128")]
    pub fn payload(&self, bytes: &[u8]) -> PayloadFingerprint {
        self.hash(bytes) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_the_same_in_its_shard_and_in_the_ledger() {
        let fingerprinter = Fingerprinter::random();
        let mut ids: Vec<IdFingerprint> = (0..10_000_u32).map(|n| fingerprinter.id(&n.to_le_bytes())).collect();
        ids.sort_unstable();
        let kept: Vec<_> = ids.iter().map(|id| (id.shard(), id.words())).collect();
        assert!(kept.is_sorted(), "shards and places are in the order of the fingerprints");
        for (id, (shard, words)) in ids.iter().zip(kept) {
            assert_eq!(IdFingerprint::of_words(shard, words), id.in_ledger());
        }
    }

    #[test]
    fn the_key_of_a_file_stays_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let [first, second] = [(); 2].map(|()| Fingerprinter::open(&dir.path().join("key")).unwrap());
        assert_eq!(first.id(b"a"), second.id(b"a"));
        assert_eq!(first.key_check(b"db"), second.key_check(b"db"));
        assert_ne!(first.key_check(b"db"), second.key_check(b"another"));
        assert_ne!(first.key_check(b"db"), Fingerprinter::random().key_check(b"db"));
    }
}
