//! The state of the outbox for metrics and probes: how many notifications wait, since when, and how attempts end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::store::{AttemptOutcome, CatalogueStore, OutboxTotals};

/// Time between two readings of the totals.
const OBSERVE_PAUSE: Duration = Duration::from_secs(5);
/// Longest time of a reading. A database that takes longer does not answer.
const OBSERVE_WAIT_MAX: Duration = Duration::from_secs(10);

/// Attempts to send a notification since the start of the service, by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttemptCounts {
    /// The receiver took the notification.
    pub delivered: u64,
    /// The attempt failed, and the notification is sent again.
    pub failed: u64,
    /// The last attempt failed, and the notification is no longer sent.
    pub given_up: u64,
}

/// The totals of the outbox as they were last read from the database, and the attempts of this service. Metrics and
/// probes read it without waiting for the database.
#[derive(Debug, Default)]
pub struct Outbox {
    totals: Mutex<OutboxTotals>,
    is_unreachable: AtomicBool,
    delivered: AtomicU64,
    failed: AtomicU64,
    given_up: AtomicU64,
}

impl Outbox {
    /// The totals that were last read. They stay as they were while the database cannot be read.
    pub fn totals(&self) -> OutboxTotals {
        *self.totals.lock()
    }

    /// Whether the last reading failed.
    pub fn is_unreachable(&self) -> bool {
        self.is_unreachable.load(Ordering::Relaxed)
    }

    /// The attempts of this service.
    pub fn attempts(&self) -> AttemptCounts {
        AttemptCounts {
            delivered: self.delivered.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            given_up: self.given_up.load(Ordering::Relaxed),
        }
    }

    /// Counts an attempt.
    pub(super) fn count(&self, attempted: &AttemptOutcome) {
        let counter = match attempted {
            AttemptOutcome::Delivered => &self.delivered,
            AttemptOutcome::RetryAt { .. } => &self.failed,
            AttemptOutcome::GivenUp { .. } => &self.given_up,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Reads the totals every five seconds, until `stop`.
    pub async fn keep_observed(self: Arc<Self>, store: Arc<dyn CatalogueStore>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let _ = stop.run_until_cancelled(self.observe(&*store)).await;
            let _ = stop.run_until_cancelled(tokio::time::sleep(OBSERVE_PAUSE)).await;
        }
    }

    async fn observe(&self, store: &dyn CatalogueStore) {
        let read = tokio::time::timeout(OBSERVE_WAIT_MAX, store.outbox()).await;
        let error = match read {
            Ok(Ok(totals)) => {
                *self.totals.lock() = totals;
                None
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("the database did not answer in time".to_owned()),
        };
        let was_unreachable = self.is_unreachable.swap(error.is_some(), Ordering::Relaxed);
        match error {
            Some(error) if !was_unreachable => tracing::warn!(error, "the catalogue's database does not answer"),
            None if was_unreachable => tracing::info!("the catalogue's database answers again"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;
    use crate::store::SqliteStore;

    #[test]
    fn attempts_are_counted_by_how_they_ended() {
        let outbox = Outbox::default();
        let error = || "gone".to_owned();
        for attempted in [
            AttemptOutcome::Delivered,
            AttemptOutcome::RetryAt { at: Timestamp::from_millis(1), error: error() },
            AttemptOutcome::RetryAt { at: Timestamp::from_millis(2), error: error() },
            AttemptOutcome::GivenUp { error: error() },
        ] {
            outbox.count(&attempted);
        }
        assert_eq!(outbox.attempts(), AttemptCounts { delivered: 1, failed: 2, given_up: 1 });
    }

    #[tokio::test]
    async fn a_database_that_cannot_be_read_is_told_until_it_can() {
        let dir = tempfile::tempdir().unwrap();
        let (path, outbox) = (dir.path().join("catalogue.sqlite"), Outbox::default());
        let store = SqliteStore::open(&path).await.unwrap();
        outbox.observe(&store).await;
        assert!(!outbox.is_unreachable());
        let other = sqlx::SqlitePool::connect(&format!("sqlite://{}", path.display())).await.unwrap();
        for (renamed, is_unreachable) in
            [("notifications RENAME TO away", true), ("away RENAME TO notifications", false)]
        {
            let statement = sqlx::AssertSqlSafe(format!("ALTER TABLE {renamed}"));
            sqlx::query(statement).execute(&other).await.unwrap();
            outbox.observe(&store).await;
            assert_eq!(outbox.is_unreachable(), is_unreachable, "{renamed}");
        }
    }
}
