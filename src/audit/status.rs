//! The findings of audits, for health, metrics and callers.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::domain::{AuditAuthor, AuditedHour, HourResult, Timestamp};

/// Most hours that are listed as not right.
const HOURS_MAX: usize = 1_000;

/// Collects the findings of audits since the start, for `/readyz`, metrics and `GetAuditStatus`. In
/// memory; a restart clears it.
#[derive(Default)]
pub struct AuditStatus {
    state: Mutex<StatusReport>,
}

/// The findings so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusReport {
    /// When the background last audited an hour.
    pub last_at: Option<Timestamp>,
    /// That hour's first moment.
    pub last_hour: Option<Timestamp>,
    /// Hours that the background has audited since the start.
    pub hours: u64,
    /// Hours that were repaired since the start, by the background or by command.
    pub repaired: u64,
    /// The last results of hours that are not known to be right, by organization.
    pub open: BTreeMap<(Timestamp, String), HourResult>,
    /// Hours of organizations that were not right and are no longer listed, because there are too
    /// many.
    pub left_out: u64,
    /// Hours that wait to be audited by the background.
    pub due: u64,
    /// Why the background could not audit its last hour. Empty if it could.
    pub last_error: &'static str,
}

impl StatusReport {
    /// The number of hours with this last result.
    pub fn count(&self, result: HourResult) -> u64 {
        self.open.values().filter(|found| **found == result).count() as u64
    }
}

impl AuditStatus {
    /// The findings so far.
    pub fn report(&self) -> StatusReport {
        self.state.lock().clone()
    }

    /// Records an audited hour.
    pub(super) fn audited(&self, audited: &AuditedHour, author: AuditAuthor, now: Timestamp) {
        let mut state = self.state.lock();
        if author == AuditAuthor::Background {
            state.last_at = Some(now);
            state.last_hour = Some(audited.hour);
            state.hours += 1;
            state.last_error = "";
            // It looks at all organizations.
            state.open.retain(|(hour, _), _| *hour != audited.hour);
        }
        for finding in &audited.findings {
            let key = (audited.hour, finding.org_id.clone());
            if !finding.result.is_open() {
                state.repaired += u64::from(finding.result == HourResult::Repaired);
                state.open.remove(&key);
            } else {
                state.open.insert(key, finding.result);
            }
        }
        while state.open.len() > HOURS_MAX {
            if let Some(((hour, org_id), result)) = state.open.pop_first() {
                state.left_out += 1;
                let (hour_ms, result) = (hour.millis(), result.as_str());
                tracing::warn!(hour_ms, org_id, result, "too many hours are not right; an hour is no longer listed");
            }
        }
    }

    /// Records the number of hours that wait for the background.
    pub(super) fn due(&self, due: u64) {
        self.state.lock().due = due;
    }

    /// Records that the background could not audit an hour.
    pub(super) fn failed(&self, error: &'static str) {
        self.state.lock().last_error = error;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::HourFinding;

    fn audited(result: HourResult) -> AuditedHour {
        let hour = Timestamp::from_millis(7);
        let finding = HourFinding {
            org_id: "default".to_owned(),
            hour,
            result,
            rows: 0,
            ids: 0,
            reason: "",
            found: Vec::new(),
            left: Vec::new(),
        };
        AuditedHour { hour, ids: 0, organizations: 1, findings: vec![finding] }
    }

    #[test]
    fn an_hour_is_open_until_it_is_seen_to_be_right() {
        let status = AuditStatus::default();
        let now = Timestamp::from_millis(9);
        status.audited(&audited(HourResult::Different), AuditAuthor::Background, now);
        assert_eq!(status.report().count(HourResult::Different), 1);
        status.audited(&audited(HourResult::Repaired), AuditAuthor::Command, now);
        let report = status.report();
        assert_eq!((report.open.len(), report.repaired, report.hours, report.last_at), (0, 1, 1, Some(now)));
        status.audited(&audited(HourResult::InFlight), AuditAuthor::Background, now);
        status.audited(
            &AuditedHour { findings: Vec::new(), ..audited(HourResult::Consistent) },
            AuditAuthor::Background,
            now,
        );
        assert_eq!(status.report().open.len(), 0);
    }
}
