//! The deduplication window of ClickHouse: how long it can be relied on to know a segment by its token.
//!
//! A token makes the repetition of an insert exact, within limits: a table remembers the tokens of its last blocks only, and
//! the same rows must be cut into the same blocks. A segment that waits long (parked for a day while others are inserted, or
//! left in a data directory that a newer version is started on months later) may come back after that. So each segment records
//! in its header where in the window its token was given out, and an insert that may have been attempted before is
//! repeated under its token only while the token is still within the window.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How old a reading of the window may be.
const BELIEVED_FOR: Duration = Duration::from_secs(10);

/// Where in the deduplication window a token is given out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DedupWindow {
    /// The number of the rules by which rows are cut into blocks; 0 when it is
    /// not known.
    pub rules: u32,
    /// Blocks that all tables had taken, together, when the segment was
    /// opened, or somewhat before; 0 when it is not known.
    pub blocks: u64,
}

impl DedupWindow {
    /// Whether a token that was given out here is still known at `now`, in tables that remember `blocks_max` blocks.
    pub const fn still_holds(self, now: Self, blocks_max: u64) -> bool {
        let is_known = self.rules != 0 && self.blocks != 0;
        // Fewer blocks than before: other tables.
        is_known && self.rules == now.rules && self.blocks <= now.blocks && now.blocks - self.blocks < blocks_max
    }
}

/// The window of a segment that is opened now: read by the forwarder, recorded by the log.
#[derive(Debug, Default)]
pub struct CurrentDedupWindow(Mutex<(DedupWindow, Option<Instant>)>);

impl CurrentDedupWindow {
    /// The last reading; unknown before the first.
    pub fn get(&self) -> DedupWindow {
        self.0.lock().0
    }

    /// Replaces the reading.
    pub fn set(&self, window: DedupWindow) {
        *self.0.lock() = (window, Some(Instant::now()));
    }

    /// Whether the reading is 10 seconds old or missing.
    pub fn is_stale(&self) -> bool {
        self.0.lock().1.is_none_or(|read_at| read_at.elapsed() >= BELIEVED_FOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_holds_for_so_many_blocks_under_the_same_rules() {
        let check = |rules, blocks, expected: bool| {
            let now = DedupWindow { rules: 2, blocks: 1_000 };
            assert_eq!(DedupWindow { rules, blocks }.still_holds(now, 100), expected, "{rules} {blocks}");
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
