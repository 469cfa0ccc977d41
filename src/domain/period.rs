//! Periods of time, and sets of them.

use super::Timestamp;

/// The period from `from` (included) to `to` (not included).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period {
    /// Its first moment.
    pub from: Timestamp,
    /// The moment after its last.
    pub to: Timestamp,
}

impl Period {
    /// Whether both overlap.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.from < other.to && other.from < self.to
    }
}

/// A set of times, as ordered periods that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Periods(Vec<Period>);

impl Periods {
    /// The period that contains a time; none if it is not in the set.
    pub fn find(&self, moment: Timestamp) -> Option<Period> {
        let after = self.0.partition_point(|period| period.from <= moment);
        self.0[..after].last().filter(|period| moment < period.to).copied()
    }

    /// Whether the set overlaps the period.
    pub fn overlaps(&self, period: &Period) -> bool {
        let after = self.0.partition_point(|other| other.from < period.to);
        self.0[..after].last().is_some_and(|other| other.overlaps(period))
    }

    /// The periods, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Period> {
        self.0.iter()
    }
}

impl FromIterator<Period> for Periods {
    fn from_iter<I: IntoIterator<Item = Period>>(periods: I) -> Self {
        let mut sorted: Vec<Period> = periods.into_iter().filter(|period| period.from < period.to).collect();
        sorted.sort_unstable();
        let mut merged: Vec<Period> = Vec::new();
        for period in sorted {
            match merged.last_mut() {
                Some(last) if period.from <= last.to => last.to = last.to.max(period.to),
                _ => merged.push(period),
            }
        }
        Self(merged)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn period(from: i64, to: i64) -> Period {
        Period { from: Timestamp::from_millis(from), to: Timestamp::from_millis(to) }
    }

    #[test]
    fn periods_that_overlap_or_touch_are_one() {
        let periods: Periods =
            [period(5, 7), period(1, 3), period(3, 4), period(6, 9), period(20, 20)].into_iter().collect();
        assert_eq!(periods.iter().copied().collect::<Vec<_>>(), [period(1, 4), period(5, 9)]);
    }

    proptest! {
        #[test]
        fn a_moment_is_in_the_set_when_it_is_in_one_of_the_periods(
            periods in prop::collection::vec((0_i64..60, 0_i64..10), 0..12),
            asked in (0_i64..70, 1_i64..10),
        ) {
            let periods: Vec<Period> = periods.into_iter().map(|(from, length)| period(from, from + length)).collect();
            let set: Periods = periods.iter().copied().collect();
            let holds = |moment: i64| {
                let moment = Timestamp::from_millis(moment);
                periods.iter().any(|period| period.from <= moment && moment < period.to)
            };
            let (from, to) = (asked.0, asked.0 + asked.1);
            prop_assert_eq!(set.find(Timestamp::from_millis(from)).is_some(), holds(from));
            prop_assert_eq!(set.overlaps(&period(from, to)), (from..to).any(holds));
        }
    }
}
