//! Selects the hour that the background audits next. Pure.

use std::collections::BTreeMap;

use crate::domain::{HourSet, MILLIS_PER_HOUR, Period, Periods, Timestamp};

/// Most runs of hours that wait for an audit. Beyond this, hours between two runs are audited as
/// well.
const RUNS_MAX: usize = 10_000;

/// Decides which hour the background audits next. Pure: it is given the time. An hour is named by
/// its first instant.
pub(super) struct Schedule {
    /// Time between the end of an hour and its audit, and the shortest time between two audits of
    /// the same hour.
    after_millis: i64,
    /// Number of recent hours that are audited in any case.
    hours: i64,
    /// The times of the last audits.
    audited: BTreeMap<Timestamp, Timestamp>,
    /// Due hours.
    due: HourSet,
}

impl Schedule {
    pub(super) const fn new(after_millis: i64, hours: u32) -> Self {
        Self { after_millis, hours: hours as i64, audited: BTreeMap::new(), due: HourSet::new(RUNS_MAX) }
    }

    /// Adds hours that have changed or could not be decided. Returns whether hours between them
    /// were added because of the limit.
    pub(super) fn need(&mut self, hours: impl IntoIterator<Item = Timestamp>) -> bool {
        let mut is_joined = false;
        for hour in hours {
            is_joined |= self.due.insert(hour);
        }
        is_joined
    }

    /// Whether an hour is due.
    pub(super) fn is_due(&self, hour: Timestamp) -> bool {
        self.due.contains(hour)
    }

    /// The number of due hours.
    pub(super) fn due(&self) -> u64 {
        self.due.len()
    }

    /// Removes and returns hours that can no longer be audited.
    pub(super) fn take_expired(&mut self, deleted: &Periods) -> Vec<Timestamp> {
        let expired: Vec<Timestamp> = self.due.iter().filter(|hour| deleted.overlaps(&period(*hour))).collect();
        expired.iter().for_each(|hour| self.due.remove(*hour));
        expired
    }

    /// Returns the next hour to audit: the newest recent hour that was never audited; otherwise the
    /// due hour with the oldest audit.
    pub(super) fn next(&mut self, now: Timestamp, deleted: &Periods) -> Option<Timestamp> {
        let last = now.plus_millis(-self.after_millis).floor_to(MILLIS_PER_HOUR).plus_millis(-MILLIS_PER_HOUR);
        let first = last.plus_millis(-(self.hours - 1) * MILLIS_PER_HOUR).max(Timestamp::from_millis(0));
        let rested = now.plus_millis(-self.after_millis);
        let due = &self.due;
        self.audited.retain(|hour, at| *hour >= first || *at > rested || due.contains(*hour));
        let can_be = |hour: &Timestamp| !deleted.overlaps(&period(*hour));
        let never = (0..self.hours)
            .map(|back| last.plus_millis(-back * MILLIS_PER_HOUR))
            .find(|hour| *hour >= first && can_be(hour) && !self.audited.contains_key(hour));
        let last_audit = |hour: &Timestamp| self.audited.get(hour).copied().unwrap_or_default();
        let again = || {
            let ready = due.iter().take_while(|hour| *hour <= last).filter(can_be);
            ready.filter(|hour| last_audit(hour) <= rested).min_by_key(|hour| (last_audit(hour), *hour))
        };
        let next = never.or_else(again)?;
        self.due.remove(next);
        self.audited.insert(next, now);
        Some(next)
    }
}

/// The period of an hour.
pub(super) const fn period(hour: Timestamp) -> Period {
    Period { from: hour, to: hour.plus_millis(MILLIS_PER_HOUR) }
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
        schedule.next(now, &Periods::default()).map(|hour| hour.millis() / MILLIS_PER_HOUR)
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
    fn hours_whose_events_are_deleted_are_left_alone() {
        let deleted: Periods = [Period { from: hour(0), to: hour(998).plus_millis(-1) }].into_iter().collect();
        let mut schedule = Schedule::new(0, 5);
        schedule.need([hour(3), hour(997), hour(998)]);
        let taken: Vec<_> = (0..5).map(|_| schedule.next(minute(0), &deleted)).collect();
        assert_eq!(taken, [Some(hour(999)), Some(hour(998)), None, None, None]);
        assert_eq!(schedule.take_expired(&deleted), [hour(3), hour(997)]);
        assert_eq!(schedule.due(), 0);
    }

    #[test]
    fn no_hour_is_forgotten_however_many_wait() {
        let mut schedule = Schedule::new(0, 0);
        let hours = (0..10_050).map(|number| hour(number * 3));
        assert!(schedule.need(hours.clone()), "hours between them were added");
        assert!(hours.clone().all(|hour| schedule.is_due(hour)));
        assert_eq!(schedule.next(hour(100_000), &Periods::default()), Some(hour(0)));
    }
}
