//! Months in UTC, the partitions of `events`.

use time::{Date, Month as CalendarMonth, Time};

use crate::domain::{Period, Timestamp};

/// A month of UTC, as ClickHouse numbers it: `year × 100 + month`, such as
/// 202611.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Month(u32);

impl Month {
    /// The month with this number; none if it is invalid.
    pub fn from_number(number: u32) -> Option<Self> {
        first_moment(number).map(|_| Self(number))
    }

    /// Its number.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// Its period. None at the end of the calendar.
    pub fn period(self) -> Option<Period> {
        let next = if self.0 % 100 == 12 { self.0 + 89 } else { self.0 + 1 };
        Some(Period { from: first_moment(self.0)?, to: first_moment(next)? })
    }
}

impl std::fmt::Display for Month {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04}-{:02}", self.0 / 100, self.0 % 100)
    }
}

fn first_moment(number: u32) -> Option<Timestamp> {
    let month = CalendarMonth::try_from(u8::try_from(number % 100).ok()?).ok()?;
    let first = Date::from_calendar_date(i32::try_from(number / 100).ok()?, month, 1).ok()?;
    Some(Timestamp::from_millis(first.with_time(Time::MIDNIGHT).assume_utc().unix_timestamp().checked_mul(1_000)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_is_from_its_first_moment_to_that_of_the_next() {
        let check = |number: u32, from: i64, days: i64| {
            let period = Month::from_number(number).and_then(Month::period).unwrap();
            assert_eq!(
                (period.from.millis(), period.to.millis() - period.from.millis()),
                (from * 1_000, days * 86_400_000)
            );
        };
        check(197001, 0, 31);
        check(202402, 1_706_745_600, 29);
        check(202612, 1_796_083_200, 31);
        check(196912, -2_678_400, 31);
        check(210602, 4_294_425_600, 28);
        for number in [0, 202600, 202613, 99, u32::MAX] {
            assert_eq!(Month::from_number(number), None, "{number}");
        }
        assert_eq!(Month::from_number(202601).unwrap().to_string(), "2026-01");
    }
}
