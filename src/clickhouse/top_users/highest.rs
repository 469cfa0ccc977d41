//! Keeps the highest of many candidates without storing the others.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::candidates::Candidate;

/// So many candidates with the highest upper bounds of those that were added.
pub(super) struct Highest {
    wanted: usize,
    /// As (upper bound, key), the lowest first.
    users: BinaryHeap<Reverse<(u64, u64)>>,
}

impl Highest {
    pub(super) const fn new(wanted: usize) -> Self {
        Self { wanted, users: BinaryHeap::new() }
    }

    pub(super) fn add(&mut self, user: Candidate) {
        let is_full = self.users.len() >= self.wanted;
        if is_full && self.users.peek().is_some_and(|Reverse(lowest)| lowest.0 >= user.upper) {
            return;
        }
        self.users.push(Reverse((user.upper, user.user_key)));
        if is_full {
            self.users.pop();
        }
    }

    /// Highest first.
    pub(super) fn into_candidates(self) -> Vec<Candidate> {
        let users = self.users.into_sorted_vec().into_iter();
        users.map(|Reverse((upper, user_key))| Candidate { user_key, upper }).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_highest_of_those_added_are_kept(uppers in prop::collection::vec(1..50_u64, 0..200), wanted in 1..60_usize) {
            let mut highest = Highest::new(wanted);
            for (user_key, upper) in (0..).zip(&uppers) {
                highest.add(Candidate { user_key, upper: *upper });
            }
            let found = highest.into_candidates();
            for user in &found {
                let key = usize::try_from(user.user_key).unwrap();
                prop_assert_eq!(user.upper, uppers[key]);
            }
            let mut expected = uppers;
            expected.sort_unstable_by(|a, b| b.cmp(a));
            expected.truncate(wanted);
            prop_assert_eq!(found.iter().map(|user| user.upper).collect::<Vec<_>>(), expected);
        }
    }
}
