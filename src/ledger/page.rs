//! Pages: what is read from a run at a time.
//!
//! ```text
//! 255 entries of 16 bytes, ascending; zeros behind the last
//! u32  the page's number within its run
//! u32  how many entries it has
//! u32  the run's tag: the first four bytes of its id
//! u32  CRC-32C of all before
//! ```

use super::entry::{ENTRY_BYTES, Entry, Fingerprint};

/// Bytes of a page.
pub(crate) const PAGE_BYTES: usize = 4_096;
/// Most entries of a page.
pub(crate) const PAGE_ENTRIES: usize = 255;
const ENTRIES_BYTES: usize = PAGE_ENTRIES * ENTRY_BYTES;

/// Appends a page of at most [`PAGE_ENTRIES`] entries.
#[allow(clippy::cast_possible_truncation, reason = "at most PAGE_ENTRIES")]
pub(crate) fn encode(entries: &[Entry], number: u32, tag: u32, to: &mut Vec<u8>) {
    let start = to.len();
    for entry in entries {
        to.extend_from_slice(&entry.encode());
    }
    to.resize(start + ENTRIES_BYTES, 0);
    for word in [number, entries.len() as u32, tag] {
        to.extend_from_slice(&word.to_le_bytes());
    }
    let checksum = crc32c::crc32c(&to[start..]);
    to.extend_from_slice(&checksum.to_le_bytes());
}

/// A page whose checksum is right.
pub(crate) struct Page<'a> {
    entries: &'a [[u8; ENTRY_BYTES]],
}

impl<'a> Page<'a> {
    /// None when the bytes are not this page of this run.
    pub(crate) fn check(bytes: &'a [u8], number: u32, tag: u32) -> Option<Self> {
        let (before, checksum) = bytes.split_last_chunk::<4>()?;
        let footer = before.get(ENTRIES_BYTES..)?;
        let word = |at: usize| Some(u32::from_le_bytes(footer.get(at..at + 4)?.try_into().ok()?));
        let count = usize::try_from(word(4)?).ok()?;
        let is_right = crc32c::crc32c(before) == u32::from_le_bytes(*checksum)
            && word(0)? == number
            && word(8)? == tag
            && count <= PAGE_ENTRIES;
        is_right.then(|| Self { entries: before[..count * ENTRY_BYTES].as_chunks().0 })
    }

    /// The entry of an id.
    pub(crate) fn get(&self, id: Fingerprint) -> Option<Entry> {
        let at = self.entries.partition_point(|bytes| Entry::decode(bytes).id < id);
        self.entries.get(at).map(Entry::decode).filter(|entry| entry.id == id)
    }

    /// All entries, ascending.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry> + use<'a> {
        self.entries.iter().map(Entry::decode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Day;

    fn entries(count: u64) -> Vec<Entry> {
        let entry = |n: u64| Entry { id: Fingerprint { high: n * 3, low: 7 }, payload: u32::MAX - 1, day: Day(20_000) };
        (0..count).map(entry).collect()
    }

    #[test]
    fn every_entry_of_a_page_is_found_and_no_other() {
        for count in [0, 1, 2, 254, 255] {
            let (entries, mut bytes) = (entries(count), Vec::new());
            encode(&entries, 9, 5, &mut bytes);
            assert_eq!(bytes.len(), PAGE_BYTES);
            let page = Page::check(&bytes, 9, 5).unwrap();
            assert_eq!(page.entries().collect::<Vec<_>>(), entries);
            for entry in &entries {
                assert_eq!(page.get(entry.id), Some(*entry));
                assert_eq!(page.get(Fingerprint { low: 8, ..entry.id }), None);
            }
        }
    }

    #[test]
    fn a_page_with_any_bit_flipped_is_not_accepted() {
        let mut bytes = Vec::new();
        encode(&entries(200), 9, 5, &mut bytes);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Page::check(&bytes, 9, 5).is_none(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(Page::check(&bytes, 8, 5).is_none() && Page::check(&bytes, 9, 4).is_none());
        assert!(Page::check(&[], 9, 5).is_none() && Page::check(&bytes[1..], 9, 5).is_none());
    }
}
