//! The versions of hours: which insert last changed the stored events of an organization's hour.
//!
//! A cached answer is valid as long as no event of its window has been stored since it was computed. This module keeps, for
//! each organization and hour, the number of the last insert that touched it, and collects the hours that the audit has to
//! check again.

pub mod segment_hours;

use std::collections::{BTreeSet, HashMap};

use parking_lot::{Mutex, RwLock};

use crate::domain::{HourSet, MILLIS_PER_HOUR, OrgId, Period, Timestamp, Window};
use crate::log::DayNumber;

/// Hours whose versions are kept, at most. Beyond, all are forgotten: answers that were cached before are computed again.
const HOURS_MAX: usize = 200_000;

const HOURS_PER_DAY: i64 = 24;

/// Runs of touched hours that wait for the audit, at most. Beyond, the hours between two runs count as touched, too.
const TOUCHED_RUNS_MAX: usize = 10_000;

/// The version of an hour: the number of the insert that last touched it, from 1; 0 before the first.
pub type HourVersion = u64;

/// The hours that the events of one insert lie in, by organization.
#[derive(Debug, Default)]
pub struct TouchedHours {
    by_org: HashMap<Box<str>, HashMap<i64, HourVersion>>,
    last: Option<(Box<str>, i64)>,
}

impl TouchedHours {
    /// Adds the hour of an event.
    pub fn touch(&mut self, org_id: &str, occurred_at: Timestamp) {
        let hour = hour_of(occurred_at);
        // Neighbouring events mostly share both.
        if self.last.as_ref().is_some_and(|(org, last)| &**org == org_id && *last == hour) {
            return;
        }
        self.by_org.entry(org_id.into()).or_default().insert(hour, 0);
        self.last = Some((org_id.into(), hour));
    }

    /// Whether an event lies in this hour; of this organization, or of any when none is given.
    pub fn touches(&self, org_id: Option<&str>, hour: Timestamp) -> bool {
        let hour = hour_of(hour);
        match org_id {
            Some(org_id) => self.by_org.get(org_id).is_some_and(|hours| hours.contains_key(&hour)),
            None => self.by_org.values().any(|hours| hours.contains_key(&hour)),
        }
    }

    /// The days in UTC on which events lie, each once, as days since 1970. Days before 1970 count as the first.
    pub fn days(&self) -> Vec<DayNumber> {
        let hours = self.by_org.values().flat_map(HashMap::keys);
        let days: BTreeSet<DayNumber> =
            hours.map(|hour| DayNumber::try_from(hour.div_euclid(HOURS_PER_DAY)).unwrap_or_default()).collect();
        days.into_iter().collect()
    }

    /// Whether an event lies in an hour that overlaps this period.
    pub fn touches_between(&self, period: Period) -> bool {
        let (first, last) = (hour_of(period.from), hour_of(period.to.plus_millis(-1)));
        self.by_org.values().flat_map(HashMap::keys).any(|hour| (first..=last).contains(hour))
    }
}

#[derive(Default)]
struct State {
    /// The number of the last insert.
    last: HourVersion,
    /// The version of hours that are not listed, at most.
    unlisted: HourVersion,
    hours: usize,
    by_org: HashMap<Box<str>, HashMap<i64, HourVersion>>,
}

/// The version of each hour of each organization. Holds at most 200,000 hours; when it is full, more answers are treated as
/// outdated than necessary.
pub struct HourVersions {
    state: RwLock<State>,
    /// Hours that were touched since the audit last took them.
    touched: Mutex<HourSet>,
}

impl Default for HourVersions {
    fn default() -> Self {
        Self { state: RwLock::default(), touched: Mutex::new(HourSet::new(TOUCHED_RUNS_MAX)) }
    }
}

impl HourVersions {
    /// Raises the versions of these hours: an insert has become visible.
    pub fn note_stored(&self, touched: TouchedHours) {
        {
            let mut hours = self.touched.lock();
            for hour in touched.by_org.values().flat_map(HashMap::keys) {
                hours.insert(Timestamp::from_millis(hour * MILLIS_PER_HOUR));
            }
        }
        let mut state = self.state.write();
        state.last += 1;
        let State { last, unlisted, hours, by_org } = &mut *state;
        for (org, touched) in touched.by_org {
            let of_org = by_org.entry(org).or_default();
            let before = of_org.len();
            of_org.extend(touched.into_keys().map(|hour| (hour, *last)));
            *hours += of_org.len() - before;
        }
        if *hours > HOURS_MAX {
            by_org.clear();
            *hours = 0;
            *unlisted = *last;
        }
    }

    /// Takes the hours of all organizations that were touched since the last call.
    pub fn take_touched(&self) -> HourSet {
        std::mem::replace(&mut *self.touched.lock(), HourSet::new(TOUCHED_RUNS_MAX))
    }

    /// The latest version of an organization's hours in a window. As long as it stays the same, so does every answer
    /// about the window.
    pub fn latest_in(&self, org_id: &OrgId, window: Window) -> HourVersion {
        let state = self.state.read();
        let Some(hours) = state.by_org.get(org_id.as_str()) else { return state.unlisted };
        let (first, last) = (hour_of(window.from()), hour_of(window.to().plus_millis(-1)));
        let listed = if last - first < i64::try_from(hours.len()).unwrap_or(i64::MAX) {
            (first..=last).filter_map(|hour| hours.get(&hour)).max()
        } else {
            hours.iter().filter(|(hour, _)| (first..=last).contains(*hour)).map(|(_, version)| version).max()
        };
        listed.copied().unwrap_or_default().max(state.unlisted)
    }
}

const fn hour_of(moment: Timestamp) -> i64 {
    moment.millis().div_euclid(MILLIS_PER_HOUR)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(from_hour: i64, to_hour: i64) -> Window {
        let at = |hour: i64| Timestamp::from_millis(hour * MILLIS_PER_HOUR);
        Window::new(at(from_hour), at(to_hour)).unwrap()
    }

    fn touch(hours: impl IntoIterator<Item = i64>) -> TouchedHours {
        let mut touched = TouchedHours::default();
        for hour in hours {
            touched.touch("default", Timestamp::from_millis(hour * MILLIS_PER_HOUR + 5));
        }
        touched
    }

    #[test]
    fn hours_of_a_period_are_touched_from_its_first_moment_to_its_last() {
        let touched = touch([5]);
        let check = |from: i64, to: i64, expected: bool| {
            let at = |minutes: i64| Timestamp::from_millis(minutes * 60_000);
            assert_eq!(touched.touches_between(Period { from: at(from), to: at(to) }), expected, "{from} {to}");
        };
        check(0, 300, false);
        check(0, 301, true);
        check(359, 400, true);
        check(360, 400, false);
    }

    #[test]
    fn only_an_insert_within_the_window_outdates_its_answers() {
        let versions = HourVersions::default();
        let org = OrgId::default_org();
        versions.note_stored(touch([1, 2, 3]));
        let check = |window: Window, expected: HourVersion| {
            assert_eq!(versions.latest_in(&org, window), expected, "{window:?}");
        };
        check(window(0, 100), 1);
        assert_eq!(versions.take_touched().len(), 3);
        versions.note_stored(touch([5]));
        assert_eq!(versions.take_touched().iter().map(hour_of).collect::<Vec<_>>(), [5]);
        assert!(versions.take_touched().is_empty());
        check(window(0, 5), 1); // The end is not part of the window.
        check(window(5, 6), 2);
        check(window(0, 1_000), 2);
        check(window(6, 7), 0);
    }

    #[test]
    fn when_hours_are_forgotten_every_answer_is_outdated() {
        let versions = HourVersions::default();
        let org = OrgId::default_org();
        versions.note_stored(touch([7]));
        assert_eq!(versions.latest_in(&org, window(7, 8)), 1);
        versions.note_stored(touch(0..=200_000));
        assert_eq!(versions.latest_in(&org, window(7, 8)), 2);
        assert_eq!(versions.latest_in(&org, window(300_000, 300_001)), 2);
        assert_eq!(versions.take_touched().len(), 200_001, "the audit forgets none");
    }
}
