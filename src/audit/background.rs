//! The background audit: audits hours that have ended, one at a time.
//!
//! Hours that are due are kept in the table `audit_due` from when they become due until they have been
//! audited. Hours of settled segments are recorded there before the segment is deleted
//! (`clickhouse/store.rs`).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::schedule::Schedule;
use super::{Auditor, HourRequest};
use crate::clickhouse::error::QueryError;
use crate::domain::{AuditAuthor, AuditedHour, HourResult, Timestamp};

/// Interval at which the table is read, for hours that another service has added.
const READ_EVERY: Duration = Duration::from_secs(300);

/// The state of the background task.
struct BackgroundState {
    schedule: Schedule,
    /// Due hours that are not in the table yet.
    unsaved: Vec<Timestamp>,
    read_at: Option<Instant>,
}

impl Auditor {
    /// Audits hours in the background until `stop`: recent hours after a start, then each hour that
    /// ends, and hours with late events.
    pub fn start_background(self: &Arc<Self>, tasks: &TaskTracker, stop: &CancellationToken) {
        let (auditor, stop) = (Arc::clone(self), stop.clone());
        tasks.spawn(async move { stop.run_until_cancelled(auditor.keep_auditing()).await });
    }

    async fn keep_auditing(&self) {
        let after_millis = i64::try_from(self.settings.after.as_millis()).unwrap_or(i64::MAX);
        let schedule = Schedule::new(after_millis, self.settings.hours);
        let mut known = BackgroundState { schedule, unsaved: Vec::new(), read_at: None };
        loop {
            tokio::time::sleep(self.settings.pause).await;
            if let Err(error) = self.keep_due(&mut known).await {
                tracing::warn!(%error, "could not read or write the hours that are due for an audit");
                self.status.failed("ClickHouse did not answer");
            }
            self.status.due(known.schedule.due());
            let Some(hour) = known.schedule.next(self.clock.now(), &self.retention.deleted()) else { continue };
            if let Err(error) = self.audit_in_background(hour, &mut known.schedule).await {
                tracing::warn!(%error, "the background audit could not read an hour");
                self.status.failed("ClickHouse did not answer");
                known.schedule.need([hour]);
            }
        }
    }

    /// Collects due hours, and stores them in the table.
    async fn keep_due(&self, known: &mut BackgroundState) -> Result<(), QueryError> {
        let BackgroundState { schedule, unsaved, read_at } = known;
        let touched = self.hour_versions.take_touched();
        unsaved.extend(touched.iter().filter(|hour| !schedule.is_due(*hour)));
        let mut is_joined = schedule.need(touched.iter());
        if read_at.is_none_or(|at| at.elapsed() >= READ_EVERY) {
            is_joined |= schedule.need(self.store.due_hours().await?);
            *read_at = Some(Instant::now());
        }
        if is_joined {
            tracing::warn!(
                due = schedule.due(),
                "many hours wait for an audit; hours between them are audited as well"
            );
        }
        self.store.need(unsaved).await?;
        unsaved.clear();
        let expired = schedule.take_expired(&self.retention.deleted());
        if expired.is_empty() {
            return Ok(());
        }
        self.store.audited(&expired, self.store.due_version().await?).await
    }

    async fn audit_in_background(&self, hour: Timestamp, schedule: &mut Schedule) -> Result<(), QueryError> {
        let version = self.store.due_version().await?;
        let (repair, author) = (self.settings.repair, AuditAuthor::Background);
        let request = HourRequest { org_id: None, hour, repair, unproven_removals_max: 0, author };
        let audited = self.audit_hour(request).await?;
        if is_judged(&audited) {
            self.store.audited(&[hour], version).await?;
        } else {
            schedule.need([hour]);
        }
        let wrong = |result| matches!(result, HourResult::Different | HourResult::EventsMissing);
        let different = audited.findings.iter().filter(|finding| wrong(finding.result)).count();
        if different > 0 {
            tracing::warn!(hour_ms = hour.millis(), different, "an audited hour differs");
        }
        Ok(())
    }
}

/// Whether the result is final for every organization.
fn is_judged(audited: &AuditedHour) -> bool {
    let is_open = |result| matches!(result, HourResult::InFlight | HourResult::Undetermined);
    !audited.findings.iter().any(|finding| is_open(finding.result))
}
