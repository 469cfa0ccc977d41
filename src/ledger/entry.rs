//! The entry of one id.

/// Stands for an event's identity: the highest 80 bits of a keyed 128-bit hash of organization and
/// event id.
///
/// With a key that nobody outside knows, fingerprints are uniform, which the ledger relies on. Two
/// ids have the same one with a probability of 2⁻⁸⁰: among 10⁹ ids, one in 1.2 million further ids
/// of 10⁹ each is mistaken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint {
    pub(crate) high: u64,
    pub(crate) low: u16,
}

impl Fingerprint {
    /// The lowest.
    pub const MIN: Self = Self { high: 0, low: 0 };

    pub(crate) const BYTES: usize = 10;

    pub(crate) fn encode(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.high.to_be_bytes());
        bytes[8..].copy_from_slice(&self.low.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: [u8; Self::BYTES]) -> Self {
        let mut bits = [0; 16];
        bits[..Self::BYTES].copy_from_slice(&bytes);
        Self::of_hash(u128::from_be_bytes(bits))
    }

    /// Of 128 bits of a keyed hash.
    #[allow(clippy::cast_possible_truncation, reason = "each part is cut out on purpose")]
    pub const fn of_hash(hash: u128) -> Self {
        Self { high: (hash >> 64) as u64, low: (hash >> 48) as u16 }
    }
}

/// The UTC day of an event, in days since 1970-01-01, at least 0. Later days than 65,535 (the year
/// 2149) count as that one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub u16);

impl Day {
    /// The day of a moment, in milliseconds since 1970.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 16 bits")]
    pub fn of_millis(millis: i64) -> Self {
        Self(millis.div_euclid(86_400_000).clamp(0, u16::MAX.into()) as u16)
    }
}

/// An id that was taken, and what with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The id.
    pub id: Fingerprint,
    /// A hash of the payload it was taken with: tells a repetition from a conflict.
    pub payload: u32,
    /// When its event occurred: the entry is kept as long as events of that day are.
    pub day: Day,
}

/// Bytes of an entry on disk.
pub(crate) const ENTRY_BYTES: usize = 16;

impl Entry {
    pub(crate) fn encode(&self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        // Big-endian, so that the order of the bytes is the order of the ids.
        bytes[..8].copy_from_slice(&self.id.high.to_be_bytes());
        bytes[8..10].copy_from_slice(&self.id.low.to_be_bytes());
        bytes[10..14].copy_from_slice(&self.payload.to_be_bytes());
        bytes[14..].copy_from_slice(&self.day.0.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; ENTRY_BYTES]) -> Self {
        let bits = u128::from_be_bytes(*bytes);
        #[allow(clippy::cast_possible_truncation, reason = "each part is cut out on purpose")]
        let (payload, day) = ((bits >> 16) as u32, bits as u16);
        Self { id: Fingerprint::of_hash(bits), payload, day: Day(day) }
    }
}

/// An id that the ledger is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The id.
    pub id: Fingerprint,
    /// The time within the id, where it has one. See [`crate::time_in_id`]. It must be the same
    /// whenever the id is asked for, and the same that was given when the id was added.
    pub time_in_id: Option<u64>,
}
