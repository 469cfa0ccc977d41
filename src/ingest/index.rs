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

mod sweep;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::Notify;

use self::sweep::SWEEP_PERCENT;
use super::fate::Fate;
use super::fingerprint::{IdFingerprint, PayloadFingerprint};
use super::mark::Mark;
pub use super::mark::{Minute, SegmentTag, SegmentTags};
use super::recalled::Recalled;
use super::table::{Entry, Table};

const SHARDS: usize = 128;
/// An id that the index is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The id.
    pub id: IdFingerprint,
    /// When its event occurred.
    pub minute: Minute,
    /// Whether it is claimed when it is not there.
    pub is_wanted: bool,
}

/// What is to be remembered of an id.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// The id.
    pub id: IdFingerprint,
    /// Its event's payload.
    pub payload: PayloadFingerprint,
    /// When its event occurred.
    pub minute: Minute,
}

/// What the index says of an id.
#[derive(Debug)]
pub enum Claim {
    /// It was not there and is new. It is pending now, in the caller's hands, if
    /// it is wanted.
    New,
    /// It is not there, but lies below the floor: ClickHouse must be asked. It
    /// is pending now, in the caller's hands, if it is wanted.
    BelowFloor,
    /// It was taken before, with this payload, and perhaps is not in ClickHouse before this segment is.
    Known(PayloadFingerprint, SegmentTag),
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

/// (Nobody can choose the fingerprints, so hashing them may be cheap.)
#[derive(Default)]
struct Shard {
    table: Table,
    pending: FxHashMap<[u32; 3], Arc<Fate>>,
    cold: FxHashMap<[u32; 3], Cold>,
}

const fn shard_of(id: IdFingerprint) -> usize {
    id.shard as usize % SHARDS
}

/// The deduplication index, shared by all batches. Its memory is bounded by `index_ids_max`.
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
    /// Somebody found no room, and nobody has found any since.
    is_refusing: AtomicBool,
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
            is_refusing: AtomicBool::new(false),
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
        &self.shards[shard_of(id)]
    }

    /// Visits the shard of each id, in the order of the ids within a shard.
    ///
    /// Where an id belongs in a large table is in no cache of the processor's.
    /// So the places of all ids of a shard are read first, which does not wait
    /// for one before the next, and each shard is locked once.
    fn visit<T>(&self, of: &[T], id: impl Fn(&T) -> IdFingerprint, mut visit: impl FnMut(&mut Shard, usize)) {
        let mut order: Vec<(usize, usize)> =
            of.iter().enumerate().map(|(position, one)| (shard_of(id(one)), position)).collect();
        order.sort_unstable();
        for of_shard in order.chunk_by(|(a, _), (b, _)| a == b) {
            let mut shard = self.shards[of_shard[0].0].lock();
            for (_, position) in of_shard {
                std::hint::black_box(shard.table.home_mark(id(&of[*position]).words));
            }
            for (_, position) in of_shard {
                visit(&mut shard, *position);
            }
        }
    }

    /// Asks for ids, and claims those that are not there: each is pending until
    /// [`Index::settle`] or [`Index::release`] is called for it, and `fate` is
    /// what others who ask for it meanwhile are given to wait for. One answer
    /// for each, in their order; of an id that is asked for twice, the first
    /// claims it.
    pub fn claim(&self, asked: &[Asked], fate: &Arc<Fate>) -> Vec<Claim> {
        let mut claims: Vec<Claim> = Vec::new();
        claims.resize_with(asked.len(), || Claim::Full);
        self.visit(
            asked,
            |asked| asked.id,
            |shard, position| {
                claims[position] = self.claim_one(shard, &asked[position], fate);
            },
        );
        if self.is_refusing.load(Ordering::Relaxed)
            && claims.iter().any(|claim| matches!(claim, Claim::New | Claim::BelowFloor))
            && !claims.iter().any(|claim| matches!(claim, Claim::Full))
        {
            self.is_refusing.store(false, Ordering::Relaxed);
        }
        claims
    }

    /// Whether it has no room for new ids: the last batch that needed some found none, and not enough has
    /// been let go since.
    pub fn is_full(&self) -> bool {
        let ids = self.ids();
        ids >= self.ids_max || (self.is_refusing.load(Ordering::Relaxed) && ids * 100 > self.ids_max * SWEEP_PERCENT)
    }

    /// The most ids it holds.
    pub const fn ids_max(&self) -> usize {
        self.ids_max
    }

    fn claim_one(&self, shard: &mut Shard, asked: &Asked, fate: &Arc<Fate>) -> Claim {
        let Asked { id, minute, is_wanted } = asked;
        if let Some(entry) = shard.table.get(id.words) {
            return Claim::Known(entry.payload, Mark(entry.mark).tag());
        }
        if let Some(fate) = shard.pending.get(&id.words) {
            return Claim::Pending(Arc::clone(fate));
        }
        if let Some(cold) = shard.cold.get(&id.words) {
            return Claim::Known(cold.payload, cold.tag);
        }
        if *is_wanted {
            let len = self.len.fetch_add(1, Ordering::Relaxed) + 1;
            if len * 100 > self.ids_max * SWEEP_PERCENT {
                self.sweep_due.notify_one();
                if len > self.ids_max {
                    self.len.fetch_sub(1, Ordering::Relaxed);
                    self.is_short.store(true, Ordering::Relaxed);
                    self.is_refusing.store(true, Ordering::Relaxed);
                    return Claim::Full;
                }
            }
            shard.pending.insert(id.words, Arc::clone(fate));
        }
        if self.is_complete(*minute) { Claim::New } else { Claim::BelowFloor }
    }

    /// Asks again for an id that was [`Claim::BelowFloor`] and is still
    /// pending, after its minute may have been recalled. Unchanged when it was
    /// not.
    pub fn reclaim(&self, id: IdFingerprint, minute: Minute) -> Claim {
        let shard = self.shard(id).lock();
        match shard.table.get(id.words) {
            Some(entry) => Claim::Known(entry.payload, Mark(entry.mark).tag()),
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

    /// The payload of an id that is known, if it is, and the segment that it is in, unless that is stored.
    pub fn known_payload(&self, id: IdFingerprint) -> Option<(PayloadFingerprint, SegmentTag)> {
        let shard = self.shard(id).lock();
        let in_table = shard.table.get(id.words).map(|entry| (entry.payload, Mark(entry.mark).tag()));
        in_table.or_else(|| shard.cold.get(&id.words).map(|cold| (cold.payload, cold.tag)))
    }

    /// Pending ids have become durable, in the segment with this tag.
    pub fn settle(&self, taken: &[Taken], tag: SegmentTag) {
        self.visit(
            taken,
            |taken| taken.id,
            |shard, position| {
                let Taken { id, payload, minute } = taken[position];
                shard.pending.remove(&id.words);
                self.remember(shard, id, payload, minute, tag);
            },
        );
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

    /// The ids that are not known to be stored and are in a segment with this tag, with their minutes. (Some may
    /// be of other segments with the tag, which are stored or not.)
    pub fn tagged(&self, tag: SegmentTag) -> Vec<(IdFingerprint, Minute)> {
        let mut ids = Vec::new();
        for (shard, of_shard) in (0..).zip(&self.shards) {
            let of_shard = of_shard.lock();
            let id = |words: [u32; 3]| IdFingerprint { shard, words };
            let in_table = of_shard.table.iter().filter(|entry| Mark(entry.mark).tag() == tag);
            ids.extend(in_table.map(|entry| (id(entry.words), Mark(entry.mark).minute())));
            let cold = of_shard.cold.iter().filter(|(_, cold)| cold.tag == tag);
            ids.extend(cold.map(|(words, cold)| (id(*words), cold.minute)));
        }
        ids
    }

    /// Forgets ids of [`Index::tagged`] whose events are lost: they can be sent again.
    pub fn forget_lost(&self, lost: &[(IdFingerprint, Minute)]) {
        for (shard, of_shard) in (0..).zip(&self.shards) {
            let lost: FxHashSet<[u32; 3]> =
                lost.iter().filter(|(id, _)| id.shard == shard).map(|(id, _)| id.words).collect();
            if lost.is_empty() {
                continue;
            }
            let Shard { table, cold, .. } = &mut *of_shard.lock();
            let (ids, colds) = (table.len() + cold.len(), cold.len());
            table.retain(|entry| !lost.contains(&entry.words));
            cold.retain(|words, _| !lost.contains(words));
            self.cold_len.fetch_sub(colds - cold.len(), Ordering::Relaxed);
            self.len.fetch_sub(ids - table.len() - cold.len(), Ordering::Relaxed);
        }
    }

    /// An id as [`Index::tagged`] has it.
    #[allow(clippy::cast_possible_truncation, reason = "less than SHARDS")]
    pub const fn as_tagged(id: IdFingerprint) -> IdFingerprint {
        IdFingerprint { shard: shard_of(id) as u32, words: id.words }
    }

    /// Waits until a sweep is due.
    pub async fn sweep_due(&self) {
        self.sweep_due.notified().await;
    }
}

/// One id at a time.
#[cfg(test)]
impl Index {
    fn claim_one_id(&self, id: IdFingerprint, minute: Minute, fate: &Arc<Fate>) -> Claim {
        self.claim(&[Asked { id, minute, is_wanted: true }], fate).remove(0)
    }

    fn settle_one_id(&self, id: IdFingerprint, payload: PayloadFingerprint, minute: Minute, tag: SegmentTag) {
        self.settle(&[Taken { id, payload, minute }], tag);
    }
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::fingerprint::Fingerprinter;

    pub(super) struct Bench {
        pub(super) index: Index,
        prints: Fingerprinter,
        fate: Arc<Fate>,
    }

    impl Bench {
        pub(super) fn new(ids_max: usize) -> Self {
            Self { index: Index::new(ids_max), prints: Fingerprinter::random(), fate: Arc::default() }
        }

        fn id(&self, n: usize) -> IdFingerprint {
            self.prints.id(&n.to_le_bytes())
        }

        pub(super) fn claim(&self, n: usize, minute: u32) -> Claim {
            self.index.claim_one_id(self.id(n), Minute(minute), &self.fate)
        }

        pub(super) fn take(&self, n: usize, minute: u32, segment: u64) {
            assert!(matches!(self.claim(n, minute), Claim::New | Claim::BelowFloor), "id {n}");
            self.index.settle_one_id(self.id(n), 7, Minute(minute), SegmentTag::of(segment));
        }
    }

    #[test]
    fn an_id_is_new_once_then_pending_then_known() {
        let bench = Bench::new(1_000);
        assert!(matches!(bench.claim(1, 5), Claim::New));
        assert!(matches!(bench.claim(1, 5), Claim::Pending(_)));
        bench.index.settle_one_id(bench.id(1), 7, Minute(5), SegmentTag::of(0));
        assert!(matches!(bench.claim(1, 5), Claim::Known(7, _)));
        // The time is not part of the identity.
        assert!(matches!(bench.claim(1, 900), Claim::Known(7, _)));
    }

    #[test]
    fn ids_asked_for_together_are_answered_as_one_by_one() {
        let [together, alone] = [Bench::new(1_000), Bench::new(1_000)];
        // Some twice, and some not wanted, the first or the second time.
        let asked: Vec<Asked> = (0..1_000_u32)
            .map(|n| Asked {
                id: together.id((n * 7 % 600) as usize),
                minute: Minute(1 + n % 3),
                is_wanted: n % 7 != 0,
            })
            .collect();
        let said = together.index.claim(&asked, &together.fate);
        for (n, (asked, said)) in asked.iter().zip(said).enumerate() {
            let expected = alone.index.claim(&[*asked], &alone.fate).remove(0);
            assert_eq!(std::mem::discriminant(&said), std::mem::discriminant(&expected), "event {n}: {said:?}");
        }
        assert_eq!(together.index.ids(), alone.index.ids());
        assert!(matches!(together.index.claim(&asked, &alone.fate)[1], Claim::Pending(_)));
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
        assert!(matches!(bench.claim(999, 100), Claim::Known(7, _)));
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
        assert!(matches!(bench.claim(0, 1), Claim::Known(7, _)), "unstored ids are remembered below the floor");
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
        assert!(matches!(bench.claim(1, 5), Claim::Known(7, _)));
        bench.index.forget_stored(|| [SegmentTag::of(4)].into_iter().collect());
        assert!(matches!(bench.claim(1, 5), Claim::Known(7, _)));
        bench.index.forget_stored(SegmentTags::default);
        assert!(matches!(bench.claim(1, 5), Claim::BelowFloor));
    }
}
