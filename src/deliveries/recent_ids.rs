//! Remembers ids that came recently, with the time of the first event of each.
//!
//! An event without a time gets that of its arrival. When it is sent again it must get the same time, since it would
//! otherwise be another event under the same id.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::domain::Timestamp;

/// Ids in each half of what is kept.
const IDS_MAX: usize = 100_000;

/// What is kept of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RecentEvent {
    pub(super) occurred_at: Timestamp,
    pub(super) user_id: String,
    pub(super) event_type: String,
    pub(super) seq: u64,
}

#[derive(Default)]
struct Generations {
    new: HashMap<String, RecentEvent>,
    old: HashMap<String, RecentEvent>,
}

/// The times of ids that came recently, in two generations of bounded size.
#[derive(Default)]
pub(super) struct RecentIds(Mutex<Generations>);

impl RecentIds {
    /// The time of an id: that which it has, or else this one from now on.
    pub(super) fn time_of(&self, id: &str, event: impl FnOnce() -> RecentEvent) -> Timestamp {
        let mut generations = self.0.lock();
        if let Some(known) = generations.new.get(id) {
            return known.occurred_at;
        }
        let event = generations.old.remove(id).unwrap_or_else(event);
        if generations.new.len() >= IDS_MAX {
            generations.old = std::mem::take(&mut generations.new);
        }
        let occurred_at = event.occurred_at;
        generations.new.insert(id.to_owned(), event);
        occurred_at
    }

    /// The event of an id, if it came a short while ago.
    pub(super) fn find(&self, id: &str) -> Option<RecentEvent> {
        let generations = self.0.lock();
        generations.new.get(id).or_else(|| generations.old.get(id)).cloned()
    }

    /// The event was not accepted.
    pub(super) fn forget(&self, id: &str) {
        let mut generations = self.0.lock();
        generations.new.remove(id);
        generations.old.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_time_of_an_id_stays() {
        let ids = RecentIds::default();
        let at = |millis: i64| {
            let occurred_at = Timestamp::from_millis(millis);
            move || RecentEvent { occurred_at, user_id: "ann".to_owned(), event_type: "click".to_owned(), seq: 1 }
        };
        assert_eq!(ids.time_of("a", at(1)), Timestamp::from_millis(1));
        assert_eq!(ids.time_of("a", at(2)), Timestamp::from_millis(1));
        for n in 0..IDS_MAX {
            ids.time_of(&n.to_string(), at(3));
        }
        assert_eq!(ids.time_of("a", at(4)), Timestamp::from_millis(1), "it was used since");
        ids.forget("a");
        assert_eq!((ids.find("a"), ids.time_of("a", at(5))), (None, Timestamp::from_millis(5)));
    }
}
