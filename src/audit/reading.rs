//! Compares the checksums of an hour. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::clickhouse::audit::{EventSums, Sum};
use crate::domain::Rollup;

/// A rollup's sums by bucket, in seconds since 1970.
pub(super) type Buckets = BTreeMap<u32, Sum>;

/// The sums of one hour of one organization.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reading {
    /// Of the events, by minute.
    pub(super) events: BTreeMap<u32, EventSums>,
    /// Of the rollups, in the order of [`Rollup::ALL`].
    pub(super) rollups: [Buckets; 4],
}

impl Reading {
    /// Distinct ids.
    pub(super) fn ids(&self) -> u64 {
        self.events.values().map(|sums| sums.types.events.cast_unsigned()).sum()
    }

    /// The expected sums of a rollup.
    fn expected(&self, rollup: Rollup, hour: u32) -> Buckets {
        let by_minute = |sum: fn(&EventSums) -> Sum| self.events.iter().map(|(at, sums)| (*at, sum(sums))).collect();
        let by_hour = |sum: fn(&EventSums) -> Sum| {
            BTreeMap::from([(hour, self.events.values().map(sum).fold(Sum::default(), Sum::plus))])
        };
        match rollup {
            Rollup::CampaignMinutes => by_minute(|sums| sums.campaigns),
            Rollup::TypeHours => by_hour(|sums| sums.types),
            Rollup::UserDays => by_hour(|sums| sums.users),
            Rollup::UserMinutes => by_minute(|sums| sums.users),
        }
    }

    /// The rollups that differ, with the buckets that differ.
    pub(super) fn differing(&self, hour: u32) -> Vec<(Rollup, Vec<u32>)> {
        let differing = Rollup::ALL.into_iter().zip(&self.rollups).map(|(rollup, actual)| {
            let expected = self.expected(rollup, hour);
            let buckets: BTreeSet<u32> = expected.keys().chain(actual.keys()).copied().collect();
            let sum = |buckets: &Buckets, at: &u32| buckets.get(at).copied().unwrap_or_default();
            let differing = buckets.into_iter().filter(|at| sum(&expected, at) != sum(actual, at));
            (rollup, differing.collect::<Vec<_>>())
        });
        differing.filter(|(_, buckets)| !buckets.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u32 = 7_200;

    fn sum(events: i64, check: u64) -> Sum {
        Sum { events, check }
    }

    /// Two minutes of events, and rollups that agree.
    fn reading() -> Reading {
        let minute = |events, check| EventSums {
            campaigns: sum(1, check),
            types: sum(events, check.wrapping_add(1)),
            users: sum(2, check.wrapping_add(2)),
        };
        let events = BTreeMap::from([(HOUR, minute(3, 10)), (HOUR + 60, minute(4, u64::MAX))]);
        let rollups = [
            BTreeMap::from([(HOUR, sum(1, 10)), (HOUR + 60, sum(1, u64::MAX))]),
            BTreeMap::from([(HOUR, sum(7, 11))]),
            BTreeMap::from([(HOUR, sum(4, 13))]),
            BTreeMap::from([(HOUR, sum(2, 12)), (HOUR + 60, sum(2, 1))]),
        ];
        Reading { events, rollups }
    }

    #[test]
    fn sums_wrap_around_and_agree() {
        assert_eq!(reading().differing(HOUR), []);
        assert_eq!(reading().ids(), 7);
    }

    #[test]
    fn what_differs_is_named_by_rollup_and_bucket() {
        let check = |change: fn(&mut Reading), expected: &[(Rollup, Vec<u32>)]| {
            let mut reading = reading();
            change(&mut reading);
            assert_eq!(reading.differing(HOUR), expected);
        };
        check(|reading| reading.rollups[1].clear(), &[(Rollup::TypeHours, vec![HOUR])]);
        check(
            |reading| _ = reading.rollups[0].insert(HOUR + 30, sum(1, 1)),
            &[(Rollup::CampaignMinutes, vec![HOUR + 30])],
        );
        // As many, but of other users.
        check(|reading| _ = reading.rollups[3].insert(HOUR + 60, sum(2, 2)), &[(Rollup::UserMinutes, vec![HOUR + 60])]);
        check(|reading| _ = reading.rollups[2].insert(HOUR, sum(5, 13)), &[(Rollup::UserDays, vec![HOUR])]);
        // Rows that have come to nothing are as good as none.
        check(|reading| _ = reading.rollups[3].insert(HOUR + 120, sum(0, 0)), &[]);
    }
}
