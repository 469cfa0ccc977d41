//! Times as text: RFC 3339, parsed with any offset, written in UTC with `Z`.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::domain::Timestamp;

/// What is said of a text that is no time.
pub(super) const EXPECTED: &str = "must be an RFC 3339 time";

/// The first and the last millisecond that RFC 3339 can name: its years have
/// four digits.
const MILLIS_MIN: i64 = -62_167_219_200_000;
const MILLIS_MAX: i64 = 253_402_300_799_999;

/// Bytes of a date.
const DATE_BYTES: usize = "YYYY-MM-DD".len();
const MICROS_PER_SECOND: i64 = 1_000_000;

/// Reads a time; finer digits than milliseconds are cut off. `T` and `Z` may be
/// small letters, as RFC 3339 has it.
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    // The parser takes any character between date and time.
    if !matches!(text.as_bytes().get(10), Some(b'T' | b't')) {
        return None;
    }
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    let millis = i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).ok()?;
    (MILLIS_MIN..=MILLIS_MAX).contains(&millis).then(|| Timestamp::from_millis(millis))
}

/// Reads a time as other systems write it: also with a space in place of `T`, and without an offset, which is UTC
/// then.
pub(super) fn parse_loosely(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let with_t = match text.as_bytes().get(DATE_BYTES) {
        Some(b' ') => format!("{}T{}", text.get(..DATE_BYTES)?, text.get(DATE_BYTES + 1..)?),
        _ => text.to_owned(),
    };
    parse(&with_t).or_else(|| parse(&format!("{with_t}Z"))).or_else(|| parse_date(text))
}

/// Reads a time from a query string, where a `+` that was not escaped has
/// become a space.
pub(super) fn parse_in_query(text: &str) -> Option<Timestamp> {
    match text.rsplit_once(' ') {
        Some((time, offset)) => parse(&format!("{time}+{offset}")),
        None => parse(text),
    }
}

/// Reads a day, as `2026-02-10`: its first moment in UTC.
pub(crate) fn parse_date(text: &str) -> Option<Timestamp> {
    if text.len() == DATE_BYTES { parse(&format!("{text}T00:00:00Z")) } else { None }
}

/// Writes the day of a time.
pub(super) fn write_date(moment: Timestamp) -> String {
    let mut date = write(moment);
    date.truncate(DATE_BYTES);
    date
}

/// The seconds and nanoseconds of google.protobuf.Timestamp, which has the
/// range of RFC 3339, to the millisecond.
pub(super) fn from_parts(seconds: i64, nanos: i32) -> Option<Timestamp> {
    let nanos = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    let millis = seconds.checked_mul(1_000)?.checked_add(i64::from(nanos / 1_000_000))?;
    (MILLIS_MIN..=MILLIS_MAX).contains(&millis).then(|| Timestamp::from_millis(millis))
}

/// Writes a time, with milliseconds only where there are any.
pub(super) fn write(moment: Timestamp) -> String {
    if moment.millis().rem_euclid(1_000) == 0 { Digits::None } else { Digits::Millis }.write(micros(moment))
}

/// Writes a time with milliseconds.
pub(super) fn write_millis(moment: Timestamp) -> String {
    Digits::Millis.write(micros(moment))
}

/// Writes a time, given in microseconds since 1970, with microseconds.
pub(super) fn write_micros(micros: i64) -> String {
    Digits::Micros.write(micros)
}

fn micros(moment: Timestamp) -> i64 {
    moment.millis().saturating_mul(1_000)
}

/// Digits behind the second.
#[derive(Clone, Copy)]
enum Digits {
    None,
    Millis,
    Micros,
}

impl Digits {
    /// What cannot be named is taken for the nearest time that can.
    fn write(self, micros: i64) -> String {
        let micros = micros.clamp(MILLIS_MIN * 1_000, MILLIS_MAX * 1_000);
        let seconds = micros.div_euclid(MICROS_PER_SECOND);
        let fraction = micros.rem_euclid(MICROS_PER_SECOND).unsigned_abs();
        let time = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let mut text = String::with_capacity("0000-00-00T00:00:00.000000Z".len());
        push(&mut text, 4, time.year().unsigned_abs().into());
        for (mark, number) in [
            ('-', u8::from(time.month())),
            ('-', time.day()),
            ('T', time.hour()),
            (':', time.minute()),
            (':', time.second()),
        ] {
            text.push(mark);
            push(&mut text, 2, number.into());
        }
        match self {
            Self::None => {}
            Self::Millis => {
                text.push('.');
                push(&mut text, 3, fraction / 1_000);
            }
            Self::Micros => {
                text.push('.');
                push(&mut text, 6, fraction);
            }
        }
        text.push('Z');
        text
    }
}

/// Appends the last `digits` digits of a number. (A series has up to 50,000
/// times; `format!` takes ten times as long.)
fn push(text: &mut String, digits: u32, number: u64) {
    for place in (0..digits).rev() {
        let digit = number / 10_u64.pow(place) % 10;
        text.push(char::from(b'0' + u8::try_from(digit).unwrap_or_default()));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_read_with_any_offset() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(parse(text).map(write), expected.map(str::to_owned), "{text}");
        };
        check("2026-02-10T21:10:00Z", Some("2026-02-10T21:10:00Z"));
        check("2026-02-10t21:10:00z", Some("2026-02-10T21:10:00Z"));
        check("2026-02-10T23:10:00+02:00", Some("2026-02-10T21:10:00Z"));
        check("2026-02-10T15:40:00-05:30", Some("2026-02-10T21:10:00Z"));
        check("2026-02-10T21:10:00.1239Z", Some("2026-02-10T21:10:00.123Z"));
        check("2026-02-10T21:10:00.1Z", Some("2026-02-10T21:10:00.100Z"));
        check("2026-02-10T21:10:00.000999999999999Z", Some("2026-02-10T21:10:00Z"));
        check("1969-12-31T23:59:59.9999Z", Some("1969-12-31T23:59:59.999Z"));
        check("0000-01-01T00:00:00Z", Some("0000-01-01T00:00:00Z"));
        check("9999-12-31T23:59:59.999Z", Some("9999-12-31T23:59:59.999Z"));
        check("2024-02-29T00:00:00Z", Some("2024-02-29T00:00:00Z"));
        check("0000-01-01T00:00:00+00:01", None);
        check("9999-12-31T23:59:59-00:01", None);
        check("10000-01-01T00:00:00Z", None);
        check("2026-02-29T00:00:00Z", None);
        check("2026-02-10T24:00:00Z", None);
        check("2026-02-10T21:60:00Z", None);
        check("2026-02-10 21:10:00Z", None);
        check("2026-02-10T21:10:00", None);
        check("2026-02-10T21:10Z", None);
        check("2026-02-10", None);
        check("1770757800", None);
        check(" 2026-02-10T21:10:00Z", None);
        check("2026-02-10T21:10:00Z ", None);
        check("2026-02-10T21:10:00.Z", None);
        check("", None);
        check("é026-02-10T21:10:00Z", None);
    }

    #[test]
    fn times_of_other_systems_may_lack_an_offset() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(parse_loosely(text).map(write), expected.map(str::to_owned), "{text}");
        };
        check("2026-02-10T21:10:00.5", Some("2026-02-10T21:10:00.500Z"));
        check("2026-02-10 21:10:00", Some("2026-02-10T21:10:00Z"));
        check("2026-02-10 23:10:00+02:00", Some("2026-02-10T21:10:00Z"));
        check("2026-02-10", Some("2026-02-10T00:00:00Z"));
        check("yesterday", None);
        check("é026-02-10 21:10:00", None);
        check("", None);
    }

    #[test]
    fn a_plus_may_have_become_a_space() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(parse_in_query(text).map(write), expected.map(str::to_owned), "{text}");
        };
        check("2026-02-10T23:10:00 02:00", Some("2026-02-10T21:10:00Z"));
        check("2026-02-10T23:10:00+02:00", Some("2026-02-10T21:10:00Z"));
        check("2026-02-10T21:10:00Z", Some("2026-02-10T21:10:00Z"));
        check("2026-02-10 21:10:00Z", None);
        check(" ", None);
    }

    #[test]
    fn times_are_written_with_the_digits_asked_for() {
        let moment = Timestamp::from_millis(1_770_757_800_000);
        assert_eq!(write(moment), "2026-02-10T21:10:00Z");
        assert_eq!(write_millis(moment), "2026-02-10T21:10:00.000Z");
        assert_eq!(write_micros(1_770_757_800_000_001), "2026-02-10T21:10:00.000001Z");
        assert_eq!(write_micros(-1), "1969-12-31T23:59:59.999999Z");
        assert_eq!(write(Timestamp::from_millis(i64::MAX)), "9999-12-31T23:59:59.999Z");
        assert_eq!(write_micros(i64::MIN), "0000-01-01T00:00:00.000000Z");
    }

    #[test]
    fn protobuf_times_are_checked() {
        let check = |seconds: i64, nanos: i32, expected: Option<i64>| {
            assert_eq!(from_parts(seconds, nanos).map(Timestamp::millis), expected, "{seconds} {nanos}");
        };
        check(0, 0, Some(0));
        check(1, 1_999_999, Some(1_001));
        check(-1, 999_000_000, Some(-1));
        check(0, -1, None);
        check(0, 1_000_000_000, None);
        check(i64::MAX, 0, None);
        check(i64::MIN, 0, None);
        check(253_402_300_800, 0, None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(millis in MILLIS_MIN..=MILLIS_MAX) {
            let moment = Timestamp::from_millis(millis);
            prop_assert_eq!(parse(&write(moment)), Some(moment));
            prop_assert_eq!(parse(&write_millis(moment)), Some(moment));
        }

        #[test]
        fn no_text_panics(text in "\\PC*", near in "[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9:.]{0,20}[Zz+ -]?[0-9:]{0,6}") {
            let _ = (parse(&text), parse_in_query(&text), parse(&near), parse_in_query(&near));
        }
    }
}
