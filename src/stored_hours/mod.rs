//! When did the stored events of an hour last change?
//!
//! A cached answer is good as long as no event of its window has been stored
//! since it was worked out. This keeps, for each organization and hour, the
//! number of the last store that touched it.

pub mod segment_hours;

use std::collections::HashMap;

use parking_lot::{Mutex, RwLock};

use crate::domain::{HourSet, MILLIS_PER_HOUR, OrgId, Period, Timestamp, Window};

/// Most hours that are told apart; beyond that all answers so far are
/// forgotten, which costs a query each and nothing else.
const HOURS_MAX: usize = 200_000;

/// Most runs of hours that wait to be taken by the audit; beyond, the hours
/// between two runs are taken for touched, too.
const TOUCHED_RUNS_MAX: usize = 10_000;

/// Counts stores, from 0.
pub type StoreNumber = u64;

/// The hours that the events of one insert lie in, by organization.
#[derive(Debug, Default)]
pub struct TouchedHours {
    by_org: HashMap<Box<str>, HashMap<i64, StoreNumber>>,
    last: Option<(Box<str>, i64)>,
}

impl TouchedHours {
    /// An event of this organization and time is among them.
    pub fn touch(&mut self, org_id: &str, occurred_at: Timestamp) {
        let hour = hour_of(occurred_at);
        // Neighbouring events mostly share both.
        if self.last.as_ref().is_some_and(|(org, last)| &**org == org_id && *last == hour) {
            return;
        }
        self.by_org.entry(org_id.into()).or_default().insert(hour, 0);
        self.last = Some((org_id.into(), hour));
    }

    /// Whether an event of this hour is among them; of this organization, or
    /// of any.
    pub fn touches(&self, org_id: Option<&str>, hour: Timestamp) -> bool {
        let hour = hour_of(hour);
        match org_id {
            Some(org_id) => self.by_org.get(org_id).is_some_and(|hours| hours.contains_key(&hour)),
            None => self.by_org.values().any(|hours| hours.contains_key(&hour)),
        }
    }

    /// Whether an event of an hour that has moments of this period is among
    /// them.
    pub fn touches_between(&self, period: Period) -> bool {
        let (first, last) = (hour_of(period.from), hour_of(period.to.plus_millis(-1)));
        self.by_org.values().flat_map(HashMap::keys).any(|hour| (first..=last).contains(hour))
    }
}

#[derive(Default)]
struct State {
    /// The last store.
    last: StoreNumber,
    /// Hours that are not listed were last touched at this store or before.
    unlisted: StoreNumber,
    hours: usize,
    by_org: HashMap<Box<str>, HashMap<i64, StoreNumber>>,
}

/// The number of the last store that touched each hour of each organization. Bounded; when it is
/// full, more answers are treated as outdated than necessary.
pub struct StoredHours {
    state: RwLock<State>,
    /// Touched since they were last taken: what the audit looks at again.
    touched: Mutex<HourSet>,
}

impl Default for StoredHours {
    fn default() -> Self {
        Self { state: RwLock::default(), touched: Mutex::new(HourSet::new(TOUCHED_RUNS_MAX)) }
    }
}

impl StoredHours {
    /// An insert has become visible.
    pub fn stored(&self, touched: TouchedHours) {
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

    /// Takes the hours that were touched since the last call, of all
    /// organizations.
    pub fn take_touched(&self) -> HourSet {
        std::mem::replace(&mut *self.touched.lock(), HourSet::new(TOUCHED_RUNS_MAX))
    }

    /// The last store that may have touched this organization and window. As
    /// long as it stays the same, so does any answer about them.
    pub fn last_store_in(&self, org_id: &OrgId, window: Window) -> StoreNumber {
        let state = self.state.read();
        let Some(hours) = state.by_org.get(org_id.as_str()) else { return state.unlisted };
        let (first, last) = (hour_of(window.from()), hour_of(window.to().plus_millis(-1)));
        let listed = if last - first < i64::try_from(hours.len()).unwrap_or(i64::MAX) {
            (first..=last).filter_map(|hour| hours.get(&hour)).max()
        } else {
            hours.iter().filter(|(hour, _)| (first..=last).contains(*hour)).map(|(_, store)| store).max()
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
    fn only_a_store_within_the_window_outdates_its_answers() {
        let stored = StoredHours::default();
        let org = OrgId::default_org();
        stored.stored(touch([1, 2, 3]));
        let check = |window: Window, expected: StoreNumber| {
            assert_eq!(stored.last_store_in(&org, window), expected, "{window:?}");
        };
        check(window(0, 100), 1);
        assert_eq!(stored.take_touched().len(), 3);
        stored.stored(touch([5]));
        assert_eq!(stored.take_touched().iter().map(hour_of).collect::<Vec<_>>(), [5]);
        assert!(stored.take_touched().is_empty());
        check(window(0, 5), 1); // The end is not part of the window.
        check(window(5, 6), 2);
        check(window(0, 1_000), 2);
        check(window(6, 7), 0);
    }

    #[test]
    fn when_hours_are_forgotten_every_answer_is_outdated() {
        let stored = StoredHours::default();
        let org = OrgId::default_org();
        stored.stored(touch([7]));
        assert_eq!(stored.last_store_in(&org, window(7, 8)), 1);
        stored.stored(touch(0..=200_000));
        assert_eq!(stored.last_store_in(&org, window(7, 8)), 2);
        assert_eq!(stored.last_store_in(&org, window(300_000, 300_001)), 2);
        assert_eq!(stored.take_touched().len(), 200_001, "the audit forgets none");
    }
}
