//! Times with millisecond precision, and their text form.

use std::fmt;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Milliseconds of a day of UTC.
pub const MILLIS_PER_DAY: i64 = 86_400_000;

/// The first and the last millisecond that RFC 3339 can name: its years have
/// four digits.
const MILLIS_MIN: i64 = -62_167_219_200_000;
const MILLIS_MAX: i64 = 253_402_300_799_999;

/// Where RFC 3339 has the letter between date and time.
const SEPARATOR_AT: usize = 10;

/// A time, in milliseconds since 1970-01-01T00:00:00Z. It is written in UTC,
/// with milliseconds and `Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// A description of valid texts.
    pub const EXPECTED: &'static str = "must be an RFC 3339 time, such as 2030-05-17T19:30:00Z";

    /// Converts milliseconds since 1970.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// The time so many milliseconds later. What is beyond all times is the last.
    #[must_use]
    pub const fn plus_millis(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Reads an RFC 3339 time with any offset; digits finer than milliseconds
    /// are cut off. A leap second is taken for the last millisecond before it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        // The parser takes any character between date and time.
        if !matches!(text.as_bytes().get(SEPARATOR_AT), Some(b'T' | b't')) {
            return None;
        }
        let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        let millis = i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).ok()?;
        (MILLIS_MIN..=MILLIS_MAX).contains(&millis).then_some(Self(millis))
    }

    /// Reads a day such as `2030-05-17`: its first millisecond in UTC.
    #[must_use]
    pub fn parse_day(text: &str) -> Option<Self> {
        if text.len() == SEPARATOR_AT { Self::parse(&format!("{text}T00:00:00Z")) } else { None }
    }

    /// Its calendar date and time of day in UTC. What RFC 3339 cannot name is
    /// taken for the nearest time that it can.
    #[must_use]
    pub fn utc(self) -> OffsetDateTime {
        let nanos = i128::from(self.0.clamp(MILLIS_MIN, MILLIS_MAX)) * 1_000_000;
        OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = self.utc();
        let (year, month, day) = (time.year(), u8::from(time.month()), time.day());
        let (hour, minute, second, milli) = (time.hour(), time.minute(), time.second(), time.millisecond());
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_read_with_any_offset_and_kept_to_the_millisecond() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(Timestamp::parse(text).map(|time| time.to_string()).as_deref(), expected, "{text}");
        };
        check("2030-02-10T21:10:00Z", Some("2030-02-10T21:10:00.000Z"));
        check("2030-02-10t21:10:00z", Some("2030-02-10T21:10:00.000Z"));
        check("2030-02-10T21:10:00.1Z", Some("2030-02-10T21:10:00.100Z"));
        check("2030-02-10T21:10:00.1239Z", Some("2030-02-10T21:10:00.123Z"));
        check("2030-02-10T21:10:00.000999999999999Z", Some("2030-02-10T21:10:00.000Z"));
        check("2030-02-10T21:10:00-00:00", Some("2030-02-10T21:10:00.000Z"));
        // Over midnight, the end of a month, a leap day, and the end of a year.
        check("2030-03-01T00:30:00+02:00", Some("2030-02-28T22:30:00.000Z"));
        check("2028-02-28T23:30:00-01:00", Some("2028-02-29T00:30:00.000Z"));
        check("2030-12-31T23:30:00-05:30", Some("2031-01-01T05:00:00.000Z"));
        // The two 02:30 of Berlin's night when its clocks go back.
        check("2030-10-27T02:30:00+02:00", Some("2030-10-27T00:30:00.000Z"));
        check("2030-10-27T02:30:00+01:00", Some("2030-10-27T01:30:00.000Z"));
        // Leap seconds come at the end of a month of UTC.
        check("2016-12-31T23:59:60Z", Some("2016-12-31T23:59:59.999Z"));
        check("2016-12-31T18:59:60.5-05:00", Some("2016-12-31T23:59:59.999Z"));
        check("2030-02-10T21:10:60Z", None);
        check("9999-12-31T23:59:59.999Z", Some("9999-12-31T23:59:59.999Z"));
        check("9999-12-31T23:59:59-00:01", None);
        check("2030-02-29T00:00:00Z", None);
        check("2030-02-10T24:00:00Z", None);
        check("2030-02-10 21:10:00Z", None);
        check("2030-02-10T21:10:00", None);
        check("2030-02-10", None);
        check(" 2030-02-10T21:10:00Z", None);
        check("", None);
        check("é030-02-10T21:10:00Z", None);
    }

    #[test]
    fn days_are_days_of_the_calendar() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(Timestamp::parse_day(text).map(|time| time.to_string()).as_deref(), expected, "{text}");
        };
        check("2030-02-28", Some("2030-02-28T00:00:00.000Z"));
        check("2028-02-29", Some("2028-02-29T00:00:00.000Z"));
        check("9999-12-31", Some("9999-12-31T00:00:00.000Z"));
        for text in
            ["2030-02-29", "2030-2-28", "2030-02-28T", "28-02-2030", "2030/02/28", "", "2030-00-01", "+030-01-01"]
        {
            check(text, None);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(millis in MILLIS_MIN..=MILLIS_MAX) {
            let time = Timestamp::from_millis(millis);
            prop_assert_eq!(Timestamp::parse(&time.to_string()), Some(time));
        }

        #[test]
        fn no_text_panics(text in "\\PC*", near in "[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9:.]{0,20}[Zz+ -]?[0-9:]{0,6}") {
            let _ = (Timestamp::parse(&text), Timestamp::parse(&near), Timestamp::parse_day(&text));
        }
    }
}
