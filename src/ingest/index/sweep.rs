//! Making room in the index.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::{Cold, Index, Minute, SegmentTag, SegmentTags, Shard};
use crate::ingest::mark::Mark;

/// A sweep is due when the index is fuller than this, in percent.
pub(super) const SWEEP_PERCENT: usize = 95;
/// A sweep leaves the index at most this full, in percent.
pub(super) const SWEPT_PERCENT: usize = 85;
/// The same when a batch found no room: it needs more than that.
const SWEPT_PERCENT_WHEN_SHORT: usize = 50;
/// A sweep counts the ids of each minute in so many, at least: in all of a
/// small index, and in some shards of a large one, as ids are spread evenly.
const COUNTED_MIN: usize = 250_000;
/// Recalled minutes take at most so much of the index, in percent, while newer
/// ids could use the room.
const RECALLED_PERCENT: usize = 40;

impl Index {
    /// Makes room: lets recalled minutes go and raises the floor so far that
    /// the index is less full, except for ids in segments that are not stored.
    /// Other threads go on meanwhile.
    pub fn sweep(&self, unstored: impl Fn() -> SegmentTags) {
        let was_short = self.is_short.swap(false, Ordering::Relaxed);
        let wanted = self.recalls_wanted.swap(0, Ordering::Relaxed);
        let percent = if was_short { SWEPT_PERCENT_WHEN_SHORT } else { SWEPT_PERCENT };
        let excess = (self.ids() + wanted).saturating_sub(self.ids_max * percent / 100);
        let by_minute = self.ids_by_minute();
        let floor = self.floor();
        let recalled_ids: usize = by_minute.range(..floor).map(|(_, ids)| ids).sum();
        let over_share = (recalled_ids + wanted).saturating_sub(self.recalled_max());
        if excess == 0 && over_share == 0 {
            return;
        }
        // First what recalled minutes hold beyond their share, then the oldest
        // ids above the floor, then recalled minutes again.
        let mut recalled = self.recalled.idle_longest_first().into_iter();
        let ids_of = |minute: &Minute| by_minute.get(minute).copied().unwrap_or_default();
        let (mut going, mut freed) = (Vec::new(), 0);
        while freed < over_share
            && let Some(minute) = recalled.next()
        {
            freed += ids_of(&minute);
            going.push(minute);
        }
        let mut new_floor = floor;
        for (minute, ids) in by_minute.range(floor..) {
            if freed >= excess {
                break;
            }
            freed += ids;
            new_floor = minute.next();
        }
        while freed < excess
            && let Some(minute) = recalled.next()
        {
            freed += ids_of(&minute);
            going.push(minute);
        }
        // First what is said of them, then the entries: whoever misses an
        // entry that has gone sees, under the same shard's lock, that they
        // must ask.
        self.recalled.forget(&going);
        self.raise_floor(new_floor);
        self.let_go(unstored);
        let gone: usize = going.iter().map(ids_of).sum();
        self.recalled_len.store(recalled_ids.saturating_sub(gone), Ordering::Relaxed);
    }

    /// How many ids of each minute the tables hold, about.
    fn ids_by_minute(&self) -> BTreeMap<Minute, usize> {
        let mut minutes: BTreeMap<Minute, usize> = BTreeMap::new();
        let (mut ids, mut counted) = (0, 0);
        for shard in &self.shards {
            let table = &shard.lock().table;
            ids += table.len();
            if counted < COUNTED_MIN {
                counted += table.len();
                for entry in table.iter() {
                    *minutes.entry(Mark(entry.mark).minute()).or_default() += 1;
                }
            }
        }
        for of_minute in minutes.values_mut() {
            *of_minute = *of_minute * ids / counted;
        }
        minutes
    }

    /// Lets go of all ids that need not be kept.
    fn let_go(&self, unstored: impl Fn() -> SegmentTags) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            // As in `forget_stored`, under the lock.
            let unstored = unstored();
            self.sweep_shard(&mut shard, unstored);
        }
    }

    fn sweep_shard(&self, shard: &mut Shard, unstored: SegmentTags) {
        let Shard { table, cold, .. } = shard;
        let (ids, colds) = (table.len() + cold.len(), cold.len());
        table.retain(|entry| {
            let mark = Mark(entry.mark);
            let tag = if unstored.contains(mark.tag()) { mark.tag() } else { SegmentTag::STORED };
            entry.mark = Mark::new(mark.minute(), tag).0;
            let keep = self.keeps(mark.minute());
            if !keep && tag != SegmentTag::STORED {
                cold.insert(entry.words, Cold { payload: entry.payload, minute: mark.minute(), tag });
            }
            keep
        });
        self.len.fetch_sub(ids - table.len() - cold.len(), Ordering::Relaxed);
        self.cold_len.fetch_add(cold.len() - colds, Ordering::Relaxed);
    }

    pub(super) const fn recalled_max(&self) -> usize {
        self.ids_max * RECALLED_PERCENT / 100
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::index::Claim;
    use crate::ingest::index::tests::Bench;

    #[test]
    fn a_sweep_of_a_large_index_makes_the_room_it_should() {
        let bench = Bench::new(4 * COUNTED_MIN);
        let ids = 4 * COUNTED_MIN * SWEEP_PERCENT / 100;
        for n in 0..ids {
            bench.take(n, 1 + u32::try_from(n).unwrap() / 1_000, 0);
        }
        bench.index.sweep(SegmentTags::default);
        let percent = bench.index.ids() as f64 / (4 * COUNTED_MIN) as f64 * 100.0;
        assert!((percent - SWEPT_PERCENT as f64).abs() < 0.5, "{percent} % full");
        assert!(matches!(bench.claim(ids - 1, 0), Claim::Known(7, _)));
        assert!(matches!(bench.claim(0, 1), Claim::BelowFloor));
    }
}
