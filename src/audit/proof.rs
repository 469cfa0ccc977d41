//! Decides which part of a difference may be repaired. Pure.

use crate::domain::{Difference, Differences, Rollup};

/// Marks the surplus of a rollup as proven if another rollup that counts the same events equals the
/// events: then no event is missing, and this rollup is wrong. Rollups in `was_repaired` prove
/// nothing, since a repair made them equal.
pub(super) fn mark_proven(found: &mut [Differences], was_repaired: impl Fn(Rollup) -> bool) {
    let differing: Vec<Rollup> = found.iter().map(|differences| differences.rollup).collect();
    let agrees = |witness: &Rollup| !differing.contains(witness) && !was_repaired(*witness);
    for differences in found {
        if witnesses(differences.rollup).iter().any(agrees) {
            differences.unproven = 0;
            for difference in &mut differences.listed {
                difference.counted_twice += difference.unproven();
            }
        }
    }
}

/// The rollups that count every event that this one counts.
const fn witnesses(rollup: Rollup) -> &'static [Rollup] {
    match rollup {
        Rollup::TypeHours => &[],
        Rollup::CampaignMinutes => &[Rollup::TypeHours],
        Rollup::UserDays => &[Rollup::TypeHours, Rollup::UserMinutes],
        Rollup::UserMinutes => &[Rollup::TypeHours, Rollup::UserDays],
    }
}

/// The changes of a repair: all missing counts; and the surplus of each rollup as a whole, if it is
/// proven, or if no rollup has more unproven counts than allowed.
pub(super) fn repairable(found: &[Differences], unproven_removals_max: u64) -> Vec<Differences> {
    let is_allowed = found.iter().all(|differences| differences.unproven <= unproven_removals_max);
    let plan = found.iter().map(|differences| {
        let takes = differences.unproven == 0 || is_allowed;
        let changes = |difference: &&Difference| takes || difference.missing() > 0;
        Differences { listed: differences.listed.iter().filter(changes).cloned().collect(), ..*differences }
    });
    plan.filter(|differences| !differences.listed.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::RollupKey;

    /// A rollup's keys: what is expected, what is counted, what of it is shown
    /// to be counted twice.
    fn found(rollup: Rollup, keys: &[(i64, i64, u64)]) -> Differences {
        let difference = |(expected, actual, counted_twice): &(i64, i64, u64)| Difference {
            key: RollupKey::default(),
            expected: *expected,
            actual: *actual,
            counted_twice: *counted_twice,
        };
        let listed: Vec<Difference> = keys.iter().map(difference).collect();
        let unproven = listed.iter().map(Difference::unproven).sum();
        Differences { rollup, keys: keys.len() as u64, under: 0, over: 0, unproven, listed }
    }

    fn changes(plan: &[Differences]) -> Vec<(Rollup, Vec<i64>)> {
        let of = |differences: &Differences| differences.listed.iter().map(Difference::missing).collect();
        plan.iter().map(|differences| (differences.rollup, of(differences))).collect()
    }

    #[test]
    fn what_is_missing_is_added_and_only_what_is_proven_is_taken() {
        let keys = [(5, 3, 0), (1, 501, 0)];
        assert_eq!(changes(&repairable(&[found(Rollup::TypeHours, &keys)], 0)), [(Rollup::TypeHours, vec![2])]);
        assert_eq!(changes(&repairable(&[found(Rollup::TypeHours, &keys)], 499)), [(Rollup::TypeHours, vec![2])]);
        assert_eq!(changes(&repairable(&[found(Rollup::TypeHours, &keys)], 500)), [(Rollup::TypeHours, vec![2, -500])]);
        let proven = [found(Rollup::TypeHours, &[(5, 3, 0), (10, 15, 5)])];
        assert_eq!(changes(&repairable(&proven, 0)), [(Rollup::TypeHours, vec![2, -5])]);
        // Some of it is proven and some is not: then nothing is taken.
        let partly = [found(Rollup::TypeHours, &[(10, 15, 5), (10, 15, 4)])];
        assert_eq!(changes(&repairable(&partly, 0)), []);
    }

    #[test]
    fn a_rollup_that_agrees_shows_that_no_event_is_missing() {
        let keys = [(1, 9, 0), (2, 1, 0)];
        let check = |rollups: &[Rollup], repaired: &[Rollup], proven: &[Rollup]| {
            let mut found: Vec<Differences> = rollups.iter().map(|rollup| found(*rollup, &keys)).collect();
            mark_proven(&mut found, |rollup| repaired.contains(&rollup));
            let is_proven = |differences: &&Differences| differences.unproven == 0;
            let named: Vec<Rollup> = found.iter().filter(is_proven).map(|differences| differences.rollup).collect();
            assert_eq!(named, proven, "{rollups:?}");
            assert!(found.iter().all(|differences| {
                differences.unproven == differences.listed.iter().map(Difference::unproven).sum::<u64>()
            }));
        };
        use Rollup::{CampaignMinutes, TypeHours, UserDays, UserMinutes};
        check(&[CampaignMinutes, UserDays, UserMinutes], &[], &[CampaignMinutes, UserDays, UserMinutes]);
        check(&[CampaignMinutes, UserDays, UserMinutes], &[TypeHours], &[]);
        check(&[TypeHours], &[], &[]);
        check(&[TypeHours, UserMinutes], &[], &[UserMinutes]);
        check(&[TypeHours, UserMinutes], &[UserDays], &[]);
        check(&[TypeHours, CampaignMinutes], &[], &[]);
        check(&Rollup::ALL, &[], &[]);
    }
}
