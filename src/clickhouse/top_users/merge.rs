//! Merging the rows of days, each in the order of their keys.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use clickhouse::query::{BytesCursor, Query};
use futures_util::future::try_join_all;

use super::candidates::Candidate;
use crate::clickhouse::error::QueryError;
use crate::clickhouse::native::{self, Number};

const COLUMNS: [Number; 3] = [Number::UInt64, Number::Int32, Number::Int32];

/// A row of a user's day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct KeyedRow {
    user_key: u64,
    upper: i32,
    lower: i32,
}

/// Rows on their way from ClickHouse, a block at a time.
pub(super) struct KeyedRows {
    answer: BytesCursor,
    bytes: Vec<u8>,
    rows: std::vec::IntoIter<KeyedRow>,
    has_ended: bool,
}

impl KeyedRows {
    /// The answer to a question for keys, upper and lower bounds of rows.
    pub(super) fn read(query: Query) -> Result<Self, QueryError> {
        let answer = query.fetch_bytes("Native")?;
        Ok(Self { answer, bytes: Vec::new(), rows: Vec::new().into_iter(), has_ended: false })
    }

    /// Sees to it that there is a row, unless the answer has ended.
    async fn fill(&mut self) -> Result<(), QueryError> {
        while self.rows.as_slice().is_empty() && !self.has_ended {
            if let Some(block) = native::block(&self.bytes, &COLUMNS)? {
                self.rows = decode(&block).into_iter();
                let bytes = block.bytes;
                self.bytes.drain(..bytes);
                continue;
            }
            match self.answer.next().await? {
                Some(piece) => self.bytes.extend_from_slice(&piece),
                None if self.bytes.is_empty() => self.has_ended = true,
                None => return Err(QueryError::Failed("the answer ends within a block".to_owned())),
            }
        }
        Ok(())
    }

    fn key(&self) -> Option<u64> {
        self.rows.as_slice().first().map(|row| row.user_key)
    }

    /// Whether more rows must be waited for.
    fn is_waiting(&self) -> bool {
        self.rows.as_slice().is_empty() && !self.has_ended
    }
}

fn decode(block: &native::Block<'_, 3>) -> Vec<KeyedRow> {
    let [keys, uppers, lowers] = block.columns;
    let (keys, _) = keys.as_chunks();
    let (uppers, _) = uppers.as_chunks();
    let (lowers, _) = lowers.as_chunks();
    let bounds = uppers.iter().zip(lowers);
    let row = |(key, (upper, lower)): (&[u8; 8], (&[u8; 4], &[u8; 4]))| KeyedRow {
        user_key: u64::from_le_bytes(*key),
        upper: i32::from_le_bytes(*upper),
        lower: i32::from_le_bytes(*lower),
    };
    keys.iter().zip(bounds).map(row).collect()
}

/// So many users with the highest upper bounds, highest first, from the rows
/// of all their days.
pub(super) async fn merge(mut days: Vec<KeyedRows>, wanted: usize) -> Result<Vec<Candidate>, QueryError> {
    let mut highest = Highest::new(wanted);
    loop {
        try_join_all(days.iter_mut().map(KeyedRows::fill)).await?;
        while !days.iter().any(KeyedRows::is_waiting) {
            let lowest = days.iter_mut().min_by_key(|day| day.key().map_or((true, 0), |key| (false, key)));
            let Some(row) = lowest.and_then(|day| day.rows.next()) else {
                return Ok(highest.candidates());
            };
            highest.add(row)?;
        }
    }
}

/// The users with the highest upper bounds of those that were added. Rows are
/// added in the order of their keys.
struct Highest {
    wanted: usize,
    /// By upper bound, the lowest first.
    users: BinaryHeap<Reverse<(u64, u64, u64)>>,
    /// The user whose rows are being added.
    user_key: u64,
    upper: i64,
    lower: i64,
}

impl Highest {
    fn new(wanted: usize) -> Self {
        Self { wanted, users: BinaryHeap::new(), user_key: 0, upper: 0, lower: 0 }
    }

    fn add(&mut self, row: KeyedRow) -> Result<(), QueryError> {
        if row.user_key != self.user_key {
            if row.user_key < self.user_key {
                return Err(QueryError::Failed("rows are not in the order that was asked for".to_owned()));
            }
            self.take_user();
            (self.user_key, self.upper, self.lower) = (row.user_key, 0, 0);
        }
        self.upper += i64::from(row.upper);
        self.lower += i64::from(row.lower);
        Ok(())
    }

    fn take_user(&mut self) {
        let at_least_none = |events: i64| u64::try_from(events).unwrap_or(0);
        let (upper, lower) = (at_least_none(self.upper), at_least_none(self.lower));
        let lowest = self.users.peek().filter(|_| self.users.len() >= self.wanted).map_or(0, |Reverse(user)| user.0);
        if upper > lowest {
            self.users.push(Reverse((upper, self.user_key, lower)));
            if self.users.len() > self.wanted {
                self.users.pop();
            }
        }
    }

    fn candidates(mut self) -> Vec<Candidate> {
        self.take_user();
        let users = self.users.into_sorted_vec().into_iter();
        users.map(|Reverse((upper, user_key, lower))| Candidate { user_key, upper, lower }).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn row() -> impl Strategy<Value = KeyedRow> {
        // Keys 0 and the last are as good as any; a repair takes events away.
        let key = prop_oneof![0..40_u64, Just(u64::MAX)];
        (key, -3..20_i32, 0..3_i32).prop_map(|(user_key, upper, less)| KeyedRow {
            user_key,
            upper,
            lower: upper - less,
        })
    }

    proptest! {
        #[test]
        fn the_highest_of_added_rows_are_the_highest_of_their_sums(
            mut rows in prop::collection::vec(row(), 0..200),
            wanted in 1..60_usize,
        ) {
            let mut sums: BTreeMap<u64, (i64, i64)> = BTreeMap::new();
            for row in &rows {
                let sum = sums.entry(row.user_key).or_default();
                *sum = (sum.0 + i64::from(row.upper), sum.1 + i64::from(row.lower));
            }
            let mut expected: Vec<u64> = sums.values().filter_map(|sum| u64::try_from(sum.0).ok()).filter(|sum| *sum > 0).collect();
            expected.sort_unstable_by(|a, b| b.cmp(a));
            expected.truncate(wanted);

            rows.sort_by_key(|row| row.user_key);
            let mut highest = Highest::new(wanted);
            for row in &rows {
                highest.add(*row).unwrap();
            }
            let found = highest.candidates();
            prop_assert_eq!(found.iter().map(|user| user.upper).collect::<Vec<_>>(), expected);
            for user in found {
                let (upper, lower) = sums[&user.user_key];
                prop_assert_eq!((user.upper, user.lower), (u64::try_from(upper).unwrap(), u64::try_from(lower).unwrap_or(0)));
            }
        }
    }

    #[test]
    fn rows_out_of_order_are_an_error() {
        let row = |user_key| KeyedRow { user_key, upper: 1, lower: 1 };
        let mut highest = Highest::new(5);
        highest.add(row(3)).unwrap();
        highest.add(row(3)).unwrap();
        assert!(highest.add(row(2)).is_err());
    }
}
