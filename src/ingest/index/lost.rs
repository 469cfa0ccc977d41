//! Doubts, confirms and removes ids whose events may be lost with a damaged segment.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use tallyhouse_ledger::Fingerprint;

use super::{Index, Minute};
use crate::ingest::fingerprint::IdFingerprint;
use crate::log::{self, SegmentTag};

impl Index {
    /// The recent ids that are in a segment with this tag, with their minutes. (Some may be of other segments with
    /// the tag.)
    pub fn tagged(&self, tag: SegmentTag) -> Vec<(Fingerprint, Minute)> {
        let mut ids = Vec::new();
        for (shard, of_shard) in self.shards.iter().enumerate() {
            let of_shard = of_shard.lock();
            let tagged = of_shard.recent.iter().filter(|entry| entry.segment() == tag);
            ids.extend(tagged.map(|entry| (IdFingerprint::of_words(shard, entry.words), entry.minute())));
        }
        ids
    }

    /// These ids were taken, and their events may be lost: until [`Index::trust`] is called, it cannot be said whether
    /// they are in the ledger, in ClickHouse alone, or nowhere.
    pub fn doubt(&self, ids: impl IntoIterator<Item = Fingerprint>) {
        let mut doubted = self.doubted.write();
        doubted.extend(ids);
        self.has_doubted.store(!doubted.is_empty(), Ordering::Release);
    }

    /// What is known of these ids is true again.
    pub fn trust(&self, ids: impl IntoIterator<Item = Fingerprint>) {
        let mut doubted = self.doubted.write();
        ids.into_iter().for_each(|id| _ = doubted.remove(&id));
        self.has_doubted.store(!doubted.is_empty(), Ordering::Release);
    }

    pub(super) fn is_doubted(&self, id: Fingerprint) -> bool {
        self.has_doubted.load(Ordering::Acquire) && self.doubted.read().contains(&id)
    }

    /// Whether so many events of a segment, or all that the ledger did not take, are settled: those of batches that are
    /// durable are settled in a moment.
    pub fn is_settled(&self, ordinal: log::Ordinal, events: u64) -> bool {
        self.segments.lock().get(&ordinal).is_none_or(|settled| settled.events >= events)
    }

    /// Whether ids of a segment are in memory that the ledger does not have.
    pub fn has_ids_of(&self, ordinal: log::Ordinal) -> bool {
        self.segments.lock().contains_key(&ordinal)
    }

    /// Forgets those recent ids of [`Index::tagged`] whose events are lost: they can be sent again.
    pub fn forget(&self, tag: SegmentTag, lost: &HashSet<Fingerprint>) {
        if lost.is_empty() {
            return;
        }
        let mut forgotten = 0;
        for (shard, of_shard) in self.shards.iter().enumerate() {
            let recent = &mut of_shard.lock().recent;
            let before = recent.len();
            recent
                .retain(|entry| entry.segment() != tag || !lost.contains(&IdFingerprint::of_words(shard, entry.words)));
            forgotten += before - recent.len();
        }
        self.len.fetch_sub(forgotten, Ordering::Relaxed);
        self.recent_len.fetch_sub(forgotten, Ordering::Relaxed);
    }
}
