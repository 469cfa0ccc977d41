//! Takes the recent ids of whole segments out of the way of new ones, and writes them to the ledger.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tallyhouse_ledger::{Entry, IdTimes, LedgerError, NewRun};
use uuid::Uuid;

use super::Index;
use super::table::Table;
use crate::ingest::fingerprint::IdFingerprint;
use crate::log::{ClosedSegment, Ordinal, SegmentTag, SegmentTags};

/// How a segment that ids are recent of stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentStanding {
    /// It takes more events, or its ids must not be written yet.
    Open,
    /// It takes no more.
    Closed(ClosedSegment),
    /// Its file is gone, so that nothing needs to be covered.
    Gone,
}

/// Ids that are being written to the ledger. They stay in memory until that has succeeded.
pub struct Sealed {
    tables: Vec<Arc<Table>>,
    id_times: IdTimes,
    has_untimed: bool,
    /// Ids of these are among the tables' and stay recent.
    kept_back: SegmentTags,
    /// The segments whose ids are all among them.
    segments: Vec<(Ordinal, ClosedSegment)>,
}

impl Sealed {
    /// How many ids they are.
    fn ids(&self) -> usize {
        self.entries().count()
    }

    /// The segments of the log that need not be kept for these ids once they are written.
    pub fn segments(&self) -> &[(Ordinal, ClosedSegment)] {
        &self.segments
    }

    /// All entries, ascending.
    fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        self.tables.iter().enumerate().flat_map(move |(shard, table)| {
            let going = table.iter().filter(|entry| !self.kept_back.contains(entry.segment()));
            going.map(move |entry| Entry {
                id: IdFingerprint::of_words(shard, entry.words),
                payload: entry.payload,
                day: entry.minute().day(),
            })
        })
    }
}

impl Index {
    /// Seals the recent ids of whole segments: from now on they only wait to be written with
    /// [`Index::write`], and new ones come after them. `standing` tells of a segment how it stands in
    /// the log. None when no segment is whole.
    ///
    /// The caller has [`Index::writing`], and has written what was sealed before.
    pub fn seal(&self, standing: impl Fn(Ordinal) -> SegmentStanding) -> Option<Sealed> {
        let sealed = {
            // No batch is half recent now.
            let _in_between = self.generation.write();
            let sealed = self.take_whole(standing)?;
            self.recent_len.store(0, Ordering::Relaxed);
            sealed
        };
        // They are found among the sealed ones until they are recent again.
        let mut kept = 0;
        for (shard, table) in self.shards.iter().zip(&sealed.tables) {
            let recent = &mut shard.lock().recent;
            let kept_back = table.iter().filter(|entry| sealed.kept_back.contains(entry.segment()));
            kept += kept_back.filter(|entry| recent.insert(**entry)).count();
        }
        self.recent_len.fetch_add(kept, Ordering::Relaxed);
        Some(sealed)
    }

    fn take_whole(&self, standing: impl Fn(Ordinal) -> SegmentStanding) -> Option<Sealed> {
        let mut segments = self.segments.lock();
        let (mut whole, mut kept_back) = (Vec::new(), Vec::new());
        for (ordinal, settled) in &*segments {
            match standing(*ordinal) {
                SegmentStanding::Closed(closed) if closed.rows <= settled.events => {
                    whole.push((*ordinal, Some(closed)))
                }
                SegmentStanding::Gone => whole.push((*ordinal, None)),
                SegmentStanding::Closed(_) | SegmentStanding::Open => kept_back.push(SegmentTag::of(*ordinal)),
            }
        }
        // Of those that share a tag with one that is not whole, the ids cannot be told from that one's.
        let kept_back: SegmentTags = kept_back.into_iter().collect();
        whole.retain(|(ordinal, _)| !kept_back.contains(SegmentTag::of(*ordinal)));
        if whole.is_empty() {
            return None;
        }
        let (mut id_times, mut has_untimed) = (IdTimes::default(), false);
        for settled in whole.iter().filter_map(|(ordinal, _)| segments.remove(ordinal)) {
            id_times.add_all(&settled.id_times);
            has_untimed |= settled.has_untimed;
        }
        let mut tables = Vec::with_capacity(self.shards.len());
        for shard in &self.shards {
            let mut shard = shard.lock();
            let table = Arc::new(std::mem::take(&mut shard.recent));
            shard.sealed = Some(Arc::clone(&table));
            tables.push(table);
        }
        let segments = whole.into_iter().filter_map(|(ordinal, closed)| Some((ordinal, closed?))).collect();
        Some(Sealed { tables, id_times, has_untimed, kept_back, segments })
    }

    /// Writes sealed ids to the ledger. When it returns, they and what they cover are durable, and out
    /// of memory. Blocks on the disk. `is_in_log` tells which segments still have a file.
    ///
    /// # Errors
    /// The ledger's. The ids stay sealed and known, and must be written again.
    pub fn write(&self, sealed: &Sealed, is_in_log: impl Fn(Uuid) -> bool) -> Result<(), LedgerError> {
        let ids = sealed.ids();
        let run = NewRun {
            entries: sealed.entries(),
            expected: ids as u64,
            id_times: sealed.id_times.clone(),
            has_untimed: sealed.has_untimed,
            // Should a damaged one be put back from a copy, its ids must be read again.
            covered: sealed
                .segments
                .iter()
                .filter(|(_, closed)| closed.is_whole)
                .map(|(_, closed)| closed.id)
                .collect(),
        };
        self.ledger.add_run(run, is_in_log)?;
        // Whoever does not find them here any more asks the ledger, which has them.
        for shard in &self.shards {
            shard.lock().sealed = None;
        }
        self.len.fetch_sub(ids, Ordering::Relaxed);
        self.is_refusing.store(false, Ordering::Relaxed);
        Ok(())
    }
}
