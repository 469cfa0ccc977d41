//! When did the stored events of an hour last change?
//!
//! A cached answer is good as long as no event of its window has been stored
//! since it was worked out. This keeps, for each organisation and hour, the
//! number of the last store that touched it.

use std::collections::HashMap;

use parking_lot::RwLock;

use crate::domain::{MILLIS_PER_HOUR, OrgId, Timestamp, Window};

/// Most hours that are told apart; beyond that all answers so far are
/// forgotten, which costs a query each and nothing else.
const HOURS_MAX: usize = 200_000;

/// Counts stores, from 0.
pub type StoreNumber = u64;

/// The hours that the events of one insert lie in, by organisation.
#[derive(Debug, Default)]
pub struct TouchedHours {
    by_org: HashMap<Box<str>, HashMap<i64, StoreNumber>>,
    last: Option<(Box<str>, i64)>,
}

impl TouchedHours {
    /// An event of this organisation and time is among them.
    pub fn touch(&mut self, org_id: &str, occurred_at: Timestamp) {
        let hour = hour_of(occurred_at);
        // Neighbouring events mostly share both.
        if self.last.as_ref().is_some_and(|(org, last)| &**org == org_id && *last == hour) {
            return;
        }
        self.by_org.entry(org_id.into()).or_default().insert(hour, 0);
        self.last = Some((org_id.into(), hour));
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

/// See the module.
#[derive(Default)]
pub struct StoredHours {
    state: RwLock<State>,
}

impl StoredHours {
    /// The number of the last store. Read it before asking the database.
    pub fn last_store(&self) -> StoreNumber {
        self.state.read().last
    }

    /// An insert has become visible.
    pub fn stored(&self, touched: TouchedHours) {
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

    /// Whether an event of this organisation and window may have been stored
    /// after the given store.
    pub fn touched_since(&self, org: &OrgId, window: Option<Window>, since: StoreNumber) -> bool {
        let state = self.state.read();
        if state.last == since {
            return false;
        }
        if state.unlisted > since {
            return true;
        }
        let Some(hours) = state.by_org.get(org.as_str()) else { return false };
        let inside = |hour: i64| match window {
            None => true,
            Some(window) => hour_of(window.from()) <= hour && hour * MILLIS_PER_HOUR < window.to().millis(),
        };
        match window.map(|window| hour_of(window.from())..=hour_of(window.to())) {
            // The shorter of the two ways round.
            Some(range) if range.end() - range.start() < i64::try_from(hours.len()).unwrap_or(i64::MAX) => {
                range.filter(|hour| inside(*hour)).any(|hour| hours.get(&hour).is_some_and(|store| *store > since))
            }
            _ => hours.iter().any(|(hour, store)| *store > since && inside(*hour)),
        }
    }
}

const fn hour_of(moment: Timestamp) -> i64 {
    moment.millis().div_euclid(MILLIS_PER_HOUR)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(from_hour: i64, to_hour: i64) -> Option<Window> {
        let at = |hour: i64| Timestamp::from_millis(hour * MILLIS_PER_HOUR);
        Some(Window::new(at(from_hour), at(to_hour)).unwrap())
    }

    fn touch(hours: &[i64]) -> TouchedHours {
        let mut touched = TouchedHours::default();
        for hour in hours {
            touched.touch("default", Timestamp::from_millis(hour * MILLIS_PER_HOUR + 5));
        }
        touched
    }

    #[test]
    fn an_answer_is_good_until_its_window_is_touched() {
        let stored = StoredHours::default();
        let org = OrgId::default_org();
        stored.stored(touch(&[1, 2, 3]));
        let since = stored.last_store();
        assert!(!stored.touched_since(&org, window(0, 100), since));
        stored.stored(touch(&[5]));
        assert!(!stored.touched_since(&org, window(0, 5), since), "the end is not part of the window");
        assert!(stored.touched_since(&org, window(5, 6), since));
        assert!(stored.touched_since(&org, window(0, 1_000), since));
        assert!(stored.touched_since(&org, None, since));
        assert!(!stored.touched_since(&org, window(6, 7), since));
    }

    #[test]
    fn when_hours_are_forgotten_every_answer_is() {
        let stored = StoredHours::default();
        let org = OrgId::default_org();
        let since = stored.last_store();
        let many: Vec<i64> = (0..=200_000).collect();
        stored.stored(touch(&many));
        assert!(stored.touched_since(&org, window(300_000, 300_001), since));
        assert!(!stored.touched_since(&org, window(1, 2), stored.last_store()));
    }
}
