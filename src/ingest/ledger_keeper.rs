//! The background work of the id ledger: writes recent ids to it, merges its runs, removes expired ids, and rebuilds it
//! where it is incomplete or damaged.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tallyhouse_ledger::{Day, LedgerError};
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::fingerprint::Fingerprinter;
use super::index::{Index, Sealed, SegmentStanding};
use super::lost_ids::LostIds;
use super::rebuild::{rebuild, repair};
use crate::clock::ArrivalClock;
use crate::domain::MILLIS_PER_DAY;
use crate::event_store::EventStore;
use crate::log::{EventLog, Holders, Ordinal, Segment, SegmentState};

/// Pause before what failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Time between two looks for background work that nothing has announced.
const MAINTENANCE_PAUSE: Duration = Duration::from_secs(60);
/// Days for which ids are kept beyond retention: an event may be a day late for its deletion, and
/// clocks differ.
const SPARE_DAYS: i64 = 2;

/// When ids are written to the ledger. See the settings of the same names in
/// [`crate::config::Config`].
#[derive(Clone, Copy, Debug)]
pub struct LedgerKeeperSettings {
    /// Longest that ids stay in memory and their segments in the log, when few come and ClickHouse
    /// takes them.
    pub write_pause: Duration,
    /// Bytes of segments that are in ClickHouse and wait for the ledger, at most, before ids are
    /// written.
    pub retained_bytes_max: u64,
    /// How long events are kept, in days.
    pub retention_days: u32,
}

/// Writes recent ids to the ledger, merges and expires its runs, and rebuilds it if necessary. One per service.
pub struct LedgerKeeper {
    settings: LedgerKeeperSettings,
    index: Arc<Index>,
    log: Arc<dyn EventLog>,
    store: Arc<dyn EventStore>,
    fingerprinter: Fingerprinter,
    clock: Arc<ArrivalClock>,
    lost_ids: Arc<LostIds>,
    maintenance_due: Notify,
    /// Unstored segments whose ids have been noted.
    noted: Mutex<HashSet<Uuid>>,
}

impl LedgerKeeper {
    /// Between an index, with its ledger, and a log.
    pub fn new(
        settings: LedgerKeeperSettings,
        index: Arc<Index>,
        log: Arc<dyn EventLog>,
        store: Arc<dyn EventStore>,
        fingerprinter: Fingerprinter,
        clock: Arc<ArrivalClock>,
        lost_ids: Arc<LostIds>,
    ) -> Arc<Self> {
        let (maintenance_due, noted) = (Notify::new(), Mutex::default());
        Arc::new(Self { settings, index, log, store, fingerprinter, clock, lost_ids, maintenance_due, noted })
    }

    /// Starts the background work. It ends soon after `stop`.
    pub fn start(self: &Arc<Self>, tasks: &TaskTracker, stop: &CancellationToken) {
        let (keeper, until) = (Arc::clone(self), stop.clone());
        tasks.spawn(async move { until.run_until_cancelled(keeper.keep_written()).await });
        let (keeper, until) = (Arc::clone(self), stop.clone());
        tasks.spawn(async move { until.run_until_cancelled(keeper.forget_lost_of_missing()).await });
        let (keeper, until) = (Arc::clone(self), stop.clone());
        tasks.spawn(async move { until.run_until_cancelled(keeper.keep_maintained()).await });
        let (keeper, until) = (Arc::clone(self), stop.clone());
        tasks.spawn(async move { until.run_until_cancelled(keeper.keep_complete()).await });
    }

    async fn keep_written(&self) {
        let mut changes = self.log.segments().changes();
        let mut tick = tokio::time::interval(self.settings.write_pause);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tick.tick().await; // The first is at once.
        // Bytes that the last writing could not release.
        let mut left = 0;
        loop {
            tokio::select! {
                // Memory fills: what the open segment holds has to go too.
                () = self.index.seal_due() => self.log.seal().await,
                _ = tick.tick() => {}
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if !self.is_due(left) {
                        continue;
                    }
                }
            }
            self.write().await;
            left = self.log.segments().retained_bytes();
        }
    }

    /// Whether stored segments take too much disk, or one waits that is damaged.
    fn is_due(&self, left_bytes: u64) -> bool {
        let segments = self.log.segments();
        segments.retained_bytes().saturating_sub(left_bytes) >= self.settings.retained_bytes_max.max(1)
            || segments.retain_damaged()
    }

    /// Writes the recent ids of whole segments to the ledger, however often it takes, and releases these segments.
    pub async fn write(&self) {
        let _writing = self.index.writing().await;
        self.note_unstored().await;
        let Some(sealed) = self.index.seal(|ordinal| self.standing(ordinal)).map(Arc::new) else { return };
        loop {
            match self.write_sealed(&sealed).await {
                Ok(()) => break,
                Err(error) => {
                    tracing::error!(%error, "ids could not be written to the ledger; it is tried again");
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        }
        let (log, written) = (Arc::clone(&self.log), Arc::clone(&sealed));
        let release = move || {
            let ordinals: Vec<Ordinal> = written.segments().iter().map(|(ordinal, _)| *ordinal).collect();
            log.release(&ordinals, Holders::LEDGER);
        };
        if let Err(error) = spawn_blocking(release).await {
            tracing::error!(%error, "segments could not be released");
        }
        self.forget_notes(&sealed).await;
        self.maintenance_due.notify_one();
    }

    /// Of segments that were stored while their ids were written.
    async fn forget_notes(&self, sealed: &Sealed) {
        for (ordinal, segment) in sealed.segments() {
            let is_noted = self.noted.lock().remove(&segment.id);
            if is_noted && self.log.segments().find(*ordinal).is_none() {
                self.lost_ids.forget_note(segment.id).await;
            }
        }
    }

    /// How a segment stands for the ledger: what only its own file has is not covered before it has been noted.
    fn standing(&self, ordinal: Ordinal) -> SegmentStanding {
        let Some(segment) = self.log.segments().find_any(ordinal) else { return SegmentStanding::Gone };
        let is_safe = segment.state == SegmentState::Stored || self.noted.lock().contains(&segment.id);
        match segment.closed() {
            Some(closed) if is_safe => SegmentStanding::Closed(closed),
            _ => SegmentStanding::Open,
        }
    }

    /// Notes the ids of segments that ClickHouse does not take, so that they can leave memory. Usually there are none:
    /// a segment that is stored in a moment is covered then.
    async fn note_unstored(&self) {
        let waits = |segment: &Segment| segment.closed().is_some() && segment.held_by.include(Holders::LEDGER);
        let waiting: Vec<Segment> = self.log.segments().list().into_iter().filter(waits).collect();
        let rows: u64 = waiting.iter().map(|segment| segment.rows).sum();
        let is_short = rows >= self.index.ledger().run_ids() / 2;
        for segment in waiting {
            let is_late =
                segment.state == SegmentState::Parked || segment.opened.elapsed() >= self.settings.write_pause;
            let is_good = segment.salvage.is_none() || self.lost_ids.has_judged(segment.id);
            if (is_short || is_late) && is_good && !self.noted.lock().contains(&segment.id) {
                self.note(segment).await;
            }
        }
    }

    async fn note(&self, segment: Segment) {
        match self.lost_ids.note_ids(&segment).await {
            Ok(()) => _ = self.noted.lock().insert(segment.id),
            // It was stored meanwhile, or is damaged, which the forwarder finds: its ids stay in memory.
            Err(error) => tracing::debug!(error, segment = %segment.id, "the ids of a segment could not be noted"),
        }
    }

    async fn write_sealed(&self, sealed: &Arc<Sealed>) -> Result<(), LedgerError> {
        let (index, sealed, segments) = (Arc::clone(&self.index), Arc::clone(sealed), Arc::clone(self.log.segments()));
        let write = move || {
            let in_log = segments.ids();
            index.write(&sealed, |segment| in_log.contains(&segment))
        };
        spawn_blocking(write).await.unwrap_or_else(|error| {
            tracing::error!(%error, "writing to the id ledger failed");
            Err(LedgerError::interrupted())
        })
    }

    /// Segments that were noted and have gone since, when the service was not running or because nothing of them was
    /// good: what is not stored of them can be sent again.
    async fn forget_lost_of_missing(&self) {
        let ledger = Arc::clone(self.index.ledger());
        let noted = match spawn_blocking(move || ledger.noted_segments()).await {
            Ok(Ok(noted)) => noted,
            Ok(Err(error)) => return tracing::error!(%error, "the notes of the id ledger cannot be read"),
            Err(error) => return tracing::error!(%error, "the notes of the id ledger cannot be read"),
        };
        let segments = self.log.segments();
        let unstored: HashSet<Uuid> = segments.list().into_iter().map(|segment| segment.id).collect();
        let stored: HashSet<Uuid> = segments.retained().into_iter().map(|segment| segment.id).collect();
        for segment in noted.into_iter().filter(|segment| !unstored.contains(segment)) {
            if stored.contains(&segment) {
                self.lost_ids.forget_note(segment).await;
                continue;
            }
            loop {
                match self.lost_ids.forget_of_missing(segment).await {
                    Ok(0) => break,
                    Ok(lost) => {
                        tracing::error!(%segment, lost, "acknowledged events are lost; they are accepted when sent again");
                        break;
                    }
                    Err(error) => tracing::warn!(%error, %segment, "what was lost with a segment is not known yet"),
                }
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }

    async fn keep_maintained(&self) {
        loop {
            self.maintain().await;
            let _ = tokio::time::timeout(MAINTENANCE_PAUSE, self.maintenance_due.notified()).await;
        }
    }

    async fn maintain(&self) {
        let kept_millis = (i64::from(self.settings.retention_days) + SPARE_DAYS) * MILLIS_PER_DAY;
        // A clock in doubt lets nothing expire.
        let now_millis = self.clock.judge().ok().map(|now| now.millis());
        let ledger = Arc::clone(self.index.ledger());
        let maintain = move || {
            if let Some(now_millis) = now_millis {
                ledger.set_today(Day::of_millis(now_millis));
                ledger.expire(Day::of_millis(now_millis - kept_millis))?;
            }
            while ledger.maintain()? {}
            Ok::<_, LedgerError>(())
        };
        match spawn_blocking(maintain).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(%error, "the id ledger could not be maintained; it is tried again");
                self.index.note_damage();
            }
            Err(error) => tracing::error!(%error, "maintaining the id ledger failed"),
        }
    }

    /// Rebuilds the ledger when it is not complete, and repairs it when it is damaged.
    async fn keep_complete(&self) {
        let (ledger, store) = (self.index.ledger(), &*self.store);
        loop {
            let status = ledger.status();
            let done = if !status.is_complete {
                rebuild(ledger, self.fingerprinter, store).await
            } else if status.damaged_runs > 0 {
                repair(ledger, self.fingerprinter, &*self.log, store).await
            } else {
                self.index.repair_due().await;
                continue;
            };
            match done {
                Ok(_) => self.maintenance_due.notify_one(),
                Err(error) => {
                    tracing::warn!(%error, "the id ledger could not be rebuilt; it is tried again");
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        }
    }
}
