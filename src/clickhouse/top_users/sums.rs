//! Adding up the rows of users' days by the users' keys.
//!
//! ClickHouse reads part after part, and the rows of a part lie in the order
//! of their keys. So the answer is a few *runs* in order, and runs are merged
//! as soon as one is not half as long as the one before it (as in Tim Peters'
//! "timsort"). Rows in any other order make more runs, and the same sums.

use std::cmp::Ordering;
use std::mem;

use clickhouse::query::Query;

use super::candidates::Candidate;
use crate::clickhouse::error::QueryError;
use crate::clickhouse::native::{self, Number};

const COLUMNS: [Number; 3] = [Number::UInt64, Number::Int32, Number::Int32];

/// Sums that are held at a time, at most: 8 MiB of them.
const HELD_MAX: usize = 1 << 19;
/// Bytes of an answer that wait for the end of their block, mostly: a block of
/// ClickHouse's is one MiB, and as much may have come of the next.
const WAITING_BYTES: usize = 2 << 20;

/// The bounds of a user, of some of its rows. (As wide as ClickHouse's counts,
/// so that many fit into the processor's caches.)
#[derive(Clone, Copy, Debug)]
struct Sum {
    user_key: u64,
    upper: i32,
    lower: i32,
}

impl Sum {
    const fn add(&mut self, other: Self) {
        self.upper = self.upper.saturating_add(other.upper);
        self.lower = self.lower.saturating_add(other.lower);
    }
}

/// The bounds of users.
#[derive(Debug, Default)]
pub(super) struct Sums {
    /// Each has a user once, in the order of keys, and is at least twice as
    /// long as the next.
    runs: Vec<Vec<Sum>>,
    /// The run to which rows are added.
    run: Vec<Sum>,
    /// Room of runs that have been merged into others.
    spare: Vec<Vec<Sum>>,
}

impl Sums {
    /// Of the answer to a question for keys, upper and lower bounds of rows;
    /// none if that are too many users to hold.
    pub(super) async fn read(query: Query) -> Result<Option<Self>, QueryError> {
        let mut answer = query.fetch_bytes("Native")?;
        let (mut sums, mut bytes) = (Self::default(), Vec::with_capacity(WAITING_BYTES));
        while let Some(piece) = answer.next().await? {
            bytes.extend_from_slice(&piece);
            let mut taken = 0;
            while let Some(block) = native::block(&bytes[taken..], &COLUMNS)? {
                sums.add(&block);
                taken += block.bytes;
            }
            bytes.drain(..taken);
            if sums.held() > HELD_MAX {
                return Ok(None);
            }
        }
        if bytes.is_empty() {
            Ok(Some(sums))
        } else {
            Err(QueryError::Failed("the answer ends within a block".to_owned()))
        }
    }

    fn held(&self) -> usize {
        self.runs.iter().map(Vec::len).sum::<usize>() + self.run.len()
    }

    fn add(&mut self, block: &native::Block<'_, 3>) {
        let [keys, uppers, lowers] = block.columns;
        let (keys, _) = keys.as_chunks();
        let (uppers, _) = uppers.as_chunks();
        let (lowers, _) = lowers.as_chunks();
        for (key, (upper, lower)) in keys.iter().zip(uppers.iter().zip(lowers)) {
            let (upper, lower) = (i32::from_le_bytes(*upper), i32::from_le_bytes(*lower));
            self.add_row(Sum { user_key: u64::from_le_bytes(*key), upper, lower });
        }
    }

    fn add_row(&mut self, row: Sum) {
        match self.run.last_mut().map(|last| (last.user_key.cmp(&row.user_key), last)) {
            None => self.begin_run(row),
            Some((Ordering::Less, _)) => self.run.push(row),
            Some((Ordering::Equal, last)) => last.add(row),
            Some((Ordering::Greater, _)) => {
                self.end_run();
                self.begin_run(row);
            }
        }
    }

    fn begin_run(&mut self, row: Sum) {
        self.run = self.room();
        self.run.push(row);
    }

    fn end_run(&mut self) {
        let mut run = mem::take(&mut self.run);
        while let Some(before) = self.runs.pop_if(|before| before.len() / 2 < run.len()) {
            run = self.merged(before, run);
        }
        self.runs.push(run);
    }

    /// Both in one.
    fn merged(&mut self, left: Vec<Sum>, right: Vec<Sum>) -> Vec<Sum> {
        let mut both = self.room();
        merge(&left, &right, &mut both);
        self.spare.extend([left, right].map(|mut merged| {
            merged.clear();
            merged
        }));
        both
    }

    /// Room for a run of any length. To let it grow would be dearer than to
    /// fill it: each time it is copied, and the kernel makes new pages. (Those
    /// that nothing is written to are not made.)
    fn room(&mut self) -> Vec<Sum> {
        self.spare.pop().unwrap_or_else(|| Vec::with_capacity(HELD_MAX))
    }

    /// Everybody with any events, in the order of their keys.
    pub(super) fn candidates(mut self) -> impl Iterator<Item = Candidate> {
        let mut users = mem::take(&mut self.run);
        while let Some(run) = self.runs.pop() {
            users = self.merged(run, users);
        }
        users.into_iter().filter_map(|user| {
            // Where a repair has taken events away from one row, none may be left.
            let upper = u64::try_from(user.upper).ok().filter(|upper| *upper > 0)?;
            Some(Candidate { user_key: user.user_key, upper, lower: u64::try_from(user.lower).unwrap_or(0) })
        })
    }
}

/// Puts two runs into `both` as one. Which key comes next is a matter of
/// chance, so nothing here branches on it.
fn merge(left: &[Sum], right: &[Sum], both: &mut Vec<Sum>) {
    both.reserve(left.len() + right.len());
    let (mut l, mut r) = (0, 0);
    while let (Some(a), Some(b)) = (left.get(l), right.get(r)) {
        let (is_left, is_right) = (a.user_key <= b.user_key, b.user_key <= a.user_key);
        let of = |is_taken: bool, bound: i32| if is_taken { bound } else { 0 };
        let upper = of(is_left, a.upper).saturating_add(of(is_right, b.upper));
        let lower = of(is_left, a.lower).saturating_add(of(is_right, b.lower));
        both.push(Sum { user_key: a.user_key.min(b.user_key), upper, lower });
        l += usize::from(is_left);
        r += usize::from(is_right);
    }
    both.extend_from_slice(&left[l..]);
    both.extend_from_slice(&right[r..]);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn row() -> impl Strategy<Value = (u64, i32, i32)> {
        // Keys 0 and the last are as good as any; a repair takes events away.
        let key = prop_oneof![0..40_u64, Just(u64::MAX)];
        (key, -3..20_i32, 0..3_i32).prop_map(|(user_key, upper, less)| (user_key, upper, upper - less))
    }

    /// A part: most are in the order of their keys.
    fn part() -> impl Strategy<Value = Vec<(u64, i32, i32)>> {
        (prop::collection::vec(row(), 0..100), 0..5).prop_map(|(mut rows, disorder)| {
            if disorder != 0 {
                rows.sort_unstable();
            }
            rows
        })
    }

    proptest! {
        #[test]
        fn rows_in_any_order_add_up_by_key(parts in prop::collection::vec(part(), 0..12)) {
            let mut sums = Sums::default();
            let mut expected: BTreeMap<u64, (i64, i64)> = BTreeMap::new();
            for rows in &parts {
                let keys: Vec<u8> = rows.iter().flat_map(|row| row.0.to_le_bytes()).collect();
                let uppers: Vec<u8> = rows.iter().flat_map(|row| row.1.to_le_bytes()).collect();
                let lowers: Vec<u8> = rows.iter().flat_map(|row| row.2.to_le_bytes()).collect();
                sums.add(&native::Block { columns: [&keys, &uppers, &lowers], bytes: 0 });
                for (user_key, upper, lower) in rows {
                    let sum = expected.entry(*user_key).or_default();
                    *sum = (sum.0 + i64::from(*upper), sum.1 + i64::from(*lower));
                }
                prop_assert!(sums.runs.windows(2).all(|pair| pair[0].len() / 2 >= pair[1].len()));
            }
            let found: Vec<_> = sums.candidates().map(|user| (user.user_key, user.upper, user.lower)).collect();
            let expected: Vec<_> = expected
                .into_iter()
                .filter(|(_, (upper, _))| *upper > 0)
                .map(|(user_key, (upper, lower))| (user_key, upper.unsigned_abs(), u64::try_from(lower).unwrap_or(0)))
                .collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn more_events_than_can_be_counted_are_as_many_as_can_be() {
        let rows = [i32::MAX - 1, 5].map(|upper| vec![Sum { user_key: 7, upper, lower: -upper }]);
        let mut both = Vec::new();
        merge(&rows[0], &rows[1], &mut both);
        assert_eq!((both[0].upper, both[0].lower), (i32::MAX, i32::MIN));
    }
}
