//! The audit that runs by itself: hours that are over, one at a time.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::schedule::Schedule;
use super::{Auditor, HourRequest, oldest_hour};
use crate::domain::{AuditAuthor, HourResult};

impl Auditor {
    /// Audits hours that are over, until `stop`: after a start the last ones,
    /// then each that ends, and those that late events have touched.
    pub fn start_background(self: &Arc<Self>, tasks: &TaskTracker, stop: &CancellationToken) {
        let (auditor, stop) = (Arc::clone(self), stop.clone());
        tasks.spawn(async move { stop.run_until_cancelled(auditor.keep_auditing()).await });
    }

    async fn keep_auditing(&self) {
        let after_millis = i64::try_from(self.settings.after.as_millis()).unwrap_or(i64::MAX);
        let mut schedule = Schedule::new(after_millis, self.settings.hours);
        let mut seen = 0;
        loop {
            tokio::time::sleep(self.settings.pause).await;
            let last = self.stored_hours.last_store();
            schedule.need(self.stored_hours.touched_after(seen));
            seen = last;
            let now = self.clock.now();
            let Some(hour) = schedule.next(now, oldest_hour(now, self.settings.retention_days)) else { continue };
            let repair = self.settings.repair;
            let request = HourRequest { org_id: None, hour, repair, author: AuditAuthor::Background };
            match self.audit_hour(request).await {
                Ok(audited) => {
                    let results = || audited.findings.iter().map(|finding| finding.result);
                    if results().any(|result| matches!(result, HourResult::InFlight | HourResult::Undetermined)) {
                        schedule.need([hour]);
                    }
                    let different = results().filter(|result| *result == HourResult::Different).count();
                    if different > 0 {
                        tracing::warn!(hour_ms = hour.millis(), different, "an audited hour differs");
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the background audit could not read an hour");
                    self.status.failed("ClickHouse did not answer");
                    schedule.need([hour]);
                }
            }
        }
    }
}
