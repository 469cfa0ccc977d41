//! Keyed fingerprints: what the index remembers of an event.
//!
//! The key is drawn at start and never leaves the process, so nobody can make
//! two ids that collide. Fingerprints are never stored: the index is filled
//! anew at each start.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

/// What stands for an event's identity (organization and event id): 128 bits
/// of SipHash-1-3. Its first word chooses the shard of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdFingerprint {
    /// The word that chooses the shard.
    pub shard: u32,
    /// The words that are kept in the shard.
    pub words: [u32; 3],
}

/// What stands for an event's payload: 32 bits, enough to tell a repeated
/// event from a different one under the same id (which counts nothing either
/// way).
pub type PayloadFingerprint = u32;

/// Makes fingerprints under one key.
#[derive(Clone, Copy)]
pub struct Fingerprinter {
    key: [u8; 16],
}

impl Fingerprinter {
    /// Draws a key.
    pub fn random() -> Self {
        Self { key: rand::random() }
    }

    fn hash(&self, bytes: &[u8]) -> u128 {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write(bytes);
        hasher.finish128().as_u128()
    }

    /// Of the bytes that say whose and which event it is.
    pub fn id(&self, bytes: &[u8]) -> IdFingerprint {
        let [a, b, c, shard] = words(self.hash(bytes));
        IdFingerprint { shard, words: [a, b, c] }
    }

    /// Of the bytes that say what happened.
    pub fn payload(&self, bytes: &[u8]) -> PayloadFingerprint {
        words(self.hash(bytes))[0]
    }
}

/// The four words of 128 bits.
#[allow(clippy::cast_possible_truncation, reason = "each word is cut out on purpose")]
const fn words(bits: u128) -> [u32; 4] {
    [bits as u32, (bits >> 32) as u32, (bits >> 64) as u32, (bits >> 96) as u32]
}
