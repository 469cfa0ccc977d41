//! Inserts sealed segments of the log into ClickHouse.
//!
//! The forwarder repeats the insert of a segment until it succeeds, each time with the same bytes under the same token,
//! through restarts and outages of ClickHouse. A segment that ClickHouse refuses for a reason that waiting does not
//! remove is parked until an operator retries it. No segment is dropped.

use std::iter::repeat_n;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::lost_ids::LostIds;
use crate::event_row;
use crate::event_store::insert_gate::InsertGate;
use crate::event_store::{EventStore, SegmentInsert, StoreError};
use crate::hour_versions::segment_hours::touch_hours;
use crate::hour_versions::segment_hours::{SegmentHours, read_hours};
use crate::hour_versions::{HourVersions, TouchedHours};
use crate::instruments;
use crate::log::dedup_window::CurrentDedupWindow;
use crate::log::{EventLog, FrameError, Lane, OldDays, SCATTERED_INSERTS_MAX, Segment, SegmentFrames, SegmentState};

/// Rows are handed over in pieces of about this size.
const CHUNK_BYTES: usize = 512 << 10;
/// Pieces that may wait for the connection.
const CHUNKS_WAITING_MAX: usize = 2;

/// A way to insert a segment: under its token, or without relying on it.
type InsertKind<'a> = fn(&'a dyn EventStore, SegmentInsert) -> BoxFuture<'a, Result<(), StoreError>>;

/// How the forwarder goes about it. See the settings of the same names in
/// [`crate::config::Config`].
#[derive(Clone, Copy, Debug)]
pub struct ForwarderSettings {
    /// Inserts of the log's main lane under way at a time.
    pub inserts_in_flight_max: usize,
    /// Longest an insert may take.
    pub insert_wait_max: Duration,
    /// The first pause before an insert is repeated.
    pub backoff_min: Duration,
    /// The longest pause before an insert is repeated.
    pub backoff_max: Duration,
}

/// Inserts sealed segments into the database, and repeats until it succeeds. Segments that the
/// database refuses are parked.
pub struct Forwarder {
    settings: ForwarderSettings,
    log: Arc<dyn EventLog>,
    lost_ids: Arc<LostIds>,
    store: Arc<dyn EventStore>,
    hour_versions: Arc<HourVersions>,
    gate: Arc<InsertGate>,
    dedup_window: Arc<CurrentDedupWindow>,
}

impl Forwarder {
    /// Creates the forwarder from this log to this database. It raises the versions of the hours that each insert
    /// touches.
    pub fn new(
        settings: ForwarderSettings,
        log: Arc<dyn EventLog>,
        lost_ids: Arc<LostIds>,
        store: Arc<dyn EventStore>,
        hour_versions: Arc<HourVersions>,
        gate: Arc<InsertGate>,
        dedup_window: Arc<CurrentDedupWindow>,
    ) -> Arc<Self> {
        Arc::new(Self { settings, log, lost_ids, store, hour_versions, gate, dedup_window })
    }

    /// Starts as many tasks as inserts of each lane may be under way. They end soon after
    /// `stop`; a segment whose insert is under way then stays in the log.
    pub fn start(self: &Arc<Self>, tasks: &TaskTracker, stop: &CancellationToken) {
        let main = repeat_n(Lane::Main, self.settings.inserts_in_flight_max);
        for lane in main.chain(repeat_n(Lane::Scattered, SCATTERED_INSERTS_MAX)) {
            let (forwarder, stop) = (Arc::clone(self), stop.clone());
            tasks.spawn(async move { stop.run_until_cancelled(forwarder.work(lane)).await });
        }
    }

    async fn work(&self, lane: Lane) {
        let mut changes = self.log.segments().changes();
        loop {
            while let Some(segment) = self.log.take_sealed(lane) {
                if segment.lane == Lane::Unknown && is_scattered(&segment).await {
                    self.log.move_to_scattered(&segment);
                    continue;
                }
                self.forward(&segment).await;
                self.refresh_dedup_window().await;
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Inserts a segment, however often it takes.
    async fn forward(&self, segment: &Segment) {
        let mut segment = segment.clone();
        let mut pauses = pauses(&self.settings);
        let mut wait = InsertWait::new(self.settings.insert_wait_max);
        loop {
            match self.insert(&segment, &mut wait).await {
                Ok(touched) => {
                    instruments::inserted("stored");
                    // In this order: a caller who sees that the segment has
                    // gone must not be given an answer from before.
                    self.hour_versions.note_stored(touched);
                    self.log.stored(&segment);
                    self.lost_ids.forget_note(segment.id).await;
                    return;
                }
                Err(StoreError::Refused(error)) => {
                    instruments::inserted("refused");
                    if let Some(salvaged) = self.salvage(&segment).await {
                        segment = salvaged;
                        continue;
                    }
                    tracing::error!(segment = %segment.id, error, "ClickHouse refused a segment; it is parked");
                    self.log.park(&segment, error);
                    return;
                }
                Err(StoreError::Retry(error)) => {
                    instruments::inserted("failed");
                    let pause = pauses.next().unwrap_or(self.settings.backoff_max);
                    tracing::warn!(segment = %segment.id, error, ?pause, "an insert failed and will be repeated");
                    self.log.failed(&segment, error);
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    /// After a refusal: the segment with what is good of it, if its file turns out to be damaged.
    async fn salvage(&self, segment: &Segment) -> Option<Segment> {
        let (log, of) = (Arc::clone(&self.log), segment.clone());
        let is_good = move || -> std::io::Result<Option<Segment>> {
            if read_to_end(&of).is_ok() { Ok(None) } else { log.salvage(&of) }
        };
        match tokio::task::spawn_blocking(is_good).await {
            Ok(Ok(salvaged)) => salvaged,
            Ok(Err(error)) => {
                tracing::error!(%error, segment = %segment.id, "a segment cannot be read");
                None
            }
            Err(error) => {
                tracing::error!(%error, segment = %segment.id, "the search of a segment failed");
                None
            }
        }
    }

    async fn insert(&self, segment: &Segment, wait: &mut InsertWait) -> Result<TouchedHours, StoreError> {
        self.note_ids(segment).await;
        let attempt = self.gate.attempt(segment.id, segment.lane).await;
        let touched = if let Some(salvage) = &segment.salvage {
            // Its token names the bytes that were written, not these.
            self.in_log(segment, <dyn EventLog>::distrust_token).await?;
            self.forget_lost(segment).await?;
            match salvage.rows {
                0 => TouchedHours::default(),
                _ => self.send(segment, wait, EventStore::settle).await?,
            }
        } else if attempt.is_first() {
            self.send(segment, wait, EventStore::insert).await?
        } else {
            self.insert_again(segment, wait).await?
        };
        attempt.stored();
        Ok(touched)
    }

    /// Notes the ids of a segment before its first insert (see [`LostIds::note_ids`]). If the note cannot be written, the
    /// segment is inserted all the same: on a full disk, that makes room.
    async fn note_ids(&self, segment: &Segment) {
        if segment.salvage.is_some() {
            return;
        }
        if let Err(error) = self.lost_ids.note_ids(segment).await {
            tracing::warn!(error, segment = %segment.id, "the ids of a segment could not be noted before its insert");
        }
    }

    /// Takes the ids back that were lost with a damaged segment.
    async fn forget_lost(&self, segment: &Segment) -> Result<(), StoreError> {
        let lost = self.lost_ids.forget_of(segment).await?;
        if lost > 0 {
            tracing::error!(segment = %segment.id, lost, "acknowledged events are lost; they are accepted when sent again");
        }
        Ok(())
    }

    /// Under its token each table takes what it lacks. But a table notes the
    /// token before it has the rows, and may fail in between, so that it knows
    /// the token is no proof. So the rows are compared with what is stored, too.
    async fn insert_again(&self, segment: &Segment, wait: &mut InsertWait) -> Result<TouchedHours, StoreError> {
        if self.token_holds(segment).await? {
            self.send(segment, wait, EventStore::insert).await?;
        } else {
            // What made it so may be otherwise later, as the clock may: it is judged once.
            self.in_log(segment, <dyn EventLog>::distrust_token).await?;
            tracing::warn!(segment = %segment.id, "the token of a segment cannot be relied on any more");
        }
        tracing::info!(segment = %segment.id, "a segment is settled");
        self.send(segment, wait, EventStore::settle).await
    }

    /// Reads a segment into an insert of this kind, and waits for its answer.
    async fn send<'a>(
        &'a self,
        segment: &Segment,
        wait: &mut InsertWait,
        insert: InsertKind<'a>,
    ) -> Result<TouchedHours, StoreError> {
        let reading = read_segment(segment).map_err(|error| match error {
            FrameError::Io(_) => StoreError::Retry(error.to_string()),
            FrameError::Torn | FrameError::Damaged => StoreError::Refused(error.to_string()),
        })?;
        let calls = segment.calls.clone();
        let rows = SegmentInsert { token: segment.id, columns: reading.columns, chunks: reading.chunks, calls };
        wait.run(insert(&*self.store, rows)).await?;
        reading.touched.await.map_err(|_| StoreError::Retry("the segment was not read to its end".to_owned()))
    }

    /// Whether a segment that may have been inserted before, in whole or in
    /// part, can be inserted again under its token.
    async fn token_holds(&self, segment: &Segment) -> Result<bool, StoreError> {
        if self.in_log(segment, <dyn EventLog>::is_token_distrusted).await? {
            return Ok(false);
        }
        let now = self.store.dedup_window().await?;
        let is_old = age(segment) > self.store.token_age_max();
        if is_old || !segment.dedup_window.still_holds(now, self.store.token_blocks_max()) {
            return Ok(false);
        }
        let reading = segment.clone();
        let hours = tokio::task::spawn_blocking(move || read_hours(&reading)).await;
        match hours.map_err(|error| StoreError::Retry(error.to_string()))? {
            Ok(SegmentHours::Known(hours)) => Ok(!self.store.repaired_since(&hours, segment.opened_at_micros).await?),
            // Of another version: it may lie in any hour.
            Ok(SegmentHours::Unknown) => Ok(false),
            Err(error) => Err(StoreError::Retry(error.to_string())),
        }
    }

    /// Asks the log something that blocks on the disk.
    async fn in_log<T: Send + 'static>(
        &self,
        segment: &Segment,
        ask: fn(&dyn EventLog, &Segment) -> std::io::Result<T>,
    ) -> Result<T, StoreError> {
        let (log, segment) = (Arc::clone(&self.log), segment.clone());
        let asked = tokio::task::spawn_blocking(move || ask(&*log, &segment)).await;
        let asked = asked.map_err(|error| StoreError::Retry(error.to_string()))?;
        asked.map_err(|error| StoreError::Retry(error.to_string()))
    }

    /// Reads the deduplication window for segments that are opened from now on, when the last reading is old.
    async fn refresh_dedup_window(&self) {
        if !self.dedup_window.is_stale() {
            return;
        }
        match self.store.dedup_window().await {
            Ok(dedup_window) => self.dedup_window.set(dedup_window),
            // The old reading is on the safe side.
            Err(error) => tracing::debug!(%error, "the deduplication window could not be read"),
        }
    }

    /// Waits until every segment is stored or parked.
    pub async fn drained(&self) {
        let mut changes = self.log.segments().changes();
        let waits = |segment: &Segment| segment.state != SegmentState::Parked;
        while self.log.segments().list().iter().any(waits) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Whether a segment that a former run has left has events of more days than one of the main lane.
async fn is_scattered(segment: &Segment) -> bool {
    let (reading, mut old_days) = (segment.clone(), OldDays::of_segment(segment.opened_at_micros));
    match tokio::task::spawn_blocking(move || read_hours(&reading)).await {
        Ok(Ok(SegmentHours::Known(hours))) => !old_days.admit(&hours.days()),
        // The insert tells what is wrong with it.
        Ok(Ok(SegmentHours::Unknown) | Err(_)) | Err(_) => false,
    }
}

/// How long ago a segment was opened, by the clock of this machine.
fn age(segment: &Segment) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_micros(segment.opened_at_micros))
}

/// How long an insert of one segment may take. After each attempt that takes too long, the next one may take twice as
/// long, up to [`InsertWait::GROWTH_MAX`] times the first: on a slow ClickHouse, a fixed time may never be enough.
struct InsertWait {
    current: Duration,
    max: Duration,
}

impl InsertWait {
    /// The longest wait, as a multiple of the first.
    const GROWTH_MAX: u32 = 4;

    const fn new(first: Duration) -> Self {
        Self { current: first, max: first.saturating_mul(Self::GROWTH_MAX) }
    }

    async fn run<T>(&mut self, insert: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        tokio::time::timeout(self.current, insert).await.unwrap_or_else(|_| {
            self.current = self.current.saturating_mul(2).min(self.max);
            Err(StoreError::Retry("the insert took too long".to_owned()))
        })
    }
}

/// A segment on its way out of its file.
struct SegmentReading {
    columns: String,
    chunks: mpsc::Receiver<Result<Bytes, FrameError>>,
    /// Told when the last row has been read.
    touched: oneshot::Receiver<TouchedHours>,
}

/// Reads a segment on a thread that may block, as fast as its chunks are
/// taken.
fn read_segment(segment: &Segment) -> Result<SegmentReading, FrameError> {
    let mut reader = SegmentFrames::open(segment)?;
    let columns = reader.columns().to_owned();
    let is_known = columns == event_row::COLUMNS;
    let (chunk, chunks) = mpsc::channel(CHUNKS_WAITING_MAX);
    let (touched_at_end, touched) = oneshot::channel();
    tokio::task::spawn_blocking(move || {
        let mut touched = TouchedHours::default();
        loop {
            let mut rows = Vec::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 4);
            let mut more = Ok(Some(0));
            while rows.len() < CHUNK_BYTES && matches!(more, Ok(Some(_))) {
                more = reader.next_frame(&mut rows);
            }
            let is_last = !matches!(more, Ok(Some(_)));
            if is_known {
                touch_hours(&rows, &mut touched);
            }
            let sent = (rows.is_empty() || chunk.blocking_send(Ok(Bytes::from(rows))).is_ok())
                && more.map_err(|error| chunk.blocking_send(Err(error))).is_ok();
            if !sent {
                return; // The insert has given up, or must.
            }
            if is_last {
                break;
            }
        }
        let _ = touched_at_end.send(touched); // The insert may have given up.
    });
    Ok(SegmentReading { columns, chunks, touched })
}

/// Reads a segment to its end, as an insert does.
fn read_to_end(segment: &Segment) -> Result<(), FrameError> {
    let (mut frames, mut rows) = (SegmentFrames::open(segment)?, Vec::new());
    while frames.next_frame(&mut rows)?.is_some() {
        rows.clear();
    }
    Ok(())
}

/// The pauses after failed inserts: they double up to a bound, and each is shortened at random by up to a half, so that
/// several inserts do not keep step.
fn pauses(settings: &ForwarderSettings) -> ExponentialBackoff {
    // The library's jitter lengthens a pause by up to its own length: of half the length, it makes what is wanted.
    ExponentialBuilder::new()
        .with_min_delay(settings.backoff_min / 2)
        .with_max_delay(settings.backoff_max / 2)
        .with_jitter()
        .without_max_times()
        .build()
}

#[cfg(test)]
mod faults;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_bound() {
        let settings = ForwarderSettings {
            inserts_in_flight_max: 1,
            insert_wait_max: Duration::ZERO,
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_millis(350),
        };
        for (whole, pause) in [100, 200, 350, 350].into_iter().zip(pauses(&settings)) {
            let whole = Duration::from_millis(whole);
            assert!((whole / 2..=whole).contains(&pause), "{pause:?} of {whole:?}");
        }
    }

    #[tokio::test]
    async fn an_insert_that_took_too_long_gets_more_time_up_to_a_bound() {
        let mut wait = InsertWait::new(Duration::from_millis(1));
        for expected_ms in [1, 2, 4, 4] {
            assert_eq!(wait.current, Duration::from_millis(expected_ms));
            assert!(wait.run(std::future::pending::<Result<(), StoreError>>()).await.is_err());
        }
        assert!(wait.run(async { Ok(()) }).await.is_ok());
    }
}
