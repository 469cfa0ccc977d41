//! Which hour the background audits next: pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::{MILLIS_PER_HOUR, Timestamp};

/// Most hours that wait to be audited again; beyond that the oldest are
/// forgotten.
const DUE_MAX: usize = 10_000;

/// See the module. Hours are named by their first moments.
pub(super) struct Schedule {
    /// How long an hour must have been over, and the shortest time between two
    /// audits of the same hour.
    after_millis: i64,
    /// The last hours to audit without any reason.
    hours: i64,
    /// When hours were last audited.
    audited: BTreeMap<Timestamp, Timestamp>,
    /// Hours that have a reason.
    due: BTreeSet<Timestamp>,
}

impl Schedule {
    pub(super) const fn new(after_millis: i64, hours: u32) -> Self {
        Self { after_millis, hours: hours as i64, audited: BTreeMap::new(), due: BTreeSet::new() }
    }

    /// These hours have changed, or could not be judged.
    pub(super) fn need(&mut self, hours: impl IntoIterator<Item = Timestamp>) {
        self.due.extend(hours);
        while self.due.len() > DUE_MAX {
            self.due.pop_first();
        }
    }

    /// Takes the next hour: of the last ones the newest that was never
    /// audited; else, of those that have a reason, the one whose last audit is
    /// longest ago.
    pub(super) fn next(&mut self, now: Timestamp, oldest: Timestamp) -> Option<Timestamp> {
        let last = now.plus_millis(-self.after_millis).floor_to(MILLIS_PER_HOUR).plus_millis(-MILLIS_PER_HOUR);
        let first = last.plus_millis(-(self.hours - 1) * MILLIS_PER_HOUR).max(oldest);
        let rested = now.plus_millis(-self.after_millis);
        self.audited.retain(|hour, at| *hour >= first || *at > rested || self.due.contains(hour));
        let never = (0..self.hours)
            .map(|back| last.plus_millis(-back * MILLIS_PER_HOUR))
            .find(|hour| *hour >= first && !self.audited.contains_key(hour));
        let last_audit = |hour: &Timestamp| self.audited.get(hour).copied().unwrap_or_default();
        let again = || {
            let ready = self.due.range(oldest..=last.max(oldest)).filter(|hour| **hour <= last);
            ready.filter(|hour| last_audit(hour) <= rested).min_by_key(|hour| (last_audit(hour), **hour)).copied()
        };
        let next = never.or_else(again)?;
        self.due.remove(&next);
        self.audited.insert(next, now);
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    /// A minute of the thousandth hour.
    fn minute(minute: i64) -> Timestamp {
        Timestamp::from_millis(1_000 * MILLIS_PER_HOUR + minute * MINUTE)
    }

    fn hour(hour: i64) -> Timestamp {
        Timestamp::from_millis(hour * MILLIS_PER_HOUR)
    }

    fn take(schedule: &mut Schedule, now: Timestamp) -> Option<i64> {
        schedule.next(now, hour(0)).map(|hour| hour.millis() / MILLIS_PER_HOUR)
    }

    #[test]
    fn the_last_closed_hours_come_newest_first_and_once() {
        let mut schedule = Schedule::new(10 * MINUTE, 3);
        let taken: Vec<_> = (0..4).map(|_| take(&mut schedule, minute(9))).collect();
        assert_eq!(taken, [Some(998), Some(997), Some(996), None], "the last hour is over for 9 minutes only");
        assert_eq!(take(&mut schedule, minute(10)), Some(999));
        assert_eq!(take(&mut schedule, minute(69)), None);
    }

    #[test]
    fn an_hour_that_was_touched_is_audited_again_but_not_at_once() {
        let mut schedule = Schedule::new(10 * MINUTE, 1);
        schedule.need([hour(1_000), hour(500)]);
        assert_eq!(take(&mut schedule, minute(10)), Some(999));
        assert_eq!(take(&mut schedule, minute(10)), Some(500), "however old it is");
        assert_eq!(take(&mut schedule, minute(10)), None, "hour 1000 is not over");
        schedule.need([hour(999), hour(500)]);
        assert_eq!(take(&mut schedule, minute(19)), None);
        schedule.need([hour(700)]);
        assert_eq!(take(&mut schedule, minute(20)), Some(700), "the one that waited longest");
        assert_eq!(take(&mut schedule, minute(20)), Some(500));
        assert_eq!(take(&mut schedule, minute(20)), Some(999));
        assert_eq!(take(&mut schedule, minute(70)), Some(1_000));
    }

    #[test]
    fn hours_whose_events_are_not_kept_are_left_alone() {
        let mut schedule = Schedule::new(0, 5);
        schedule.need([hour(3), hour(997)]);
        let taken: Vec<_> = (0..5).map(|_| schedule.next(minute(0), hour(998))).collect();
        assert_eq!(taken, [Some(hour(999)), Some(hour(998)), None, None, None]);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut schedule = Schedule::new(0, 0);
        schedule.need((0..20_000).map(hour));
        assert_eq!(schedule.due.len(), DUE_MAX);
        assert!(schedule.due.contains(&hour(19_999)));
    }
}
