//! The deduplication index: has this id been taken before?
//!
//! It holds the fingerprint of every id whose event time is at or after a
//! *floor*. Memory is bounded: when the index is nearly full, the ids of the
//! oldest minutes go and the floor rises. Above the floor, what is not found
//! is new. Below it nothing is assumed: the caller must ask ClickHouse, or
//! first bring the minute's ids back into memory (see [`super::recall`]); such
//! a minute is *recalled*, and there too what is not found is new.
//!
//! An id is in one of three places:
//!
//! - *pending*: claimed by a batch that is not durable yet. Whoever repeats it
//!   waits for that batch and shares its fate.
//! - *table*: durable, and remembered until the floor rises over it or its
//!   recalled minute is let go.
//! - *cold*: durable, of neither, and perhaps not in ClickHouse yet.
//!   It is remembered until its segment is stored, since until then ClickHouse
//!   would answer that it does not know it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::fate::Fate;
use super::fingerprint::{IdFingerprint, PayloadFingerprint};
use super::mark::Mark;
pub use super::mark::{Minute, SegmentTag, SegmentTags};
use super::recalled::Recalled;
use super::table::{Entry, Table};

const SHARDS: usize = 256;
/// A sweep is due when the index is fuller than this, in percent.
const SWEEP_PERCENT: usize = 95;
/// A sweep leaves the index at most this full, in percent.
const SWEPT_PERCENT: usize = 85;
/// The same when a batch found no room: it needs more than that.
const SWEPT_PERCENT_WHEN_SHORT: usize = 50;
/// Recalled minutes take at most so much of the index, in percent, while newer
/// ids could use the room.
const RECALLED_PERCENT: usize = 40;

/// What the index says of an id.
#[derive(Debug)]
pub enum Claim {
    /// It was not there and is new. It is pending now, in the caller's hands.
    New,
    /// It is not there, but lies below the floor: ClickHouse must be asked. It
    /// is pending now, in the caller's hands.
    BelowFloor,
    /// It was taken before, with this payload.
    Known(PayloadFingerprint),
    /// It is pending, in this batch or another; its fate will be known.
    Pending(Arc<Fate>),
    /// The index is full of ids that ClickHouse does not have yet.
    Full,
}

struct Cold {
    payload: PayloadFingerprint,
    minute: Minute,
    tag: SegmentTag,
}

#[derive(Default)]
struct Shard {
    table: Table,
    pending: HashMap<[u32; 3], Arc<Fate>>,
    cold: HashMap<[u32; 3], Cold>,
}

/// The index. See the module.
pub struct Index {
    shards: Box<[Mutex<Shard>]>,
    floor: AtomicU32,
    recalled: Recalled,
    /// Ids in all three places, over all shards.
    len: AtomicUsize,
    /// Ids in cold places: usually none, and then nothing needs to be searched
    /// for them.
    cold_len: AtomicUsize,
    ids_max: usize,
    sweep_due: Notify,
    /// Somebody found no room since the last sweep.
    is_short: AtomicBool,
    /// Ids of recalled minutes, as of the last sweep and what was recalled
    /// since.
    recalled_len: AtomicUsize,
    /// Ids that wait for room to be recalled.
    recalls_wanted: AtomicUsize,
}

impl Index {
    /// An empty index for at most so many ids, with everything above the
    /// floor.
    pub fn new(ids_max: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            floor: AtomicU32::new(Minute::FIRST.0),
            len: AtomicUsize::new(0),
            cold_len: AtomicUsize::new(0),
            ids_max,
            sweep_due: Notify::new(),
            is_short: AtomicBool::new(false),
            recalled: Recalled::default(),
            recalled_len: AtomicUsize::new(0),
            recalls_wanted: AtomicUsize::new(0),
        }
    }

    /// How many ids it holds.
    pub fn ids(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Everything not found at or after this minute is new.
    pub fn floor(&self) -> Minute {
        Minute(self.floor.load(Ordering::Acquire))
    }

    /// Raises the floor.
    pub fn raise_floor(&self, floor: Minute) {
        self.floor.fetch_max(floor.0, Ordering::AcqRel);
    }

    fn shard(&self, id: IdFingerprint) -> &Mutex<Shard> {
        &self.shards[id.shard as usize % SHARDS]
    }

    /// Asks for an id, and claims it when it is not there: it is pending until
    /// [`Index::settle`] or [`Index::release`] is called for it, and `fate`
    /// is what others who ask for it meanwhile are given to wait for.
    pub fn claim(&self, id: IdFingerprint, minute: Minute, fate: &Arc<Fate>) -> Claim {
        let mut shard = self.shard(id).lock();
        if let Some(entry) = shard.table.get(id.words) {
            return Claim::Known(entry.payload);
        }
        if let Some(fate) = shard.pending.get(&id.words) {
            return Claim::Pending(Arc::clone(fate));
        }
        if let Some(cold) = shard.cold.get(&id.words) {
            return Claim::Known(cold.payload);
        }
        let len = self.len.fetch_add(1, Ordering::Relaxed) + 1;
        if len * 100 > self.ids_max * SWEEP_PERCENT {
            self.sweep_due.notify_one();
            if len > self.ids_max {
                self.len.fetch_sub(1, Ordering::Relaxed);
                self.is_short.store(true, Ordering::Relaxed);
                return Claim::Full;
            }
        }
        shard.pending.insert(id.words, Arc::clone(fate));
        if self.is_complete(minute) { Claim::New } else { Claim::BelowFloor }
    }

    /// What [`Index::claim`] would answer, without claiming anything. (It does
    /// not say [`Claim::Full`].)
    pub fn ask(&self, id: IdFingerprint, minute: Minute) -> Claim {
        let shard = self.shard(id).lock();
        if let Some(entry) = shard.table.get(id.words) {
            Claim::Known(entry.payload)
        } else if let Some(fate) = shard.pending.get(&id.words) {
            Claim::Pending(Arc::clone(fate))
        } else if let Some(cold) = shard.cold.get(&id.words) {
            Claim::Known(cold.payload)
        } else if self.is_complete(minute) {
            Claim::New
        } else {
            Claim::BelowFloor
        }
    }

    /// Asks again for an id that was [`Claim::BelowFloor`] and is still
    /// pending, after its minute may have been recalled. Unchanged when it was
    /// not.
    pub fn reclaim(&self, id: IdFingerprint, minute: Minute) -> Claim {
        let shard = self.shard(id).lock();
        match shard.table.get(id.words) {
            Some(entry) => Claim::Known(entry.payload),
            None if self.is_complete(minute) => Claim::New,
            None => Claim::BelowFloor,
        }
    }

    /// Whether an id of this minute that is not in its shard, which the caller
    /// holds locked, is new. (What is let go is so only after this has become
    /// false, and under the shard's lock.)
    fn is_complete(&self, minute: Minute) -> bool {
        minute >= self.floor() || self.recalled.is_complete(minute)
    }

    /// Whether ids of this minute must be kept in the table.
    fn keeps(&self, minute: Minute) -> bool {
        minute >= self.floor() || self.recalled.keeps(minute)
    }

    /// The payload of an id that is known, if it is.
    pub fn known_payload(&self, id: IdFingerprint) -> Option<PayloadFingerprint> {
        let shard = self.shard(id).lock();
        let in_table = shard.table.get(id.words).map(|entry| entry.payload);
        in_table.or_else(|| shard.cold.get(&id.words).map(|cold| cold.payload))
    }

    /// A pending id has become durable, in the segment with this tag.
    pub fn settle(&self, id: IdFingerprint, payload: PayloadFingerprint, minute: Minute, tag: SegmentTag) {
        let mut shard = self.shard(id).lock();
        shard.pending.remove(&id.words);
        self.remember(&mut shard, id, payload, minute, tag);
    }

    /// A pending id has not become durable, or is known to ClickHouse.
    pub fn release(&self, id: IdFingerprint) {
        if self.shard(id).lock().pending.remove(&id.words).is_some() {
            self.len.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Takes in an id found in the log or in ClickHouse at start; no segment:
    /// it is in ClickHouse. One that is there already stays as it is.
    pub fn restore(
        &self,
        id: IdFingerprint,
        payload: PayloadFingerprint,
        minute: Minute,
        unstored_in: Option<SegmentTag>,
    ) {
        let mut shard = self.shard(id).lock();
        if shard.table.get(id.words).is_none() && !shard.cold.contains_key(&id.words) {
            self.len.fetch_add(1, Ordering::Relaxed);
            self.remember(&mut shard, id, payload, minute, unstored_in.unwrap_or(SegmentTag::STORED));
        }
    }

    fn remember(
        &self,
        shard: &mut Shard,
        id: IdFingerprint,
        payload: PayloadFingerprint,
        minute: Minute,
        tag: SegmentTag,
    ) {
        if self.keeps(minute) {
            let is_new = shard.table.insert(Entry { words: id.words, payload, mark: Mark::new(minute, tag).0 });
            if !is_new {
                // A recall has found it in ClickHouse before its batch knew.
                self.len.fetch_sub(1, Ordering::Relaxed);
            }
        } else {
            shard.cold.insert(id.words, Cold { payload, minute, tag });
            self.cold_len.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether there is room to recall so many ids. When not, some will be
    /// made.
    pub fn has_room_to_recall(&self, ids: usize) -> bool {
        let is_share = self.recalled_len.load(Ordering::Relaxed) + ids <= self.recalled_max();
        let has_room = is_share && (self.ids() + ids) * 100 <= self.ids_max * SWEEP_PERCENT;
        if !has_room && ids <= self.recalled_max() {
            self.recalls_wanted.fetch_max(ids, Ordering::Relaxed);
            self.sweep_due.notify_one();
        }
        has_room
    }

    const fn recalled_max(&self) -> usize {
        self.ids_max * RECALLED_PERCENT / 100
    }

    /// Keeps all ids of these minutes from now on: whatever ClickHouse is
    /// asked for after this call and [restored](Index::restore) makes the
    /// minutes complete, which [`Index::recalled`] says.
    pub fn begin_recall(&self, minutes: &[Minute]) {
        self.recalled.begin(minutes);
    }

    /// All stored ids of these minutes, so many, have been restored.
    pub fn recalled(&self, minutes: &[Minute], ids: usize) {
        self.recalled.complete(minutes);
        self.recalled_len.fetch_add(ids, Ordering::Relaxed);
    }

    /// These minutes could not be recalled. (What has been restored of them
    /// goes with the next sweep.)
    pub fn break_off_recall(&self, minutes: &[Minute]) {
        self.recalled.forget(minutes);
    }

    /// Segments have been stored; `unstored` tells the tags of those that have
    /// not. Forgets the cold ids that ClickHouse has now.
    ///
    /// The tags are read anew for each shard, under its lock: an id that is
    /// found in the shard was settled before, so its segment is among them
    /// unless it is stored. Read earlier, they would miss a segment that was
    /// begun meanwhile, and its ids would be forgotten before ClickHouse has
    /// them.
    pub fn forget_stored(&self, unstored: impl Fn() -> SegmentTags) {
        if self.cold_len.load(Ordering::Relaxed) == 0 {
            return;
        }
        for shard in &self.shards {
            let Shard { table, cold, .. } = &mut *shard.lock();
            let unstored = unstored();
            let (ids, colds) = (table.len() + cold.len(), cold.len());
            cold.retain(|words, cold| {
                let is_unstored = unstored.contains(cold.tag);
                // A recall that has begun meanwhile counts on what it may have
                // been too early to read.
                if !is_unstored && self.keeps(cold.minute) {
                    let mark = Mark::new(cold.minute, SegmentTag::STORED).0;
                    table.insert(Entry { words: *words, payload: cold.payload, mark });
                }
                is_unstored
            });
            self.cold_len.fetch_sub(colds - cold.len(), Ordering::Relaxed);
            self.len.fetch_sub(ids - table.len() - cold.len(), Ordering::Relaxed);
        }
    }

    /// Waits until a sweep is due.
    pub async fn sweep_due(&self) {
        self.sweep_due.notified().await;
    }

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
        self.recalled_len.store(recalled_ids - gone, Ordering::Relaxed);
    }

    fn ids_by_minute(&self) -> BTreeMap<Minute, usize> {
        let mut minutes = BTreeMap::new();
        for shard in &self.shards {
            for entry in shard.lock().table.iter() {
                *minutes.entry(Mark(entry.mark).minute()).or_default() += 1;
            }
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
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::fingerprint::Fingerprinter;

    struct Bench {
        index: Index,
        prints: Fingerprinter,
        fate: Arc<Fate>,
    }

    impl Bench {
        fn new(ids_max: usize) -> Self {
            Self { index: Index::new(ids_max), prints: Fingerprinter::random(), fate: Arc::default() }
        }

        fn id(&self, n: usize) -> IdFingerprint {
            self.prints.id(&n.to_le_bytes())
        }

        fn claim(&self, n: usize, minute: u32) -> Claim {
            self.index.claim(self.id(n), Minute(minute), &self.fate)
        }

        fn take(&self, n: usize, minute: u32, segment: u64) {
            assert!(matches!(self.claim(n, minute), Claim::New | Claim::BelowFloor), "id {n}");
            self.index.settle(self.id(n), 7, Minute(minute), SegmentTag::of(segment));
        }
    }

    #[test]
    fn an_id_is_new_once_then_pending_then_known() {
        let bench = Bench::new(1_000);
        assert!(matches!(bench.claim(1, 5), Claim::New));
        assert!(matches!(bench.claim(1, 5), Claim::Pending(_)));
        bench.index.settle(bench.id(1), 7, Minute(5), SegmentTag::of(0));
        assert!(matches!(bench.claim(1, 5), Claim::Known(7)));
        // The time is not part of the identity.
        assert!(matches!(bench.claim(1, 900), Claim::Known(7)));
    }

    #[test]
    fn a_released_id_can_be_claimed_again() {
        let bench = Bench::new(1_000);
        assert!(matches!(bench.claim(1, 5), Claim::New));
        bench.index.release(bench.id(1));
        assert_eq!(bench.index.ids(), 0);
        assert!(matches!(bench.claim(1, 5), Claim::New));
    }

    #[test]
    fn a_sweep_forgets_the_oldest_minutes_and_assumes_nothing_of_them() {
        let bench = Bench::new(1_000);
        for n in 0..1_000 {
            bench.take(n, 1 + u32::try_from(n).unwrap() / 10, 0);
        }
        assert!(matches!(bench.claim(1_000, 200), Claim::Full));
        bench.index.sweep(SegmentTags::default);
        assert!(bench.index.ids() <= 500, "{}", bench.index.ids());
        assert!(matches!(bench.claim(0, 1), Claim::BelowFloor));
        assert!(matches!(bench.claim(999, 100), Claim::Known(7)));
        assert!(matches!(bench.claim(1_000, 200), Claim::New));
    }

    #[test]
    fn a_sweep_keeps_what_clickhouse_does_not_have() {
        let bench = Bench::new(1_000);
        for n in 0..1_000 {
            bench.take(n, 1 + u32::try_from(n).unwrap() / 10, 3);
        }
        let unstored: SegmentTags = [SegmentTag::of(3)].into_iter().collect();
        bench.index.sweep(|| unstored);
        assert!(matches!(bench.claim(0, 1), Claim::Known(7)), "unstored ids are remembered below the floor");
        assert!(matches!(bench.claim(1_000, 200), Claim::Full), "so there is no room");
        bench.index.forget_stored(SegmentTags::default);
        assert!(matches!(bench.claim(0, 1), Claim::BelowFloor), "once stored, ClickHouse is asked");
        assert!(matches!(bench.claim(1_000, 200), Claim::New));
    }

    #[test]
    fn an_id_taken_below_the_floor_is_remembered_until_it_is_stored() {
        let bench = Bench::new(1_000);
        bench.index.raise_floor(Minute(50));
        bench.take(1, 5, 4);
        assert!(matches!(bench.claim(1, 5), Claim::Known(7)));
        bench.index.forget_stored(|| [SegmentTag::of(4)].into_iter().collect());
        assert!(matches!(bench.claim(1, 5), Claim::Known(7)));
        bench.index.forget_stored(SegmentTags::default);
        assert!(matches!(bench.claim(1, 5), Claim::BelowFloor));
    }
}
