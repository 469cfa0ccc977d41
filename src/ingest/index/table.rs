//! A compact set of ids: an array sorted by fingerprint, with gaps.
//!
//! Fingerprints are evenly distributed, so the cell of one is found by a multiplication, and the sorted order keeps hits
//! and misses within a few neighboring cells even when nine of ten cells are full. (This is linear probing kept in
//! order: Amble and Knuth, "Ordered hash tables", 1974.) A cell takes 20 bytes. The array grows by a sixteenth, so that memory
//! follows the number of ids closely; general hash tables double, and are half empty afterwards.

use super::minute::Minute;
use crate::ingest::fingerprint::PayloadFingerprint;
use crate::log::SegmentTag;

/// The least number of cells.
const CELLS_MIN: usize = 64;
/// A table grows when more than this many of its cells in ten are full.
const TENTHS_FULL_MAX: usize = 9;
/// A table grows by one part in so many.
const GROWTH: usize = 16;

/// What is remembered of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The part of the fingerprint that is kept.
    pub(super) words: [u32; 3],
    /// The payload's fingerprint.
    pub(super) payload: PayloadFingerprint,
    /// The minute of its event, and its segment's tag. Never 0, which marks an empty cell.
    minute_and_tag: u32,
}

impl Entry {
    /// Of an event of this minute, in this segment.
    pub(super) fn new(words: [u32; 3], payload: PayloadFingerprint, minute: Minute, segment: SegmentTag) -> Self {
        Self { words, payload, minute_and_tag: minute.bits() << SegmentTag::BITS | u32::from(segment.bits()) }
    }

    /// The minute of its event.
    pub(super) const fn minute(&self) -> Minute {
        Minute::of_bits(self.minute_and_tag >> SegmentTag::BITS)
    }

    /// The tag of the segment it is in.
    #[allow(clippy::cast_possible_truncation, reason = "cut out on purpose")]
    pub(super) const fn segment(&self) -> SegmentTag {
        SegmentTag::of_bits(self.minute_and_tag as u8)
    }

    const fn is_empty(&self) -> bool {
        self.minute_and_tag == 0
    }
}

const EMPTY: Entry = Entry { words: [0; 3], payload: 0, minute_and_tag: 0 };

/// The set.
#[derive(Default)]
pub(super) struct Table {
    /// Full cells hold their entries in ascending order. An entry is never
    /// left of its home cell, and between its home and itself all cells are
    /// full.
    cells: Vec<Entry>,
    /// How many leading cells can be a home; the rest take what is pushed
    /// over the end.
    homes: usize,
    len: usize,
}

impl Table {
    /// How many ids it holds.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Bytes of its cells.
    #[cfg(test)]
    pub(super) const fn bytes(&self) -> usize {
        self.cells.capacity() * size_of::<Entry>()
    }

    /// What is remembered of an id.
    pub(super) fn get(&self, words: [u32; 3]) -> Option<&Entry> {
        let entry = self.cells.get(self.position(words))?;
        (!entry.is_empty() && entry.words == words).then_some(entry)
    }

    /// Reads the place where an id belongs: to have it in the processor's cache
    /// when the id is asked for in a moment.
    pub(super) fn touch_home(&self, words: [u32; 3]) {
        std::hint::black_box(self.cells.get(self.home(words)).map_or(0, |entry| entry.minute_and_tag));
    }

    /// Remembers an id, and says whether it was new. One that is there already
    /// stays as it is.
    pub(super) fn insert(&mut self, entry: Entry) -> bool {
        debug_assert!(!entry.is_empty());
        if (self.len + 1) * 10 > self.homes * TENTHS_FULL_MAX {
            self.spread(self.homes + self.homes / GROWTH);
        }
        loop {
            let at = self.position(entry.words);
            match self.cells.get(at) {
                Some(found) if !found.is_empty() && found.words == entry.words => return false,
                _ => {}
            }
            if let Some(gap) = self.gap_from(at) {
                self.cells.copy_within(at..gap, at + 1);
                self.cells[at] = entry;
                self.len += 1;
                return true;
            }
            // The last cells are all full.
            self.spread(self.homes + self.homes / GROWTH);
        }
    }

    /// Every id, in ascending order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.cells.iter().filter(|entry| !entry.is_empty())
    }

    /// Keeps the ids that `keep` says yes to. The room of the others is kept for
    /// ids to come, unless most have gone.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Entry) -> bool) {
        let (mut len, mut free) = (0, 0);
        for at in 0..self.cells.len() {
            if self.cells[at].is_empty() {
                continue;
            }
            if !keep(&self.cells[at]) {
                self.cells[at] = EMPTY;
                continue;
            }
            // As far back towards its home as there is a gap now.
            let to = self.home(self.cells[at].words).max(free);
            if to != at {
                self.cells[to] = std::mem::replace(&mut self.cells[at], EMPTY);
            }
            (len, free) = (len + 1, to + 1);
        }
        self.len = len;
        let homes = len * 10 / TENTHS_FULL_MAX + 1;
        if homes < self.homes / 2 {
            self.spread(homes);
        }
    }

    /// Where an id is, or where it belongs.
    fn position(&self, words: [u32; 3]) -> usize {
        let mut at = self.home(words);
        while let Some(entry) = self.cells.get(at) {
            if entry.is_empty() || entry.words >= words {
                break;
            }
            at += 1;
        }
        at
    }

    /// Maps the first word evenly onto the homes, keeping its order.
    #[allow(clippy::cast_possible_truncation, reason = "the result is less than `homes`")]
    const fn home(&self, words: [u32; 3]) -> usize {
        ((words[0] as u64 * self.homes as u64) >> 32) as usize
    }

    fn gap_from(&self, at: usize) -> Option<usize> {
        self.cells.get(at..)?.iter().position(|entry| entry.is_empty()).map(|offset| at + offset)
    }

    /// Lays all entries out anew over at least so many homes.
    fn spread(&mut self, homes: usize) {
        let old = std::mem::take(&mut self.cells);
        self.homes = homes.max(CELLS_MIN);
        // Room past the last home for what is pushed over it: the longest run
        // seen at nine tenths is far shorter, and a longer one grows the table.
        let spare = CELLS_MIN + self.homes / 64;
        self.cells = vec![EMPTY; self.homes + spare];
        let mut free = 0;
        for entry in old.into_iter().filter(|entry| !entry.is_empty()) {
            let at = self.home(entry.words).max(free);
            if at >= self.cells.len() {
                self.cells.push(entry);
            } else {
                self.cells[at] = entry;
            }
            free = at + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn minute(n: u32) -> Minute {
        Minute::of_bits(n)
    }

    /// Entries crowd on few homes, so that runs grow long and reach the end.
    fn entry() -> impl Strategy<Value = Entry> {
        let first = prop_oneof![Just(0), Just(u32::MAX), 0..64_u32, any::<u32>()];
        (first, 0..4_u32, 0..4_u32, any::<u32>(), 1..8_u32)
            .prop_map(|(a, b, c, payload, n)| Entry::new([a, b, c], payload, minute(n), SegmentTag::of(0)))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn it_holds_what_a_map_would_hold(
            entries in prop::collection::vec(entry(), 0..600),
            strangers in prop::collection::vec(entry(), 0..50),
            dropped in 1..8_u32,
        ) {
            let mut table = Table::default();
            let mut model = BTreeMap::new();
            for pass in 0..3 {
                for entry in &entries {
                    prop_assert_eq!(table.insert(*entry), !model.contains_key(&entry.words));
                    model.entry(entry.words).or_insert(*entry);
                }
                for _ in 0..2 {
                    prop_assert_eq!(table.len(), model.len());
                    prop_assert!(table.iter().eq(model.values()), "in ascending order");
                    for entry in entries.iter().chain(&strangers) {
                        prop_assert_eq!(table.get(entry.words), model.get(&entry.words), "pass {}", pass);
                    }
                    table.retain(|entry| entry.minute() != minute(dropped + pass));
                    model.retain(|_, entry| entry.minute() != minute(dropped + pass));
                }
            }
        }
    }

    #[test]
    fn an_entry_keeps_minute_and_segment() {
        for bits in [1, 2, u32::MAX] {
            for ordinal in 0..130 {
                let entry = Entry::new([0; 3], 0, minute(bits), SegmentTag::of(ordinal));
                assert_eq!((entry.minute(), entry.segment()), (minute(bits), SegmentTag::of(ordinal)));
                assert!(!entry.is_empty());
            }
        }
    }

    #[test]
    fn an_id_takes_less_than_26_bytes_at_any_size() {
        let mut table = Table::default();
        for i in 0..100_000_u32 {
            let words = [i.wrapping_mul(2_654_435_761), i, 0];
            table.insert(Entry::new(words, 0, minute(1), SegmentTag::of(0)));
            if i >= 10_000 {
                assert!(table.bytes() <= table.len() * 26, "{} bytes for {} ids", table.bytes(), table.len());
            }
        }
    }
}
