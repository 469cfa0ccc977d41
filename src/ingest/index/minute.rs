//! The minute of an event, in 26 bits.

use tallyhouse_ledger::Day;

use crate::domain::{MILLIS_PER_MINUTE, Timestamp};
use crate::log::DayNumber;

const MINUTES_PER_DAY: u32 = 24 * 60;

/// The minute of an event: minutes since 1970, at least 1. Earlier times all fall into the first minute, and times
/// after 2097 into the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Minute(u32);

impl Minute {
    /// Bits of a minute.
    pub(super) const BITS: u32 = 26;
    const LAST: u32 = (1 << Self::BITS) - 1;

    /// The minute of a moment.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 26 bits")]
    pub fn of(moment: Timestamp) -> Self {
        Self((moment.millis() / MILLIS_PER_MINUTE).clamp(1, Self::LAST.into()) as u32)
    }

    /// Of its number.
    pub const fn of_bits(bits: u32) -> Self {
        Self(bits & Self::LAST)
    }

    /// Its number, of 26 bits. Never 0.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The number of its day, as days since 1970.
    pub const fn day_number(self) -> DayNumber {
        self.0 / MINUTES_PER_DAY
    }

    /// Its first moment.
    pub fn start(self) -> Timestamp {
        Timestamp::from_millis(i64::from(self.0) * MILLIS_PER_MINUTE)
    }

    /// The day it belongs to, as the ledger counts it.
    pub fn day(self) -> Day {
        Day::of_millis(self.start().millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_do_not_fit_fall_into_the_first_and_the_last_minute() {
        assert_eq!(Minute::of(Timestamp::from_millis(-1)), Minute(1));
        assert_eq!(Minute::of(Timestamp::from_millis(i64::MAX)), Minute(Minute::LAST));
        let minute = Minute::of(Timestamp::from_millis(1_770_757_830_000));
        assert_eq!(minute.start(), Timestamp::from_millis(1_770_757_800_000));
        assert_eq!(minute.day(), Day::of_millis(1_770_757_800_000));
        assert_eq!(minute.day_number(), 20_494);
        assert_eq!(Minute::of_bits(minute.bits()), minute);
    }
}
