//! Filters in memory for the ids of a run: 9 bits per id, 0.4 % false positives.
//!
//! Binary fuse filters (Graf and Lemire, "Binary Fuse Filters: Fast and Smaller Than Xor Filters", 2022),
//! one for each of the equal parts that the ids are divided into by their highest bits, so that building
//! one takes little memory.

use std::path::Path;

use xorf::{BinaryFuse8, BinaryFuse8Ref, DmaSerializable, Filter as _, FilterRef as _};

use super::codec::{Reader, Writer};
use super::entry::Fingerprint;
use super::error::LedgerError;

/// Ids of one part, on average, at most.
const PART_IDS_MAX: u64 = 1 << 19;
/// Most bits that choose a part.
const PART_BITS_MAX: u32 = 16;

/// Builds a [`Filters`] from ids in ascending order.
pub(crate) struct FiltersBuilder {
    part_bits: u32,
    parts: Vec<Option<Part>>,
    /// The keys of the part that is being filled.
    keys: Vec<u64>,
}

impl FiltersBuilder {
    /// For about so many ids.
    pub(crate) fn new(ids: u64) -> Self {
        let parts = ids.div_ceil(PART_IDS_MAX).next_power_of_two();
        let part_bits = parts.trailing_zeros().min(PART_BITS_MAX);
        Self { part_bits, parts: Vec::with_capacity(1 << part_bits), keys: Vec::new() }
    }

    /// Adds an id, not lower than the one before.
    ///
    /// # Errors
    /// When a filter cannot be built.
    pub(crate) fn add(&mut self, id: Fingerprint, path: &Path) -> Result<(), LedgerError> {
        while self.parts.len() < part(id.high, self.part_bits) {
            self.finish_part(path)?;
        }
        // Ids may share the bits that the filter knows.
        if self.keys.last() != Some(&id.high) {
            self.keys.push(id.high);
        }
        Ok(())
    }

    /// The filters of all ids.
    ///
    /// # Errors
    /// When a filter cannot be built.
    pub(crate) fn finish(mut self, path: &Path) -> Result<Filters, LedgerError> {
        while self.parts.len() < 1 << self.part_bits {
            self.finish_part(path)?;
        }
        Ok(Filters { part_bits: self.part_bits, parts: self.parts })
    }

    fn finish_part(&mut self, path: &Path) -> Result<(), LedgerError> {
        let filter = match &*self.keys {
            [] => None,
            keys => Some(Part::build(keys).ok_or_else(|| LedgerError::Io {
                path: path.to_owned(),
                // A thousand seeds have failed, which no set of distinct keys is known to bring about.
                source: std::io::Error::other("no filter could be built for its ids"),
            })?),
        };
        self.parts.push(filter);
        self.keys.clear();
        Ok(())
    }
}

const fn part(key: u64, part_bits: u32) -> usize {
    #[allow(clippy::cast_possible_truncation, reason = "at most 16 bits")]
    match part_bits {
        0 => 0,
        bits => (key >> (64 - bits)) as usize,
    }
}

/// The filter of one part, in the form that it has on disk.
#[derive(Debug)]
struct Part {
    /// u64 seed, then as u32: length of a segment (a power of two), the same less one, and how far
    /// first places reach.
    descriptor: [u8; DESCRIPTOR_BYTES],
    fingerprints: Box<[u8]>,
}

const DESCRIPTOR_BYTES: usize = BinaryFuse8::DESCRIPTOR_LEN;

impl Part {
    fn build(keys: &[u64]) -> Option<Self> {
        let filter = BinaryFuse8::try_from(keys).ok()?;
        let mut descriptor = [0; DESCRIPTOR_BYTES];
        filter.dma_copy_descriptor_to(&mut descriptor);
        Some(Self { descriptor, fingerprints: filter.fingerprints })
    }

    fn contains(&self, key: u64) -> bool {
        BinaryFuse8Ref::from_dma(&self.descriptor, &self.fingerprints).contains(&key)
    }

    /// Whether no place that can be asked for lies behind the end.
    fn is_sound(&self) -> bool {
        let mut from = Reader::new(&self.descriptor);
        let numbers = from.u64().and_then(|_| Some((from.u32()?, from.u32()?, from.u32()?)));
        numbers.is_some_and(|(length, mask, reach)| {
            let end = u64::from(reach) + 2 * u64::from(length);
            length.is_power_of_two() && mask == length - 1 && end <= self.fingerprints.len() as u64
        })
    }
}

/// Approximate membership of a run's ids: 9 bits of memory per id, no false negatives, 0.4 % false
/// positives.
#[derive(Debug)]
pub(crate) struct Filters {
    part_bits: u32,
    /// None where there are no ids.
    parts: Vec<Option<Part>>,
}

impl Filters {
    /// False only when the id is not there.
    pub(crate) fn may_hold(&self, id: Fingerprint) -> bool {
        match &self.parts[part(id.high, self.part_bits)] {
            Some(filter) => filter.contains(id.high),
            None => false,
        }
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> u64 {
        self.parts.iter().flatten().map(|filter| filter.fingerprints.len() as u64).sum()
    }

    pub(crate) fn encode(&self, to: &mut Writer) {
        to.u32(self.part_bits);
        for filter in &self.parts {
            let Some(Part { descriptor, fingerprints }) = filter else {
                to.u64(0);
                continue;
            };
            to.u64(fingerprints.len() as u64);
            to.bytes(descriptor);
            to.bytes(fingerprints);
        }
    }

    /// None when the bytes are no filters. Whatever they are, asking the filters is safe.
    pub(crate) fn decode(from: &mut Reader<'_>) -> Option<Self> {
        let part_bits = from.u32().filter(|bits| *bits <= PART_BITS_MAX)?;
        let parts: Option<Vec<_>> = (0..1_usize << part_bits).map(|_| decode_part(from)).collect();
        Some(Self { part_bits, parts: parts? })
    }
}

fn decode_part(from: &mut Reader<'_>) -> Option<Option<Part>> {
    let bytes = usize::try_from(from.u64()?).ok()?;
    if bytes == 0 {
        return Some(None);
    }
    let part = Part { descriptor: *from.chunk()?, fingerprints: from.bytes(bytes)?.into() };
    part.is_sound().then_some(Some(part))
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    fn random_ids(count: usize, seed: u64) -> Vec<Fingerprint> {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut ids: Vec<_> = (0..count).map(|_| Fingerprint::of_hash(random.random())).collect();
        ids.sort_unstable();
        ids
    }

    fn built(ids: &[Fingerprint], expected: u64) -> Filters {
        let mut builder = FiltersBuilder::new(expected);
        ids.iter().for_each(|id| builder.add(*id, Path::new("run")).unwrap());
        builder.finish(Path::new("run")).unwrap()
    }

    #[test]
    fn every_id_is_held_and_few_others_are() {
        for (count, expected) in [(0, 0), (1, 1), (2, 2), (1_000, 1_000), (100_000, 3_000_000), (100_000, 1)] {
            let ids = random_ids(count, 1);
            let filters = built(&ids, expected);
            assert!(ids.iter().all(|id| filters.may_hold(*id)));
            let mistaken = random_ids(100_000, 2).iter().filter(|id| filters.may_hold(**id)).count();
            assert!(mistaken < 700, "{mistaken} of 100,000 among {count}");
            assert!(count < 100_000 || filters.bytes() * 8 < 11 * count as u64, "{} bytes", filters.bytes());
        }
    }

    #[test]
    fn ids_that_share_their_high_bits_are_one_key() {
        let ids = [0, 1, 2].map(|low| Fingerprint { high: u64::MAX, low });
        assert!(ids.iter().all(|id| built(&ids, 3).may_hold(*id)));
    }

    #[test]
    fn filters_survive_their_encoding_and_no_shortened_one_is_accepted() {
        let ids = random_ids(5_000, 3);
        let filters = built(&ids, 3_000_000);
        let mut bytes = Writer::default();
        filters.encode(&mut bytes);
        let bytes = bytes.into_checked();
        let bytes = &bytes[..bytes.len() - size_of::<u32>()];
        let decoded = Filters::decode(&mut Reader::new(bytes)).unwrap();
        assert!(ids.iter().all(|id| decoded.may_hold(*id)));
        for end in (0..bytes.len()).step_by(97) {
            assert!(Filters::decode(&mut Reader::new(&bytes[..end])).is_none());
        }
    }
}
