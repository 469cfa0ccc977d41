//! Rebuilds the id ledger from ClickHouse, in whole or in part.
//!
//! A ledger that is new, damaged or missing does not know the ids that are stored. This module reads them from ClickHouse in
//! the background while ingest continues: known ids are answered, and ids that the ledger cannot decide about are looked up
//! or left undecided. The ledger is complete once all ids have been read.
//!
//! If single pages of runs are damaged, only the ids that these runs may have held are read again.

use std::sync::Arc;

use tallyhouse_ledger::{Asked, Entry, IdTimes, Ledger, LedgerError, NewRun};
use tokio::task::spawn_blocking;

use super::fingerprint::Fingerprinter;
use super::index::TakenId;
use super::segment_ids::{read_segment_ids, taken};
use super::stored_rows::StoredRows;
use crate::event_row::Rows;
use crate::event_store::{EventStore, MinuteSet, StoreError};
use crate::log::{EventLog, Segment};

/// Ids of a run that is written, about: as many are held in memory, at 16 bytes each.
const RUN_IDS: usize = 500_000;

/// Why a rebuild was broken off. What was read stays in the ledger.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The disk failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A segment of the log could not be read.
    #[error("the segment {segment}: {error}")]
    Segment {
        /// The segment.
        segment: uuid::Uuid,
        /// Why.
        error: String,
    },
}

/// Reads the ids of all stored events into the ledger, and marks it as complete. Returns how many
/// there were.
///
/// # Errors
/// The database's and the ledger's. The ledger is not complete then; beginning again is safe.
pub async fn rebuild(
    ledger: &Arc<Ledger>,
    fingerprinter: Fingerprinter,
    store: &dyn EventStore,
) -> Result<u64, RebuildError> {
    tracing::info!("the id ledger is rebuilt from ClickHouse");
    let mut collected = RunCollector::new(ledger, |_| true);
    collected.skips_days_before_floor = true;
    collect_stored(&mut collected, fingerprinter, store).await?;
    let ids = collected.finish().await?;
    let complete = Arc::clone(ledger);
    blocking(move || complete.mark_complete(true)).await?;
    tracing::info!(ids, "the id ledger is complete");
    Ok(ids)
}

/// Replaces the damaged runs of the ledger, if there are any, by what the log and ClickHouse have of their ids. Returns
/// how many ids were added.
///
/// # Errors
/// The database's, the ledger's and the log's. The damaged runs stay then.
pub async fn repair(
    ledger: &Arc<Ledger>,
    fingerprinter: Fingerprinter,
    log: &dyn EventLog,
    store: &dyn EventStore,
) -> Result<u64, RebuildError> {
    let Some(repair) = ledger.begin_repair().map(Arc::new) else { return Ok(0) };
    tracing::error!(
        ids = repair.ids(),
        "runs of the id ledger are damaged and are replaced from ClickHouse and the log"
    );
    let of_damaged = Arc::clone(&repair);
    let mut collected = RunCollector::new(ledger, move |asked| of_damaged.may_have_held(asked));
    // FirstEvent the log: what has left it before was stored before, and what leaves it meanwhile is found stored.
    for segment in log.segments().list().into_iter().filter(|segment| ledger.covers(segment.id)) {
        collect_segment(&mut collected, fingerprinter, log, &segment).await?;
    }
    collect_stored(&mut collected, fingerprinter, store).await?;
    let ids = collected.finish().await?;
    let repaired = Arc::clone(ledger);
    blocking(move || repaired.finish_repair(&repair)).await?;
    tracing::info!(ids, "the id ledger is repaired");
    Ok(ids)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LedgerError> + Send + 'static,
) -> Result<T, LedgerError> {
    spawn_blocking(work).await.unwrap_or_else(|error| {
        tracing::error!(%error, "work on the id ledger failed");
        Err(LedgerError::interrupted())
    })
}

async fn collect_segment(
    collected: &mut RunCollector,
    fingerprinter: Fingerprinter,
    log: &dyn EventLog,
    segment: &Segment,
) -> Result<(), RebuildError> {
    let of = segment.clone();
    let read = spawn_blocking(move || {
        let mut all = Vec::new();
        read_segment_ids(&of, fingerprinter, |taken| all.extend(taken)).map(|()| all)
    });
    match read.await {
        Ok(Ok(all)) => {
            all.iter().for_each(|taken| collected.add(taken));
            Ok(collected.write_if_full().await?)
        }
        // It has been stored meanwhile, so it is found in ClickHouse.
        _ if log.segments().find(segment.ordinal).is_none() => Ok(()),
        Ok(Err(error)) => Err(RebuildError::Segment { segment: segment.id, error: error.to_string() }),
        Err(error) => Err(RebuildError::Segment { segment: segment.id, error: error.to_string() }),
    }
}

async fn collect_stored(
    collected: &mut RunCollector,
    fingerprinter: Fingerprinter,
    store: &dyn EventStore,
) -> Result<(), RebuildError> {
    let mut stored = StoredRows::read(store, &MinuteSet::All).await?;
    while let Some(rows) = stored.next().await? {
        for span in Rows::payloads(&rows).map_while(Result::ok) {
            collected.add(&taken(fingerprinter, &rows, &span));
        }
        collected.write_if_full().await?;
    }
    Ok(())
}

/// Ids that were read, on their way into the ledger.
struct RunCollector {
    ledger: Arc<Ledger>,
    wants: Box<dyn Fn(&Asked) -> bool + Send + Sync>,
    entries: Vec<Entry>,
    id_times: IdTimes,
    has_untimed: bool,
    /// Ids of stored events before the floor are not written: the ledger would let them go again.
    skips_days_before_floor: bool,
    written: u64,
}

impl RunCollector {
    fn new(ledger: &Arc<Ledger>, wants: impl Fn(&Asked) -> bool + Send + Sync + 'static) -> Self {
        Self {
            ledger: Arc::clone(ledger),
            wants: Box::new(wants),
            entries: Vec::new(),
            id_times: IdTimes::default(),
            has_untimed: false,
            skips_days_before_floor: false,
            written: 0,
        }
    }

    fn add(&mut self, taken: &TakenId) {
        let id = taken.id.in_ledger();
        if !(self.wants)(&Asked { id, time_in_id: taken.time_in_id }) {
            return;
        }
        self.entries.push(Entry { id, payload: taken.payload, day: taken.minute.day() });
        match taken.time_in_id {
            Some(time) => self.id_times.add(time),
            None => self.has_untimed = true,
        }
    }

    async fn write_if_full(&mut self) -> Result<(), LedgerError> {
        if self.entries.len() < RUN_IDS { Ok(()) } else { self.write().await }
    }

    /// Writes the rest, and returns how many ids were written.
    async fn finish(mut self) -> Result<u64, LedgerError> {
        self.write().await?;
        Ok(self.written)
    }

    async fn write(&mut self) -> Result<(), LedgerError> {
        let mut entries = std::mem::take(&mut self.entries);
        if self.skips_days_before_floor {
            let floor = self.ledger.status().floor;
            entries.retain(|entry| entry.day >= floor);
        }
        if entries.is_empty() {
            return Ok(());
        }
        let (id_times, has_untimed) = (std::mem::take(&mut self.id_times), std::mem::take(&mut self.has_untimed));
        let (ledger, expected) = (Arc::clone(&self.ledger), entries.len() as u64);
        let write = move || {
            entries.sort_unstable();
            let entries = entries.into_iter();
            ledger.add_run(NewRun { entries, expected, id_times, has_untimed, covered: Vec::new() }, |_| true)
        };
        blocking(write).await?;
        self.written += expected;
        Ok(())
    }
}
