//! Deletes events that have passed the retention period, by month, and knows the periods whose events may
//! have been deleted.
//!
//! A month is deleted in two steps. First it is *announced*: from then on every service on the database
//! rejects its events as too old, so that the id of a deleted event is not counted again. One check later
//! the month is *deleted* as a whole. Each step is recorded in the table `deleted_periods` before it is
//! made, and stays recorded when the retention period changes.
//!
//! The table `events` has no TTL: a TTL would delete parts of hours, would use the setting of the time when
//! a part was written, and overflows in 2106.

mod months;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use months::Month;

use crate::clickhouse::error::QueryError;
use crate::clickhouse::retention::{DeletedPeriod, DeletionState, RetentionStore};
use crate::clock::ArrivalClock;
use crate::domain::{
    FieldError, MILLIS_PER_DAY, MILLIS_PER_HOUR, Period, Periods, Rejection, RejectionCode, Timestamp,
};
use crate::event_store::insert_gate::InsertGate;
use crate::hour_versions::segment_hours::{SegmentHours, read_hours};
use crate::log::{Segment, Segments};

/// How much longer than the retention period a month is kept, for clock differences and running
/// calls.
const MARGIN_MILLIS: i64 = MILLIS_PER_DAY;
/// The largest difference between the clocks of ClickHouse and the service. Beyond this, nothing is
/// deleted.
const CLOCKS_APART_MILLIS_MAX: i64 = MILLIS_PER_HOUR * 12;
/// How often announcements of other services are read between two checks.
const REFRESHES_PER_CHECK: u32 = 4;

/// See the settings of the same names in [`crate::config::Config`].
#[derive(Clone, Copy, Debug)]
pub struct RetentionSettings {
    /// Days for which events are kept.
    pub retention_days: u32,
    /// Time between two looks for months to delete, and the shortest time
    /// between the announcement of a month and its deletion.
    pub check: Duration,
}

/// Announces and deletes months of events that have passed the retention period, and answers
/// whether a time is in a deleted period. One task runs it, every `retention_check_seconds`.
pub struct Retention {
    settings: RetentionSettings,
    store: RetentionStore,
    gate: Arc<InsertGate>,
    segments: Arc<Segments>,
    clock: Arc<ArrivalClock>,
    deleted: RwLock<Arc<Periods>>,
}

impl Retention {
    /// Creates it for this database, and for segments that may contain its events.
    pub fn new(
        settings: RetentionSettings,
        store: RetentionStore,
        gate: Arc<InsertGate>,
        segments: Arc<Segments>,
        clock: Arc<ArrivalClock>,
    ) -> Arc<Self> {
        Arc::new(Self { settings, store, gate, segments, clock, deleted: RwLock::default() })
    }

    /// The periods that have been announced or deleted.
    pub fn deleted(&self) -> Arc<Periods> {
        Arc::clone(&self.deleted.read())
    }

    /// Reads the deleted periods. Call this first.
    ///
    /// # Errors
    /// When ClickHouse cannot be asked.
    pub async fn refresh(&self) -> Result<Vec<DeletedPeriod>, QueryError> {
        let recorded = self.store.deleted_periods().await?;
        *self.deleted.write() = Arc::new(recorded.iter().map(|deleted| deleted.period).collect());
        Ok(recorded)
    }

    /// Checks for months to delete until `stop`.
    pub fn start_background(self: &Arc<Self>, tasks: &TaskTracker, stop: &CancellationToken) {
        let (retention, stop) = (Arc::clone(self), stop.clone());
        tasks.spawn(async move { stop.run_until_cancelled(retention.keep_checking()).await });
    }

    async fn keep_checking(&self) {
        for tick in 1_u32.. {
            tokio::time::sleep(self.settings.check / REFRESHES_PER_CHECK).await;
            let checked = async {
                let recorded = self.refresh().await?;
                if tick % REFRESHES_PER_CHECK == 0 { self.check(&recorded).await } else { Ok(()) }
            };
            if let Err(error) = checked.await {
                tracing::warn!(%error, "could not look for months that have passed the retention period");
            }
        }
    }

    /// Announces the months that have passed the retention period, and deletes
    /// those that were announced long enough ago.
    async fn check(&self, recorded: &[DeletedPeriod]) -> Result<(), QueryError> {
        let stored = self.store.stored_months().await?;
        let Some(now) = self.agreed_time(stored.now) else { return Ok(()) };
        let kept_from = now.plus_millis(-(i64::from(self.settings.retention_days) * MILLIS_PER_DAY + MARGIN_MILLIS));
        for month in stored.numbers.into_iter().filter_map(Month::from_number) {
            let Some(period) = month.period().filter(|period| period.to <= kept_from) else { continue };
            match recorded.iter().find(|other| other.period == period) {
                None => self.announce(month, period).await?,
                Some(announced) if announced.age >= self.settings.check => self.delete(month, announced).await?,
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// The earlier of both clocks; none if they are not trusted.
    fn agreed_time(&self, clickhouse: Timestamp) -> Option<Timestamp> {
        let own = self.clock.judge();
        let own =
            own.inspect_err(|doubt| tracing::warn!(%doubt, "the clock is not trusted: no events are deleted")).ok()?;
        let apart_ms = own.millis().saturating_sub(clickhouse.millis()).abs();
        if apart_ms > CLOCKS_APART_MILLIS_MAX {
            tracing::warn!(apart_ms, "the clocks of the service and of ClickHouse differ: no events are deleted");
            return None;
        }
        Some(own.min(clickhouse))
    }

    async fn announce(&self, month: Month, period: Period) -> Result<(), QueryError> {
        self.store.record(period, DeletionState::Announced, self.settings.retention_days).await?;
        let (days, after) = (self.settings.retention_days, self.settings.check);
        tracing::warn!(%month, retention_days = days, ?after, "a month has passed the retention period and will be deleted");
        self.refresh().await?;
        Ok(())
    }

    async fn delete(&self, month: Month, announced: &DeletedPeriod) -> Result<(), QueryError> {
        let period = announced.period;
        if let Some(segment) = self.unconfirmed_within(period).await {
            tracing::warn!(%month, %segment, "a month is not deleted: a segment that may be stored in part has events in it");
            return Ok(());
        }
        if announced.state == DeletionState::Announced {
            self.store.record(period, DeletionState::Deleted, self.settings.retention_days).await?;
        }
        let events = self.store.delete_month(month.number()).await?;
        tracing::info!(%month, events, "deleted a month of events");
        Ok(())
    }

    /// An unconfirmed segment with events in this period. If these were deleted from `events`, it
    /// could no longer be determined which of them were counted.
    async fn unconfirmed_within(&self, period: Period) -> Option<uuid::Uuid> {
        for id in self.gate.unconfirmed() {
            let Some(segment) = self.segments.list().into_iter().find(|segment| segment.id == id) else { continue };
            if may_touch(segment, period).await {
                return Some(id);
            }
        }
        None
    }
}

/// Whether a segment has events in this period, or cannot be read.
async fn may_touch(segment: Segment, period: Period) -> bool {
    let read = tokio::task::spawn_blocking(move || read_hours(&segment)).await;
    match read {
        Ok(Ok(SegmentHours::Known(hours))) => hours.touches_between(period),
        Ok(Ok(SegmentHours::Unknown) | Err(_)) | Err(_) => true,
    }
}

/// The rejection of an event of a deleted period.
pub fn too_old(period: Period) -> Rejection {
    let message =
        format!("must not lie {}: those events have passed the retention period and were deleted", words(period));
    Rejection { code: RejectionCode::TooOld, errors: vec![FieldError::new("occurred_at", message)] }
}

/// A readable period: from a day to another day (exclusive).
fn words(period: Period) -> String {
    let day = |moment: Timestamp| {
        let time = time::OffsetDateTime::from_unix_timestamp(moment.millis().div_euclid(1_000));
        time.map_or_else(|_| "the beginning".to_owned(), |time| time.date().to_string())
    };
    format!("from {} to {}", day(period.from), day(period.to))
}
