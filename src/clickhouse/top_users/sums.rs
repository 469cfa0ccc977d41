//! Adds up the rows of users' days by the users' keys.
//!
//! ClickHouse reads part after part, and the rows of a part are in the order of their keys. An answer is
//! therefore a few sorted *runs*, which are merged when one is not half as long as the one before it (as
//! in Tim Peters' "timsort"). Rows in any other order make more runs, and give the same sums.

use std::mem;

use clickhouse::query::Query;

use super::candidates::Candidate;
use crate::clickhouse::error::QueryError;
use crate::clickhouse::native::{self, Number};

const COLUMNS: [Number; 2] = [Number::UInt64, Number::Int32];

/// Sums that are held at a time, at most: 12 MiB of them.
const HELD_MAX: usize = 1 << 20;
/// Bytes of an answer that wait for the end of their block, mostly: a block of
/// ClickHouse's is less than a MiB, and as much may have come of the next.
const WAITING_BYTES: usize = 2 << 20;

/// The upper bounds of users.
#[derive(Debug, Default)]
pub(super) struct Sums {
    /// Each is at least twice as long as the next.
    runs: Vec<Run>,
    /// The run to which rows are added.
    run: Run,
    /// Room of runs that have been merged into others.
    spare: Vec<Run>,
}

/// The upper bounds of users, of some of their rows: each user once, in the
/// order of keys.
#[derive(Debug, Default)]
struct Run {
    keys: Vec<u64>,
    /// As wide as ClickHouse's counts, so that many fit into the processor's
    /// caches.
    uppers: Vec<i32>,
}

impl Sums {
    /// Of the answer to a question for keys and upper bounds of rows; none if
    /// that are too many users to hold.
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
        self.runs.iter().map(Run::len).sum::<usize>() + self.run.len()
    }

    fn add(&mut self, block: &native::Block<'_, 2>) {
        let [keys, uppers] = block.columns;
        let ((keys, _), (mut uppers, _)) = (keys.as_chunks(), uppers.as_chunks());
        // A block is of one part, and so mostly in order as a whole.
        for keys in keys.chunk_by(|key, next| u64::from_le_bytes(*key) < u64::from_le_bytes(*next)) {
            let (of_keys, others) = uppers.split_at(keys.len());
            self.add_in_order(keys, of_keys);
            uppers = others;
        }
    }

    /// Adds rows that are in the order of their keys, each key once.
    fn add_in_order(&mut self, keys: &[[u8; 8]], uppers: &[[u8; 4]]) {
        let first = keys.first().map(|key| u64::from_le_bytes(*key));
        if first.as_ref() <= self.run.keys.last() {
            self.end_run();
        }
        if self.run.keys.is_empty() {
            self.run = self.room();
        }
        self.run.keys.extend(keys.iter().map(|key| u64::from_le_bytes(*key)));
        self.run.uppers.extend(uppers.iter().map(|upper| i32::from_le_bytes(*upper)));
    }

    fn end_run(&mut self) {
        let mut run = mem::take(&mut self.run);
        while let Some(before) = self.runs.pop_if(|before| before.len() / 2 < run.len()) {
            run = self.merged(before, run);
        }
        self.runs.push(run);
    }

    /// Both in one.
    fn merged(&mut self, left: Run, right: Run) -> Run {
        let mut both = self.room();
        merge(&left, &right, |user_key, upper| both.push(user_key, upper));
        self.spare.extend([left, right].map(Run::cleared));
        both
    }

    /// Room for a run of any length. To let it grow would be dearer than to
    /// fill it: each time it is copied, and the kernel makes new pages. (Those
    /// that nothing is written to are not made.)
    fn room(&mut self) -> Run {
        let new = || Run { keys: Vec::with_capacity(HELD_MAX), uppers: Vec::with_capacity(HELD_MAX) };
        self.spare.pop().unwrap_or_else(new)
    }

    /// Tells of everybody with any events, in the order of their keys.
    pub(super) fn for_each(mut self, mut tell: impl FnMut(Candidate)) {
        let mut last = mem::take(&mut self.run);
        while self.runs.len() > 1
            && let Some(run) = self.runs.pop()
        {
            last = self.merged(run, last);
        }
        // The two that are left need no room for both.
        let first = self.runs.pop().unwrap_or_default();
        merge(&first, &last, |user_key, upper| {
            // Where a repair has taken events away from one row, none may be left.
            if let Some(upper) = u64::try_from(upper).ok().filter(|upper| *upper > 0) {
                tell(Candidate { user_key, upper });
            }
        });
    }
}

impl Run {
    fn len(&self) -> usize {
        self.keys.len()
    }

    /// Its room, empty.
    fn cleared(mut self) -> Self {
        self.keys.clear();
        self.uppers.clear();
        self
    }

    fn push(&mut self, user_key: u64, upper: i32) {
        self.keys.push(user_key);
        self.uppers.push(upper);
    }
}

/// Tells of the users of both runs, each once, in the order of keys. Which key
/// comes next is a matter of chance, so nothing branches on it.
fn merge(left: &Run, right: &Run, mut tell: impl FnMut(u64, i32)) {
    let (mut l, mut r) = (0, 0);
    while let (Some(a), Some(b)) = (left.keys.get(l), right.keys.get(r)) {
        let (is_left, is_right) = (a <= b, b <= a);
        let of = |is_taken: bool, upper: i32| if is_taken { upper } else { 0 };
        tell(*a.min(b), of(is_left, left.uppers[l]).saturating_add(of(is_right, right.uppers[r])));
        l += usize::from(is_left);
        r += usize::from(is_right);
    }
    for (rest, from) in [(left, l), (right, r)] {
        rest.keys[from..].iter().zip(&rest.uppers[from..]).for_each(|(user_key, upper)| tell(*user_key, *upper));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn row() -> impl Strategy<Value = (u64, i32)> {
        // Keys 0 and the last are as good as any; a repair takes events away.
        (prop_oneof![0..40_u64, Just(u64::MAX)], -3..20_i32)
    }

    /// A part: most are in the order of their keys.
    fn part() -> impl Strategy<Value = Vec<(u64, i32)>> {
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
            let mut expected: BTreeMap<u64, i64> = BTreeMap::new();
            for rows in &parts {
                let keys: Vec<u8> = rows.iter().flat_map(|row| row.0.to_le_bytes()).collect();
                let uppers: Vec<u8> = rows.iter().flat_map(|row| row.1.to_le_bytes()).collect();
                sums.add(&native::Block { columns: [&keys, &uppers], bytes: 0 });
                for (user_key, upper) in rows {
                    *expected.entry(*user_key).or_default() += i64::from(*upper);
                }
                prop_assert!(sums.runs.windows(2).all(|pair| pair[0].len() / 2 >= pair[1].len()));
            }
            let mut found = Vec::new();
            sums.for_each(|user| found.push((user.user_key, user.upper)));
            let expected = expected.into_iter().filter(|(_, upper)| *upper > 0);
            let expected: Vec<_> = expected.map(|(user_key, upper)| (user_key, upper.unsigned_abs())).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn more_events_than_can_be_counted_are_as_many_as_can_be() {
        let run = |upper| Run { keys: vec![7], uppers: vec![upper] };
        let mut both = Vec::new();
        merge(&run(i32::MAX - 1), &run(5), |user_key, upper| both.push((user_key, upper)));
        assert_eq!(both, [(7, i32::MAX)]);
    }
}
