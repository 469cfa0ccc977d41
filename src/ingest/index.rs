//! The deduplication index: has this id been taken before?
//!
//! It holds the fingerprint of every id whose event time is at or after a
//! *floor*. Memory is bounded: when the index is nearly full, the ids of the
//! oldest minutes go and the floor rises. Above the floor, what is not found
//! is new. Below it nothing is assumed: the caller must ask ClickHouse.
//!
//! An id is in one of three places:
//!
//! - *pending*: claimed by a batch that is not durable yet. Whoever repeats it
//!   waits for that batch and shares its fate.
//! - *table*: durable, and remembered until the floor rises over it.
//! - *cold*: durable, below the floor, and perhaps not in ClickHouse yet.
//!   It is remembered until its segment is stored, since until then ClickHouse
//!   would answer that it does not know it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::fate::Fate;
use super::fingerprint::{IdFingerprint, PayloadFingerprint};
use super::table::{Entry, Table};
use crate::domain::{MILLIS_PER_MINUTE, Timestamp};

const SHARDS: usize = 256;
/// A sweep is due when the index is fuller than this, in percent.
const SWEEP_PERCENT: usize = 95;
/// A sweep leaves the index at most this full, in percent.
const SWEPT_PERCENT: usize = 85;
/// The same when a batch found no room: it needs more than that.
const SWEPT_PERCENT_WHEN_SHORT: usize = 50;

/// The minute of an event, as the index counts it: minutes since 1970, at
/// least 1. (Earlier times all fall into the first minute, which is as good a
/// bucket as any.) Fits 26 bits until the year 2097.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Minute(u32);

impl Minute {
    const LAST: u32 = (1 << 26) - 1;

    /// The minute of a moment.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 26 bits")]
    pub fn of(moment: Timestamp) -> Self {
        Self((moment.millis() / MILLIS_PER_MINUTE).clamp(1, Self::LAST.into()) as u32)
    }

    /// The lowest: with it as the floor, nothing lies below.
    pub const FIRST: Self = Self(1);

    const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Stands for a segment in 6 bits: one of 63 tags, given out in turn, or none.
/// Segments may share a tag; an id counts as unstored while any segment with
/// its tag is unstored, which errs on the safe side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentTag(u8);

impl SegmentTag {
    const STORED: Self = Self(0);

    /// The tag of the segment with this ordinal.
    #[allow(clippy::cast_possible_truncation, reason = "less than 64")]
    pub const fn of(ordinal: u64) -> Self {
        Self(1 + (ordinal % 63) as u8)
    }
}

/// A set of segment tags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentTags(u64);

impl SegmentTags {
    const fn contains(self, tag: SegmentTag) -> bool {
        self.0 & (1 << tag.0) != 0
    }
}

impl FromIterator<SegmentTag> for SegmentTags {
    fn from_iter<I: IntoIterator<Item = SegmentTag>>(tags: I) -> Self {
        Self(tags.into_iter().fold(0, |set, tag| set | 1 << tag.0))
    }
}

/// A minute and a segment tag in 32 bits: what an entry carries beside its
/// fingerprints.
#[derive(Clone, Copy)]
struct Mark(u32);

impl Mark {
    const fn new(minute: Minute, tag: SegmentTag) -> Self {
        Self(minute.0 << 6 | tag.0 as u32)
    }

    const fn minute(self) -> Minute {
        Minute(self.0 >> 6)
    }

    #[allow(clippy::cast_possible_truncation, reason = "6 bits")]
    const fn tag(self) -> SegmentTag {
        SegmentTag((self.0 & 63) as u8)
    }
}

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
    /// Ids in all three places, over all shards.
    len: AtomicUsize,
    /// Ids in cold places: usually none, and then nothing needs to be searched
    /// for them.
    cold_len: AtomicUsize,
    ids_max: usize,
    sweep_due: Notify,
    /// Somebody found no room since the last sweep.
    is_short: AtomicBool,
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
        if minute < self.floor() { Claim::BelowFloor } else { Claim::New }
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
        if minute < self.floor() {
            shard.cold.insert(id.words, Cold { payload, tag });
            self.cold_len.fetch_add(1, Ordering::Relaxed);
        } else {
            shard.table.insert(Entry { words: id.words, payload, mark: Mark::new(minute, tag).0 });
        }
    }

    /// Segments have been stored; `unstored` are the tags of those that have
    /// not. Forgets the cold ids that ClickHouse has now.
    pub fn forget_stored(&self, unstored: SegmentTags) {
        if self.cold_len.load(Ordering::Relaxed) == 0 {
            return;
        }
        for shard in &self.shards {
            let cold = &mut shard.lock().cold;
            let before = cold.len();
            cold.retain(|_, cold| unstored.contains(cold.tag));
            self.cold_len.fetch_sub(before - cold.len(), Ordering::Relaxed);
            self.len.fetch_sub(before - cold.len(), Ordering::Relaxed);
        }
    }

    /// Waits until a sweep is due.
    pub async fn sweep_due(&self) {
        self.sweep_due.notified().await;
    }

    /// Makes room: raises the floor so far that the index is less full, and
    /// lets go of what lies below it, except for ids in segments that are not
    /// stored. Other threads go on meanwhile.
    pub fn sweep(&self, unstored: impl Fn() -> SegmentTags) {
        let was_short = self.is_short.swap(false, Ordering::Relaxed);
        let percent = if was_short { SWEPT_PERCENT_WHEN_SHORT } else { SWEPT_PERCENT };
        let excess = self.ids().saturating_sub(self.ids_max * percent / 100);
        let Some(floor) = self.floor_that_frees(excess) else { return };
        // First the floor, then the entries: whoever misses an entry that has
        // gone sees, under the same shard's lock, the floor that tells them
        // to ask.
        self.raise_floor(floor);
        // The tags are read after that: a segment that is missing from them is
        // stored, and ClickHouse knows its ids.
        let unstored = unstored();
        for shard in &self.shards {
            self.sweep_shard(&mut shard.lock(), floor, unstored);
        }
    }

    /// The lowest floor under which lie at least so many ids.
    fn floor_that_frees(&self, excess: usize) -> Option<Minute> {
        let mut minutes: BTreeMap<u32, usize> = BTreeMap::new();
        for shard in &self.shards {
            for entry in shard.lock().table.iter() {
                *minutes.entry(Mark(entry.mark).minute().0).or_default() += 1;
            }
        }
        let mut freed = 0;
        minutes
            .into_iter()
            .take_while(|(_, ids)| {
                let goes = freed < excess;
                freed += ids;
                goes
            })
            .last()
            .map(|(minute, _)| Minute(minute).next())
    }

    fn sweep_shard(&self, shard: &mut Shard, floor: Minute, unstored: SegmentTags) {
        let Shard { table, cold, .. } = shard;
        let (ids, colds) = (table.len() + cold.len(), cold.len());
        table.retain(|entry| {
            let mark = Mark(entry.mark);
            let tag = if unstored.contains(mark.tag()) { mark.tag() } else { SegmentTag::STORED };
            entry.mark = Mark::new(mark.minute(), tag).0;
            let keep = mark.minute() >= floor;
            if !keep && tag != SegmentTag::STORED {
                cold.insert(entry.words, Cold { payload: entry.payload, tag });
            }
            keep
        });
        self.len.fetch_sub(ids - table.len() - cold.len(), Ordering::Relaxed);
        self.cold_len.fetch_add(cold.len() - colds, Ordering::Relaxed);
    }
}

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
        bench.index.forget_stored(SegmentTags::default());
        assert!(matches!(bench.claim(0, 1), Claim::BelowFloor), "once stored, ClickHouse is asked");
        assert!(matches!(bench.claim(1_000, 200), Claim::New));
    }

    #[test]
    fn an_id_taken_below_the_floor_is_remembered_until_it_is_stored() {
        let bench = Bench::new(1_000);
        bench.index.raise_floor(Minute(50));
        bench.take(1, 5, 4);
        assert!(matches!(bench.claim(1, 5), Claim::Known(7)));
        bench.index.forget_stored([SegmentTag::of(4)].into_iter().collect());
        assert!(matches!(bench.claim(1, 5), Claim::Known(7)));
        bench.index.forget_stored(SegmentTags::default());
        assert!(matches!(bench.claim(1, 5), Claim::BelowFloor));
    }

    #[test]
    fn the_mark_of_an_entry_keeps_minute_and_tag() {
        for minute in [1, 2, Minute::LAST] {
            for ordinal in 0..130 {
                let mark = Mark::new(Minute(minute), SegmentTag::of(ordinal));
                assert_eq!((mark.minute(), mark.tag()), (Minute(minute), SegmentTag::of(ordinal)));
                assert_ne!(mark.0, 0);
            }
        }
        assert_eq!(Minute::of(Timestamp::from_millis(-1)), Minute::FIRST);
        assert_eq!(Minute::of(Timestamp::from_millis(i64::MAX)), Minute(Minute::LAST));
    }
}
