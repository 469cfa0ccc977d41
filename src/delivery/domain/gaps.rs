//! Gaps: the sequence numbers of a user that were not handled and will not be, unless they are replayed.

use serde::{Deserialize, Serialize};

/// Ranges of missing seqs that are named. Older ones are only counted.
const RANGES_MAX: usize = 100;
/// Seqs that one delivery names at most, the newest.
const NAMED_MAX: usize = 100;

/// The gaps of one user: ranges of seqs, both ends included, in rising order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gaps {
    ranges: Vec<(u64, u64)>,
    /// How many seqs are missing, those included that are not named any more.
    total: u64,
}

impl Gaps {
    /// The seqs from `first` to `last`, both included, are missing. They must be above all that were added before.
    pub fn add(&mut self, first: u64, last: u64) {
        self.total = self.total.saturating_add((last - first).saturating_add(1));
        match self.ranges.last_mut() {
            Some(range) if range.1.checked_add(1) == Some(first) => range.1 = last,
            _ => self.ranges.push((first, last)),
        }
        if self.ranges.len() > RANGES_MAX {
            self.ranges.remove(0);
        }
    }

    /// A missing seq was handled after all. One that is lower than those that are named is taken for missing, as long as
    /// such ones are.
    pub fn fill(&mut self, seq: u64) {
        if self.has(seq) == Some(false) {
            return;
        }
        self.total = self.total.saturating_sub(1);
        let Some(at) = self.ranges.iter().position(|(first, last)| (*first..=*last).contains(&seq)) else { return };
        let (first, last) = self.ranges.remove(at);
        if seq < last {
            self.ranges.insert(at, (seq + 1, last));
        }
        if first < seq {
            self.ranges.insert(at, (first, seq - 1));
        }
        if self.ranges.len() > RANGES_MAX {
            self.ranges.remove(0);
        }
    }

    /// Whether a seq is missing. None when that is not known any more: it is lower than those that are named, and such ones
    /// are missing.
    pub fn has(&self, seq: u64) -> Option<bool> {
        if self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&seq)) {
            return Some(true);
        }
        let named =
            self.ranges.iter().fold(0, |sum: u64, (first, last)| sum.saturating_add(last - first).saturating_add(1));
        let is_older = self.ranges.first().is_none_or(|(first, _)| seq < *first);
        if is_older && self.total > named { None } else { Some(false) }
    }

    /// Whether nothing is missing.
    pub const fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// How many seqs are missing.
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// The ranges that are named.
    pub fn ranges(&self) -> &[(u64, u64)] {
        &self.ranges
    }

    /// The newest missing seqs in rising order, at most 100.
    pub fn named(&self) -> Vec<u64> {
        let newest = self.ranges.iter().rev().flat_map(|(first, last)| (*first..=*last).rev());
        let mut seqs: Vec<u64> = newest.take(NAMED_MAX).collect();
        seqs.reverse();
        seqs
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn gaps_are_the_set_that_was_added_without_what_was_filled(
            steps in prop::collection::vec((1..4_u64, 1..4_u64), 0..30),
            filled in prop::collection::vec(1..200_u64, 0..30),
        ) {
            let (mut gaps, mut expected, mut at) = (Gaps::default(), BTreeSet::new(), 0);
            for (skip, count) in steps {
                let first = at + skip;
                at = first + count - 1;
                gaps.add(first, at);
                expected.extend(first..=at);
            }
            for seq in filled {
                gaps.fill(seq);
                expected.remove(&seq);
            }
            prop_assert_eq!(gaps.total(), expected.len() as u64);
            let newest: Vec<u64> = expected.iter().copied().skip(expected.len().saturating_sub(NAMED_MAX)).collect();
            prop_assert_eq!(gaps.named(), newest);
        }
    }

    #[test]
    fn only_so_many_ranges_are_named() {
        let mut gaps = Gaps::default();
        for n in 0..1_000 {
            gaps.add(2 * n + 1, 2 * n + 1);
        }
        assert_eq!((gaps.total(), gaps.ranges().len()), (1_000, RANGES_MAX));
        gaps.add(u64::MAX - 5, u64::MAX);
        assert_eq!(gaps.named().len(), NAMED_MAX);
    }

    #[test]
    fn gaps_that_are_not_named_any_more_are_filled_too() {
        let mut gaps = Gaps::default();
        (0..150).for_each(|n| gaps.add(2 * n + 1, 2 * n + 1));
        (0..150).for_each(|n| gaps.fill(2 * n + 1));
        assert_eq!(gaps, Gaps::default());
    }

    #[test]
    fn what_splits_ranges_keeps_their_bound() {
        let mut gaps = Gaps::default();
        (0..100).for_each(|n| gaps.add(10 * n + 1, 10 * n + 5));
        (0..100).for_each(|n| gaps.fill(10 * n + 3));
        assert_eq!((gaps.total(), gaps.ranges().len()), (400, RANGES_MAX));
    }
}
