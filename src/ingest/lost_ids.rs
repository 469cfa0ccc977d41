//! Finds and releases the ids of events that were lost with a damaged segment, so that the events can be sent again.
//!
//! The index knows these ids as taken, and they cannot be read from the damaged bytes. They are found by exclusion:
//! of all ids that were in the segment, those that are in no good frame of an unstored segment and not in ClickHouse.
//!
//! The ids of a segment are known from memory, or, after a restart or once the ledger covers the segment, from the note that
//! is written before its first insert. A segment without a note was not inserted, unless the note could not be written (on a
//! full disk) or an earlier release inserted it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tallyhouse_ledger::{Fingerprint, Ledger, LedgerError, SegmentNote};
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;
use uuid::Uuid;

use super::fingerprint::Fingerprinter;
use super::index::{Index, Minute, TakenId};
use super::segment_ids::{SegmentIdsError, read_segment_ids, taken};
use super::stored_rows::for_each_stored;
use crate::event_store::{EventStore, MinuteSet, StoreError};
use crate::log::{EventLog, Segment, SegmentTag};

/// Minutes that ClickHouse is asked for at a time.
const MINUTES_PER_READING: usize = 1_000;
/// Pause between two looks whether all batches of a segment are settled, and how many looks there are.
const SETTLED_LOOK_PAUSE: Duration = Duration::from_millis(20);
const SETTLED_LOOKS_MAX: u32 = 250;
/// How often a segment's file is looked for: it may get another name meanwhile.
const ATTEMPTS: u32 = 3;

/// Finds and releases the ids of a damaged segment's lost events.
pub struct LostIds {
    index: Arc<Index>,
    log: Arc<dyn EventLog>,
    store: Arc<dyn EventStore>,
    fingerprinter: Fingerprinter,
    /// The notes that this run has written or is writing, of segments that are not stored.
    notes: Mutex<HashMap<Uuid, Arc<OnceCell<()>>>>,
    /// Damaged segments that are not stored, whose lost ids have been forgotten.
    judged: Mutex<HashSet<Uuid>>,
}

impl LostIds {
    /// Of this log, in this index.
    pub fn new(
        index: Arc<Index>,
        log: Arc<dyn EventLog>,
        store: Arc<dyn EventStore>,
        fingerprinter: Fingerprinter,
    ) -> Arc<Self> {
        Arc::new(Self { index, log, store, fingerprinter, notes: Mutex::default(), judged: Mutex::default() })
    }

    /// Writes the ids of a segment to a note, durably. Must be called before its events are in ClickHouse or its ids in the
    /// ledger: if its file is damaged later, the note tells which ids it had.
    ///
    /// # Errors
    /// When the segment cannot be read to its end, or the note cannot be written.
    pub async fn note_ids(&self, segment: &Segment) -> Result<(), String> {
        let note = Arc::clone(self.notes.lock().entry(segment.id).or_default());
        let noted = note.get_or_try_init(|| self.write_note(segment)).await.copied();
        if noted.is_err() {
            self.notes.lock().remove(&segment.id);
        }
        noted
    }

    async fn write_note(&self, segment: &Segment) -> Result<(), String> {
        let (ledger, fingerprinter, of) = (Arc::clone(self.index.ledger()), self.fingerprinter, segment.clone());
        let note = spawn_blocking(move || write_note(&ledger, fingerprinter, &of)).await;
        note.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Forgets the ids that were lost with this segment, and returns how many they were. Ids of its damaged part whose
    /// events ClickHouse has are taken into memory. Must be called once the segment says what is good of it.
    ///
    /// # Errors
    /// When a segment, the ledger or ClickHouse cannot be read: it must be called again.
    pub async fn forget_of(&self, segment: &Segment) -> Result<usize, StoreError> {
        self.all_settled(segment).await;
        let tag = SegmentTag::of(segment.ordinal);
        let note = self.note(segment.id).await?;
        let is_noted = note.is_some();
        let mut suspects: HashMap<Fingerprint, Minute> = note.iter().flat_map(minutes_of).collect();
        {
            let _writing = self.index.writing().await;
            suspects.extend(self.index.tagged(tag));
        }
        // What is known from memory can only be in a segment with the same tag.
        let with_tag = |other: &Segment| SegmentTag::of(other.ordinal) == tag;
        let (like, unlike): (Vec<_>, Vec<_>) = self.log.segments().list().into_iter().partition(with_tag);
        let suspects = self.unlogged(suspects, like).await?;
        let doubted: Vec<Fingerprint> = suspects.keys().copied().collect();
        // Until it is known what is lost, nobody is told that an event is there that is not.
        self.index.doubt(doubted.iter().copied());
        let others = if is_noted { unlike } else { Vec::new() };
        // ClickHouse may still execute an insert of this segment that this run or a former one gave up.
        self.store.inserts_ended().await?;
        let Suspects { lost, stored } = self.judge(suspects, others).await?;
        {
            let _writing = self.index.writing().await;
            self.index.forget(tag, &lost);
            // A former run inserted them, and their frames are damaged: neither memory nor the ledger knows them.
            self.index.restore(&stored, segment.ordinal);
        }
        // That may take minutes. Ids are written to the ledger meanwhile; these are in doubt, so that none of them comes anew.
        self.forget_in_ledger(segment.id, &lost, is_noted).await?;
        self.judged.lock().insert(segment.id);
        self.index.trust(doubted.into_iter().chain(note.iter().flat_map(minutes_of).map(|(id, _)| id)));
        Ok(lost.len())
    }

    /// Whether the ids that were lost with a damaged segment have been forgotten: what it has now is good, and is taken.
    pub fn has_judged(&self, segment: Uuid) -> bool {
        self.judged.lock().contains(&segment)
    }

    /// The same of a segment that has been noted and is not in the log any more: either its events are stored, or
    /// nothing of it was good.
    ///
    /// # Errors
    /// As above.
    pub async fn forget_of_missing(&self, segment: Uuid) -> Result<usize, StoreError> {
        let Some(note) = self.note(segment).await? else {
            // One that cannot be read tells nothing any more.
            self.forget_note(segment).await;
            return Ok(0);
        };
        // ClickHouse may still execute an insert of it that a former run began.
        self.store.inserts_ended().await?;
        let suspects = self.unlogged(minutes_of(&note).collect(), self.log.segments().list()).await?;
        let Suspects { lost, stored } = self.judge(suspects, Vec::new()).await?;
        if !stored.is_empty() && !self.index.ledger().covers(segment) {
            let incomplete = self.in_ledger(|ledger| ledger.mark_complete(false)).await;
            incomplete.map_err(|error| StoreError::Retry(error.to_string()))?;
            self.index.note_damage();
        }
        self.forget_in_ledger(segment, &lost, true).await?;
        self.index.trust(minutes_of(&note).map(|(id, _)| id));
        self.forget_note(segment).await;
        Ok(lost.len())
    }

    /// A segment is stored, so that nothing of it can be lost any more.
    pub async fn forget_note(&self, segment: Uuid) {
        self.notes.lock().remove(&segment);
        self.judged.lock().remove(&segment);
        if let Err(error) = self.in_ledger(move |ledger| ledger.forget_segment(segment)).await {
            // The next start finds all of its ids in ClickHouse.
            tracing::warn!(%error, %segment, "a note of the id ledger could not be removed");
        }
    }

    async fn note(&self, segment: Uuid) -> Result<Option<SegmentNote>, StoreError> {
        match self.in_ledger(move |ledger| ledger.segment_note(segment)).await {
            Err(error) if error.is_damage() => {
                tracing::error!(%error, %segment, "which ids were lost with a segment cannot be told: they stay taken");
                Ok(None)
            }
            note => note.map_err(|error| StoreError::Retry(error.to_string())),
        }
    }

    async fn forget_in_ledger(
        &self,
        segment: Uuid,
        lost: &HashSet<Fingerprint>,
        is_noted: bool,
    ) -> Result<(), StoreError> {
        if lost.is_empty() || !is_noted {
            return Ok(());
        }
        let lost = lost.clone();
        let removed = self.in_ledger(move |ledger| ledger.remove(segment, &lost)).await;
        removed.map_err(|error| StoreError::Retry(error.to_string()))
    }

    async fn in_ledger<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Ledger) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let ledger = Arc::clone(self.index.ledger());
        spawn_blocking(move || ask(&ledger)).await.unwrap_or_else(|error| {
            tracing::error!(%error, "work on the id ledger failed");
            Err(LedgerError::interrupted())
        })
    }

    /// Waits until the index knows all that was written to a segment, for a bounded time.
    async fn all_settled(&self, segment: &Segment) {
        for _ in 0..SETTLED_LOOKS_MAX {
            if self.index.is_settled(segment.ordinal, segment.rows_written) {
                return;
            }
            tokio::time::sleep(SETTLED_LOOK_PAUSE).await;
        }
        tracing::warn!(segment = %segment.id, "batches of a damaged segment were not settled in time");
    }

    /// Those of these ids that are in no good frame of these segments.
    async fn unlogged(
        &self,
        mut ids: HashMap<Fingerprint, Minute>,
        segments: Vec<Segment>,
    ) -> Result<HashMap<Fingerprint, Minute>, StoreError> {
        for segment in segments {
            if ids.is_empty() {
                break;
            }
            for id in self.logged_ids(segment).await? {
                ids.remove(&id);
            }
        }
        Ok(ids)
    }

    /// Tells those of these ids that are in these segments from those that are in ClickHouse and those that are lost.
    async fn judge(
        &self,
        suspects: HashMap<Fingerprint, Minute>,
        segments: Vec<Segment>,
    ) -> Result<Suspects, StoreError> {
        // Whatever is in an unstored segment by now was durable before the index had it.
        let mut suspects = self.unlogged(suspects, segments).await?;
        let minutes: Vec<Minute> = suspects.values().copied().collect::<BTreeSet<_>>().into_iter().collect();
        let mut stored = Vec::new();
        for minutes in minutes.chunks(MINUTES_PER_READING) {
            let minutes = MinuteSet::These(minutes.iter().map(|minute| minute.start()).collect());
            let found = for_each_stored(&*self.store, &minutes, |rows, span| {
                let row = taken(self.fingerprinter, rows, span);
                if suspects.remove(&row.id.in_ledger()).is_some() {
                    stored.push(row);
                }
            });
            found.await?;
        }
        Ok(Suspects { lost: suspects.into_keys().collect(), stored })
    }

    /// The ids in the good frames of a segment; none when it has been stored meanwhile.
    async fn logged_ids(&self, mut segment: Segment) -> Result<Vec<Fingerprint>, StoreError> {
        let mut last_error = String::new();
        for _ in 0..ATTEMPTS {
            let (of, fingerprinter) = (segment.clone(), self.fingerprinter);
            let read = spawn_blocking(move || read_ids(&of, fingerprinter)).await;
            match read.map_err(|error| StoreError::Retry(error.to_string()))? {
                Ok(ids) => return Ok(ids),
                Err(error) => last_error = error.to_string(),
            }
            match self.log.segments().find(segment.ordinal) {
                Some(now) => segment = now,
                None => return Ok(Vec::new()),
            }
        }
        Err(StoreError::Retry(last_error))
    }
}

/// What has become of the ids of a damaged segment that are in no good frame.
struct Suspects {
    /// Those whose events are nowhere.
    lost: HashSet<Fingerprint>,
    /// Those whose events are in ClickHouse.
    stored: Vec<TakenId>,
}

/// Notes the ids of a segment (see [`LostIds::note_ids`]). Blocks on the disk.
///
/// # Errors
/// When the segment cannot be read to its end, or the note cannot be written.
pub(super) fn write_note(ledger: &Ledger, fingerprinter: Fingerprinter, segment: &Segment) -> Result<(), String> {
    let mut ids: Vec<(Fingerprint, u32)> = Vec::new();
    let read = read_segment_ids(segment, fingerprinter, |taken| {
        ids.extend(taken.iter().map(|taken| (taken.id.in_ledger(), taken.minute.bits())));
    });
    read.map_err(|error| error.to_string())?;
    ledger.note_segment(&SegmentNote { segment: segment.id, ids }).map_err(|error| error.to_string())
}

fn minutes_of(note: &SegmentNote) -> impl Iterator<Item = (Fingerprint, Minute)> + '_ {
    note.ids.iter().map(|(id, minute)| (*id, Minute::of_bits(*minute)))
}

/// At start: doubts the ids of noted segments that are damaged or missing, until it is known what is lost of them.
/// Blocks on the disk.
///
/// # Errors
/// When a note or a segment cannot be read.
pub fn doubt_lost(index: &Index, fingerprinter: Fingerprinter, log: &dyn EventLog) -> Result<(), StoreError> {
    let failed = |error: LedgerError| StoreError::Retry(error.to_string());
    let (segments, stored) = (log.segments().list(), log.segments().retained());
    for noted in index.ledger().noted_segments().map_err(failed)? {
        let segment = segments.iter().find(|segment| segment.id == noted);
        let is_stored = stored.iter().any(|segment| segment.id == noted);
        if !is_stored && segment.is_none_or(|segment| segment.salvage.is_some()) {
            doubt_of(index, fingerprinter, noted, segment)?;
        }
    }
    Ok(())
}

fn doubt_of(
    index: &Index,
    fingerprinter: Fingerprinter,
    noted: Uuid,
    segment: Option<&Segment>,
) -> Result<(), StoreError> {
    let note = match index.ledger().segment_note(noted) {
        Err(error) if error.is_damage() => return Ok(()), // It is said when the loss is looked at.
        note => note.map_err(|error| StoreError::Retry(error.to_string()))?,
    };
    let mut ids: HashSet<Fingerprint> = note.iter().flat_map(minutes_of).map(|(id, _)| id).collect();
    if let Some(segment) = segment {
        let good = read_ids(segment, fingerprinter).map_err(|error| StoreError::Retry(error.to_string()))?;
        good.iter().for_each(|id| _ = ids.remove(id));
    }
    index.doubt(ids);
    Ok(())
}

/// Reads the ids of a segment up to its end, or up to where it is being written.
fn read_ids(segment: &Segment, fingerprinter: Fingerprinter) -> Result<Vec<Fingerprint>, SegmentIdsError> {
    let mut ids = Vec::new();
    let read =
        read_segment_ids(segment, fingerprinter, |taken| ids.extend(taken.iter().map(|taken| taken.id.in_ledger())));
    match read {
        Err(error) if !error.is_damage() => Err(error),
        Ok(()) | Err(_) => Ok(ids),
    }
}
