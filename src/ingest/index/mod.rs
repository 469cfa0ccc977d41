//! The deduplication index: decides whether an id has been taken before.
//!
//! An id is in one of four places, which are asked in this order:
//!
//! - *recent*: in memory; durable in the log, and not in the ledger yet.
//! - *sealed*: in memory; the same, while it is being written to the ledger.
//! - *pending*: in memory; claimed by a batch that is not durable yet. A batch that repeats the id waits for the
//!   completion of that batch.
//! - *the ledger*: on disk. See [`tallyhouse_ledger`].
//!
//! Ids are written to the ledger by whole segments of the log: those that take no more events, and all of whose
//! events are settled. An id leaves memory only when it is in a synced run, and the file of its segment leaves the log only
//! then. So memory holds the ids that came after the last run, however much is stored, whatever the times of the
//! events, and also while ClickHouse cannot be reached. `index_ids_max` bounds it.
//!
//! An id that is in none of these places is new, if the ledger is complete. Where it is not (while it is rebuilt, or for
//! days whose ids were dropped to bound the disk), ClickHouse is asked about the minute of the event.

mod lost;
mod minute;
mod seal;
mod table;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};
use rustc_hash::{FxHashMap, FxHashSet};
use tallyhouse_ledger::{Day, Fingerprint, IdTimes, Ledger, Read};
use tokio::sync::Notify;

use self::table::{Entry, Table};
use super::completion::BatchCompletion;
use super::fingerprint::{IdFingerprint, PayloadFingerprint, SHARDS};
use crate::log::{Ordinal, SegmentTag};
pub use minute::Minute;
pub use seal::{Sealed, SegmentStanding};

/// Pages of the ledger that are read by the task that asks. More are read on a thread that may block.
const PAGES_INLINE_MAX: usize = 4;

/// An id that the index is asked for.
#[derive(Clone, Copy, Debug)]
pub struct IdQuery {
    /// The id.
    pub id: IdFingerprint,
    /// The time within it, where it has one.
    pub time_in_id: Option<u64>,
    /// Whether it is claimed when it is not in memory.
    pub is_wanted: bool,
}

/// An id that has become durable.
#[derive(Clone, Copy, Debug)]
pub struct TakenId {
    /// The id.
    pub id: IdFingerprint,
    /// The time within it, where it has one.
    pub time_in_id: Option<u64>,
    /// Its event's payload.
    pub payload: PayloadFingerprint,
    /// When its event occurred.
    pub minute: Minute,
}

/// The first event of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstEvent {
    /// Its payload.
    pub payload: PayloadFingerprint,
    /// The segment it is in, as far as that may still be in the log; none: it is in one that the ledger
    /// covers, or is stored.
    pub segment: SegmentTag,
}

/// What memory says of an id.
#[derive(Debug)]
pub enum Claim {
    /// It is not in memory: the ledger must be asked. It is pending now, in the caller's hands, if it
    /// is wanted.
    Unseen,
    /// It was taken before.
    Known(FirstEvent),
    /// It was taken before, and its event may be lost since: ClickHouse must be asked about the event's minute, and what it
    /// does not know stays undecided.
    Doubted,
    /// It is pending, in this batch or another; its fate will be known.
    Pending(Arc<BatchCompletion>),
    /// Memory is full of ids that the ledger does not have yet.
    Full,
}

/// What the ledger says of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LedgerAnswer {
    /// It has not been taken.
    New,
    /// It was taken before.
    Known(FirstEvent),
    /// It is not there. Its event is of a day whose ids the ledger has let go of: ClickHouse must be
    /// asked about the event's minute, and what it does not know counts as new.
    BelowFloor,
    /// The ledger cannot say. ClickHouse must be asked about the event's minute, and what it does not
    /// know stays undecided.
    Undecided,
}

#[derive(Default)]
struct Shard {
    recent: Table,
    sealed: Option<Arc<Table>>,
    /// (Nobody can choose the fingerprints, so hashing them may be cheap.)
    pending: FxHashMap<[u32; 3], Arc<BatchCompletion>>,
}

impl Shard {
    fn known(&self, words: [u32; 3]) -> Option<FirstEvent> {
        let entry = self.recent.get(words).or_else(|| self.sealed.as_ref()?.get(words))?;
        Some(FirstEvent { payload: entry.payload, segment: entry.segment() })
    }
}

/// What is known of the recent ids of a segment together.
#[derive(Default)]
struct SettledIds {
    /// How many events of it are settled.
    events: u64,
    id_times: IdTimes,
    has_untimed: bool,
}

/// The deduplication index, shared by all batches. Its memory is bounded by `index_ids_max`.
pub struct Index {
    shards: Box<[Mutex<Shard>]>,
    /// Held for reading while ids become recent, and for writing while they are sealed, so that a
    /// batch is in the one or in the other.
    generation: RwLock<()>,
    /// The segments whose ids the ledger does not have.
    segments: Mutex<HashMap<Ordinal, SettledIds>>,
    /// Ids in memory, over all shards.
    len: AtomicUsize,
    /// Recent ids, over all shards.
    recent_len: AtomicUsize,
    ids_max: usize,
    /// A batch found no room, and none has found any or been made since.
    is_refusing: AtomicBool,
    run_ids: usize,
    seal_due: Notify,
    repair_due: Notify,
    ledger: Arc<Ledger>,
    /// Ids that were taken and whose events may be lost: usually none.
    doubted: RwLock<FxHashSet<Fingerprint>>,
    has_doubted: AtomicBool,
    /// Held from sealing to the end of writing, and while ids of lost events are taken away.
    writing: tokio::sync::Mutex<()>,
}

impl Index {
    /// An empty index for at most so many ids in memory, in front of a ledger.
    pub fn new(ids_max: usize, ledger: Arc<Ledger>) -> Self {
        let run_ids = usize::try_from(ledger.run_ids()).unwrap_or(usize::MAX);
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            generation: RwLock::new(()),
            segments: Mutex::default(),
            len: AtomicUsize::new(0),
            recent_len: AtomicUsize::new(0),
            ids_max,
            is_refusing: AtomicBool::new(false),
            run_ids,
            seal_due: Notify::new(),
            repair_due: Notify::new(),
            ledger,
            doubted: RwLock::default(),
            has_doubted: AtomicBool::new(false),
            writing: tokio::sync::Mutex::default(),
        }
    }

    /// Whether it has no room for new ids: the last batch that needed some found none, and the ledger has not taken
    /// any of those that are in memory since.
    pub fn is_full(&self) -> bool {
        self.ids() >= self.ids_max || self.is_refusing.load(Ordering::Relaxed)
    }

    /// The most ids it holds in memory.
    pub const fn ids_max(&self) -> usize {
        self.ids_max
    }

    /// How many ids it holds in memory.
    pub fn ids(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// The ids on disk.
    pub const fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    fn shard(&self, id: IdFingerprint) -> &Mutex<Shard> {
        &self.shards[id.shard()]
    }

    /// Whether memory has an id whose event is durable.
    pub fn is_known(&self, id: IdFingerprint) -> bool {
        self.shard(id).lock().known(id.words()).is_some()
    }

    /// Visits the shard of each id, in the order of the ids within a shard.
    ///
    /// Where an id belongs in a large table is in no cache of the processor's. So the places of all
    /// ids of a shard are read first, which does not wait for one before the next, and each shard is
    /// locked once.
    fn visit<T>(&self, of: &[T], id: impl Fn(&T) -> IdFingerprint, mut visit: impl FnMut(&mut Shard, usize)) {
        let mut order: Vec<(usize, usize)> =
            of.iter().enumerate().map(|(position, one)| (id(one).shard(), position)).collect();
        order.sort_unstable();
        for of_shard in order.chunk_by(|(a, _), (b, _)| a == b) {
            let mut shard = self.shards[of_shard[0].0].lock();
            for (_, position) in of_shard {
                shard.recent.touch_home(id(&of[*position]).words());
            }
            for (_, position) in of_shard {
                visit(&mut shard, *position);
            }
        }
    }

    /// Asks memory for ids, and claims those that are not there: each is pending until
    /// [`Index::settle`] or [`Index::release`] is called for it, and `completion` is what others who ask
    /// for it meanwhile are given to wait for. One answer for each, in their order; of an id that is
    /// asked for twice, the first claims it.
    pub fn claim(&self, asked: &[IdQuery], completion: &Arc<BatchCompletion>) -> Vec<Claim> {
        let mut claims: Vec<Claim> = Vec::new();
        claims.resize_with(asked.len(), || Claim::Full);
        self.visit(
            asked,
            |asked| asked.id,
            |shard, position| claims[position] = self.claim_one(shard, &asked[position], completion),
        );
        let is_any = |kind: fn(&Claim) -> bool| claims.iter().any(kind);
        if is_any(|claim| matches!(claim, Claim::Full)) {
            self.is_refusing.store(true, Ordering::Relaxed);
        } else if self.is_refusing.load(Ordering::Relaxed) && is_any(|claim| matches!(claim, Claim::Unseen)) {
            self.is_refusing.store(false, Ordering::Relaxed);
        }
        claims
    }

    fn claim_one(&self, shard: &mut Shard, asked: &IdQuery, completion: &Arc<BatchCompletion>) -> Claim {
        let words = asked.id.words();
        if let Some(first) = shard.known(words) {
            return if self.is_doubted(asked.id.in_ledger()) { Claim::Doubted } else { Claim::Known(first) };
        }
        if let Some(completion) = shard.pending.get(&words) {
            return Claim::Pending(Arc::clone(completion));
        }
        if asked.is_wanted {
            if self.len.fetch_add(1, Ordering::Relaxed) >= self.ids_max {
                self.len.fetch_sub(1, Ordering::Relaxed);
                self.seal_due.notify_one();
                return Claim::Full;
            }
            shard.pending.insert(words, Arc::clone(completion));
        }
        Claim::Unseen
    }

    /// Asks the ledger for ids that memory has not seen. One answer for each, in their order, with the
    /// day of its event.
    pub async fn ask_ledger(&self, unseen: &[(IdQuery, Day)]) -> Vec<LedgerAnswer> {
        let asked: Vec<tallyhouse_ledger::Asked> = unseen
            .iter()
            .map(|(asked, _)| tallyhouse_ledger::Asked { id: asked.id.in_ledger(), time_in_id: asked.time_in_id })
            .collect();
        let candidates = self.ledger.candidates(&asked);
        let when_missing = |(asked, day): &(IdQuery, Day)| {
            if self.is_doubted(asked.id.in_ledger()) {
                LedgerAnswer::Undecided
            } else if candidates.is_complete_from(*day) {
                LedgerAnswer::New
            } else if candidates.is_complete() {
                LedgerAnswer::BelowFloor
            } else {
                LedgerAnswer::Undecided
            }
        };
        let mut answers: Vec<LedgerAnswer> = unseen.iter().map(when_missing).collect();
        let read = match candidates.pages() {
            0 => return answers,
            1..=PAGES_INLINE_MAX => candidates.read(),
            _ => tokio::task::spawn_blocking(move || candidates.read()).await.unwrap_or_else(|error| {
                tracing::error!(%error, "reading the id ledger failed");
                Read { unread: (0..unseen.len()).collect(), ..Read::default() }
            }),
        };
        for at in read.unread {
            answers[at] = LedgerAnswer::Undecided;
        }
        for (at, entry) in read.found {
            let first = FirstEvent { payload: entry.payload, segment: SegmentTag::NONE };
            answers[at] = if self.is_doubted(entry.id) { LedgerAnswer::Undecided } else { LedgerAnswer::Known(first) };
        }
        if let Some(error) = read.error {
            tracing::error!(%error, "the id ledger is damaged: events whose ids may be in the damaged part are undecided");
            self.repair_due.notify_one();
        }
        answers
    }

    /// The first event of an id, wherever the id is; none when it was not taken, or that cannot be said.
    pub async fn first_of(&self, asked: IdQuery) -> Option<FirstEvent> {
        let in_memory = self.shard(asked.id).lock().known(asked.id.words());
        if in_memory.is_some() {
            return in_memory.filter(|_| !self.is_doubted(asked.id.in_ledger()));
        }
        match self.ask_ledger(&[(asked, Day::default())]).await.pop() {
            Some(LedgerAnswer::Known(first)) => Some(first),
            _ => None,
        }
    }

    /// Pending ids have become durable, in the segment with this ordinal.
    pub fn settle(&self, taken: &[TakenId], ordinal: Ordinal) {
        self.take_in(taken, ordinal, true);
    }

    /// Takes in ids that were found in a segment of the log at start.
    pub fn restore(&self, taken: &[TakenId], ordinal: Ordinal) {
        self.take_in(taken, ordinal, false);
    }

    fn take_in(&self, taken: &[TakenId], ordinal: Ordinal, are_pending: bool) {
        let _in_one_generation = self.generation.read();
        let mut id_times = IdTimes::default();
        taken.iter().filter_map(|taken| taken.time_in_id).for_each(|time| id_times.add(time));
        let has_untimed = taken.iter().any(|taken| taken.time_in_id.is_none());
        let segment = SegmentTag::of(ordinal);
        let (mut added, mut gone) = (0, 0);
        self.visit(
            taken,
            |taken| taken.id,
            |shard, position| {
                let TakenId { id, payload, minute, .. } = taken[position];
                let words = id.words();
                if are_pending {
                    gone += usize::from(shard.pending.remove(&words).is_some());
                }
                let is_sealed = shard.sealed.as_ref().is_some_and(|sealed| sealed.get(words).is_some());
                if !is_sealed && shard.recent.insert(Entry::new(words, payload, minute, segment)) {
                    added += 1;
                }
            },
        );
        self.len.fetch_add(added, Ordering::Relaxed);
        self.len.fetch_sub(gone, Ordering::Relaxed);
        {
            let mut segments = self.segments.lock();
            let settled = segments.entry(ordinal).or_default();
            settled.events += taken.len() as u64;
            settled.id_times.add_all(&id_times);
            settled.has_untimed |= has_untimed;
        }
        if self.recent_len.fetch_add(added, Ordering::Relaxed) + added >= self.run_ids {
            self.seal_due.notify_one();
        }
    }

    /// A pending id has not become durable, or was taken before.
    pub fn release(&self, id: IdFingerprint) {
        if self.shard(id).lock().pending.remove(&id.words()).is_some() {
            self.len.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Waits until enough ids are recent to seal them.
    pub async fn seal_due(&self) {
        self.seal_due.notified().await;
    }

    /// The ledger may be damaged.
    pub fn note_damage(&self) {
        self.repair_due.notify_one();
    }

    /// Waits until a damaged page of the ledger has been met.
    pub async fn repair_due(&self) {
        self.repair_due.notified().await;
    }

    /// Waits for the right to seal and write ids, or to take lost ones away. One at a time may.
    pub async fn writing(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.writing.lock().await
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(super) mod doubles {
    //! Indexes in front of ledgers in memory.

    use std::path::Path;

    use tallyhouse_disk::SimulatedDisk;
    use tallyhouse_ledger::LedgerSettings;

    use super::*;

    fn ledger(ids_max: u64) -> Ledger {
        let settings = LedgerSettings { run_ids: 250, ids_max, key_check: 0 };
        Ledger::open(Arc::new(SimulatedDisk::new()), Path::new("/ledger"), settings).unwrap()
    }

    /// With a ledger that knows all ids there are: none.
    pub(crate) fn index(ids_max: usize) -> Arc<Index> {
        let ledger = ledger(1 << 40);
        ledger.mark_complete(true).unwrap();
        Arc::new(Index::new(ids_max, Arc::new(ledger)))
    }

    /// With a ledger that knows all ids of events from the day after this one on.
    pub(crate) fn index_after(day: Day) -> Arc<Index> {
        let ledger = ledger(1 << 40);
        ledger.mark_complete(true).unwrap();
        ledger.expire(Day(day.0 + 1)).unwrap();
        assert_eq!(ledger.status().floor, Day(day.0 + 1));
        Arc::new(Index::new(1_000, Arc::new(ledger)))
    }
}
