//! For how long ClickHouse can be relied on to know a segment by its token.
//!
//! A token makes the repetition of an insert exact, within limits: a table
//! remembers the tokens of its last so many blocks, and the same rows must be
//! cut into the same blocks. A segment that waits long (parked for a day while
//! others insert, or left in a data directory that is started again months
//! later by a newer version) may come back after that. So each segment says in
//! its header under what terms its token was given out, and an insert that may
//! have been tried before is only repeated when the terms still hold.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How old a reading of the terms may be.
const BELIEVED_FOR: Duration = Duration::from_secs(10);

/// The terms of a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenTerms {
    /// The number of the rules by which rows are cut into blocks; 0 when it is
    /// not known.
    pub rules: u32,
    /// Blocks that all tables had taken, together, when the segment was
    /// opened, or somewhat before; 0 when it is not known.
    pub blocks: u64,
}

impl TokenTerms {
    /// Whether a token given out on these terms is still known when these are
    /// the terms of `now`, in tables that remember `blocks_max` blocks.
    pub const fn hold(self, now: Self, blocks_max: u64) -> bool {
        let is_known = self.rules != 0 && self.blocks != 0;
        // Fewer blocks than before: other tables.
        is_known && self.rules == now.rules && self.blocks <= now.blocks && now.blocks - self.blocks < blocks_max
    }
}

/// The terms of a segment that is opened now: read by the forwarder, noted by
/// the log.
#[derive(Debug, Default)]
pub struct CurrentTerms(Mutex<(TokenTerms, Option<Instant>)>);

impl CurrentTerms {
    /// As they were last read.
    pub fn get(&self) -> TokenTerms {
        self.0.lock().0
    }

    /// They have been read.
    pub fn set(&self, terms: TokenTerms) {
        *self.0.lock() = (terms, Some(Instant::now()));
    }

    /// It is time to read them again.
    pub fn are_old(&self) -> bool {
        self.0.lock().1.is_none_or(|read_at| read_at.elapsed() >= BELIEVED_FOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_hold_for_so_many_blocks_under_the_same_rules() {
        let check = |rules, blocks, expected: bool| {
            let now = TokenTerms { rules: 2, blocks: 1_000 };
            assert_eq!(TokenTerms { rules, blocks }.hold(now, 100), expected, "{rules} {blocks}");
        };
        check(2, 1_000, true);
        check(2, 901, true);
        check(2, 900, false);
        check(2, 1_001, false); // The tables are not the ones it was given out for.
        check(1, 1_000, false);
        check(0, 0, false); // Of a version that did not note them.
        check(2, 0, false);
    }
}
