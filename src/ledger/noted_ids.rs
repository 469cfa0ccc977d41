//! The ids of all noted segments, a part of their range at a time.
//!
//! While ClickHouse is away, every segment of the log is noted: more ids than memory should hold. A run is written in the
//! order of its ids, so it is enough to hold those of one part of the range, and to read the notes again for the next.

use std::path::Path;

use tallyhouse_disk::Disk;
use uuid::Uuid;

use super::entry::Fingerprint;
use super::error::LedgerError;
use super::run::KeyCheck;
use super::segment_note::SegmentNote;

/// Ids that are held in memory at a time, about, at 16 bytes each. Those of one note are held as well.
pub(crate) const NOTED_IDS_AT_A_TIME: u64 = 1 << 21;

/// See the module.
pub(crate) struct NotedIds<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    key_check: KeyCheck,
    segments: Vec<Uuid>,
    /// The range of fingerprints is divided into so many equal parts.
    parts: u64,
    /// The part that is in memory.
    part: u64,
    /// Its ids, in order.
    ids: Vec<Fingerprint>,
    /// How many of them are lower than all that were asked for.
    passed: usize,
}

impl<'a> NotedIds<'a> {
    /// Of the segments that have notes now. Reads all of the notes once.
    ///
    /// # Errors
    /// `Io` and `Damaged`: a note cannot be read, so that it cannot be said which ids it has.
    pub(crate) fn read(
        disk: &'a dyn Disk,
        dir: &'a Path,
        key_check: KeyCheck,
        ids_at_a_time: u64,
    ) -> Result<Self, LedgerError> {
        let notes = SegmentNote::list(disk, dir)?;
        let parts = notes.iter().map(|(_, ids)| ids).sum::<u64>().div_ceil(ids_at_a_time).max(1);
        let segments = notes.into_iter().map(|(segment, _)| segment).collect();
        let mut noted = Self { disk, dir, key_check, segments, parts, part: 0, ids: Vec::new(), passed: 0 };
        noted.read_part(0)?;
        Ok(noted)
    }

    /// Whether a note has this id. Ids must be asked for in ascending order.
    ///
    /// # Errors
    /// As above. A note that has gone meanwhile has none: its segment is stored.
    pub(crate) fn contains(&mut self, id: Fingerprint) -> Result<bool, LedgerError> {
        let part = self.part_of(id);
        if part != self.part {
            self.read_part(part)?;
        }
        self.passed += self.ids[self.passed..].iter().take_while(|noted| **noted < id).count();
        Ok(self.ids.get(self.passed) == Some(&id))
    }

    #[allow(clippy::cast_possible_truncation, reason = "it is lower than the number of parts")]
    fn part_of(&self, id: Fingerprint) -> u64 {
        ((u128::from(id.high) * u128::from(self.parts)) >> 64) as u64
    }

    fn read_part(&mut self, part: u64) -> Result<(), LedgerError> {
        let mut ids = std::mem::take(&mut self.ids);
        ids.clear();
        for segment in &self.segments {
            let note = SegmentNote::read(self.disk, self.dir, *segment, self.key_check)?;
            let of_note = note.iter().flat_map(|note| &note.ids).map(|(id, _)| *id);
            ids.extend(of_note.filter(|id| self.part_of(*id) == part));
        }
        ids.sort_unstable();
        (self.part, self.ids, self.passed) = (part, ids, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use tallyhouse_disk::SimulatedDisk;

    use super::*;

    proptest! {
        #[test]
        fn exactly_the_ids_of_all_notes_are_noted_and_few_are_in_memory(
            notes in prop::collection::vec(prop::collection::vec(any::<u128>(), 0..300), 0..6),
            others in prop::collection::vec(any::<u128>(), 0..300),
            ids_at_a_time in 50..400_u64,
        ) {
            let (disk, dir) = (SimulatedDisk::new(), Path::new("/ledger"));
            disk.create_dir(dir).unwrap();
            for ids in &notes {
                let ids = ids.iter().map(|hash| (Fingerprint::of_hash(*hash), 1)).collect();
                SegmentNote { segment: Uuid::now_v7(), ids }.write(&disk, dir, 1).unwrap();
            }
            let noted: BTreeSet<Fingerprint> = notes.iter().flatten().map(|hash| Fingerprint::of_hash(*hash)).collect();
            let mut asked: Vec<Fingerprint> = others.iter().map(|hash| Fingerprint::of_hash(*hash)).chain(noted.clone()).collect();
            asked.extend(asked.clone().iter().step_by(3));
            asked.sort_unstable();
            let mut read = NotedIds::read(&disk, dir, 1, ids_at_a_time).unwrap();
            for id in asked {
                prop_assert_eq!(read.contains(id).unwrap(), noted.contains(&id));
                let uneven = 6 * ids_at_a_time.isqrt() + 10;
                prop_assert!(read.ids.len() as u64 <= ids_at_a_time + uneven, "{} of {}", read.ids.len(), ids_at_a_time);
            }
        }
    }
}
