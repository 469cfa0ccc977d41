//! A bounded set of hours. When it is full it covers more hours than were added, never fewer.

use std::collections::BTreeMap;

use super::{MILLIS_PER_HOUR, Timestamp};

/// A set of hours, stored as runs of consecutive hours. When there are more runs than allowed, the
/// two nearest ones are merged, including the hours between them: the set may then contain hours
/// that were not added, and always contains those that were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HourSet {
    /// The first hour of a run, and the hour after its last, counted since 1970.
    runs: BTreeMap<i64, i64>,
    runs_max: usize,
}

impl HourSet {
    /// An empty set with at most this many runs (at least one).
    pub const fn new(runs_max: usize) -> Self {
        Self { runs: BTreeMap::new(), runs_max }
    }

    /// Adds the hour of a time. Returns whether other hours were added as well.
    pub fn insert(&mut self, moment: Timestamp) -> bool {
        let hour = hour_of(moment);
        if self.holds(hour) {
            return false;
        }
        let mut from = hour;
        let mut to = hour + 1;
        if let Some((before, end)) = self.runs.range(..hour).next_back().map(|(before, end)| (*before, *end))
            && end == hour
        {
            from = before;
        }
        if let Some(end) = self.runs.remove(&to) {
            to = end;
        }
        self.runs.insert(from, to);
        let is_full = self.runs.len() > self.runs_max.max(1);
        if is_full {
            self.join_nearest();
        }
        is_full
    }

    fn join_nearest(&mut self) {
        let gaps = self.runs.iter().zip(self.runs.iter().skip(1));
        let nearest = gaps.min_by_key(|((_, end), (next, _))| **next - **end);
        if let Some((first, next, end)) = nearest.map(|((first, _), (next, end))| (*first, *next, *end)) {
            self.runs.remove(&next);
            self.runs.insert(first, end);
        }
    }

    /// Removes the hour of a time.
    pub fn remove(&mut self, moment: Timestamp) {
        let hour = hour_of(moment);
        let Some((from, to)) = self.run_of(hour) else { return };
        self.runs.remove(&from);
        if from < hour {
            self.runs.insert(from, hour);
        }
        if hour + 1 < to {
            self.runs.insert(hour + 1, to);
        }
    }

    fn run_of(&self, hour: i64) -> Option<(i64, i64)> {
        let (from, to) = self.runs.range(..=hour).next_back()?;
        (hour < *to).then_some((*from, *to))
    }

    fn holds(&self, hour: i64) -> bool {
        self.run_of(hour).is_some()
    }

    /// Whether the set contains the hour of a time.
    pub fn contains(&self, moment: Timestamp) -> bool {
        self.holds(hour_of(moment))
    }

    /// The starts of the hours, in order.
    pub fn iter(&self) -> impl Iterator<Item = Timestamp> {
        self.runs.iter().flat_map(|(from, to)| (*from..*to).map(|hour| Timestamp::from_millis(hour * MILLIS_PER_HOUR)))
    }

    /// How many hours are in the set.
    pub fn len(&self) -> u64 {
        self.runs.iter().map(|(from, to)| to.abs_diff(*from)).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }
}

const fn hour_of(moment: Timestamp) -> i64 {
    moment.millis().div_euclid(MILLIS_PER_HOUR)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn hour(number: i64) -> Timestamp {
        Timestamp::from_millis(number * MILLIS_PER_HOUR)
    }

    fn hours(set: &HourSet) -> BTreeSet<i64> {
        set.iter().map(hour_of).collect()
    }

    #[test]
    fn when_there_is_no_room_the_nearest_runs_become_one() {
        let mut set = HourSet::new(3);
        for number in [10, 20, 24] {
            assert!(!set.insert(hour(number)));
        }
        assert!(!set.insert(hour(11)), "it follows another");
        assert!(set.insert(hour(100)));
        assert_eq!(hours(&set), BTreeSet::from([10, 11, 20, 21, 22, 23, 24, 100]));
        assert_eq!(set.len(), 8);
    }

    proptest! {
        #[test]
        fn it_is_a_set_of_hours(steps in prop::collection::vec((any::<bool>(), -20_i64..20), 0..60)) {
            let (mut set, mut model) = (HourSet::new(100), BTreeSet::new());
            for (puts_in, number) in steps {
                if puts_in {
                    prop_assert!(!set.insert(hour(number).plus_millis(5)));
                    model.insert(number);
                } else {
                    set.remove(hour(number));
                    model.remove(&number);
                }
                prop_assert_eq!(&hours(&set), &model);
                prop_assert_eq!((set.len(), set.is_empty()), (model.len() as u64, model.is_empty()));
                prop_assert_eq!(set.contains(hour(number)), model.contains(&number));
            }
        }

        #[test]
        fn it_never_forgets_and_never_outgrows_its_bound(numbers in prop::collection::vec(-1_000_i64..1_000, 0..80)) {
            let mut set = HourSet::new(5);
            for number in &numbers {
                set.insert(hour(*number));
                prop_assert!(set.runs.len() <= 5);
            }
            prop_assert!(numbers.iter().all(|number| set.contains(hour(*number))));
        }
    }
}
