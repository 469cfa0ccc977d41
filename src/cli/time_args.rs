//! Times in arguments and output: `15m`, `2026-02-10`, RFC 3339.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use crate::domain::Timestamp;
use crate::transport::{proto, rfc3339 as times};

/// Most digits of a number in a duration.
const NUMBER_DIGITS_MAX: usize = 10;

/// Now, by this machine's clock.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Parses a duration: numbers with units, such as `500ms`, `90s`, `15m`, `24h`, `7d`, `2w` or
/// `1h30m`, or any other form that the crate `humantime` reads. `0` needs no unit.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = |why: &str| format!("'{text}' is not a duration such as 90s, 15m, 24h, 7d or 1h30m: {why}");
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    if numbers.any(|number| number.len() > NUMBER_DIGITS_MAX) {
        return Err(wrong(&format!("numbers have at most {NUMBER_DIGITS_MAX} digits")));
    }
    humantime::parse_duration(text).map_err(|error| wrong(&error.to_string()))
}

/// A duration for a person to read, such as `1s 500ms` or `2m 3s`: to a tenth of
/// a second, and from a minute on to the second.
pub fn readable_duration(duration: Duration) -> humantime::FormattedDuration {
    let tenths = duration.subsec_millis() / 100;
    let tenths = if duration.as_secs() < 60 { tenths } else { 0 };
    humantime::format_duration(Duration::new(duration.as_secs(), tenths * 100_000_000))
}

/// Parses a time: RFC 3339, or a date, which means midnight in UTC.
pub fn parse_time(text: &str) -> Result<Timestamp, String> {
    let moment = times::parse(text).or_else(|| times::parse_date(text));
    moment.ok_or_else(|| format!("'{text}' is neither a time such as 2026-02-10T21:00:00Z nor a date"))
}

/// A time in the protocol's form.
pub fn to_proto(moment: Timestamp) -> prost_types::Timestamp {
    let millis = moment.millis();
    // A remainder of 1,000 fits in any integer.
    let nanos = i32::try_from(millis.rem_euclid(1_000)).unwrap_or_default() * 1_000_000;
    prost_types::Timestamp { seconds: millis.div_euclid(1_000), nanos }
}

/// A time of the protocol, truncated to milliseconds.
pub fn from_proto(moment: &prost_types::Timestamp) -> Timestamp {
    Timestamp::from_millis(moment.seconds.saturating_mul(1_000).saturating_add(i64::from(moment.nanos) / 1_000_000))
}

/// A time as RFC 3339 with the fewest digits.
pub fn rfc3339(moment: &prost_types::Timestamp) -> String {
    let nanos = i128::from(moment.seconds) * 1_000_000_000 + i128::from(moment.nanos);
    let text = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok().and_then(|time| time.format(&Rfc3339).ok());
    // Only a year beyond 9999 cannot be written so.
    text.unwrap_or_else(|| format!("{}.{:09}", moment.seconds, moment.nanos))
}

/// A readable time in UTC with this precision.
pub fn readable(moment: Timestamp, precision: Precision) -> String {
    let Ok(time) = OffsetDateTime::from_unix_timestamp_nanos(i128::from(moment.millis()) * 1_000_000) else {
        return moment.millis().to_string();
    };
    let text = match precision {
        Precision::Day => time.format(format_description!("[year]-[month]-[day]")),
        Precision::Minute => time.format(format_description!("[year]-[month]-[day] [hour]:[minute]")),
        Precision::Milli => {
            time.format(format_description!("[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:3]"))
        }
        Precision::ClockMilli => time.format(format_description!("[hour]:[minute]:[second].[subsecond digits:3]")),
    };
    text.unwrap_or_default()
}

/// The precision of a readable time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// `2026-02-10`
    Day,
    /// `2026-02-10 21:07`
    Minute,
    /// `2026-02-10 21:07:33.120`
    Milli,
    /// `21:07:33.120`
    ClockMilli,
}

/// The window of a query: a duration up to now, or from one time to another.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct WindowArgs {
    /// The length of a window that ends now, such as 15m, 24h or 7d.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, conflicts_with_all = ["from", "to"])]
    pub last: Option<Duration>,
    /// The start of the window: a time such as 2026-02-10T21:00:00Z, or a date (midnight in UTC).
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub from: Option<Timestamp>,
    /// The end of the window (exclusive). Default: now.
    #[arg(long, value_name = "TIME", value_parser = parse_time, requires = "from")]
    pub to: Option<Timestamp>,
}

impl WindowArgs {
    /// The requested window, if any.
    pub fn window(&self, now: Timestamp) -> anyhow::Result<Option<proto::Window>> {
        // The end is not included: one more millisecond takes in what happens
        // at this very one.
        let end = now.plus_millis(1);
        let (from, to) = match (self.last, self.from) {
            (Some(last), _) => {
                let millis = i64::try_from(last.as_millis()).context("--last is too long")?;
                (now.plus_millis(-millis), end)
            }
            (None, Some(from)) => (from, self.to.unwrap_or(end)),
            (None, None) => return Ok(None),
        };
        anyhow::ensure!(from < to, "the window is empty: it must start before it ends");
        Ok(Some(proto::Window { from: Some(to_proto(from)), to: Some(to_proto(to)) }))
    }

    /// The requested window, or the last `default`.
    pub fn window_or_last(&self, default: Duration, now: Timestamp) -> anyhow::Result<proto::Window> {
        let args = if self.last.is_none() && self.from.is_none() {
            &Self { last: Some(default), ..Self::default() }
        } else {
            self
        };
        args.window(now)?.context("a window is required")
    }
}

/// A readable window.
pub fn readable_window(window: Option<&proto::Window>) -> String {
    let end = |moment: Option<&prost_types::Timestamp>| {
        moment.map(|moment| readable(from_proto(moment), Precision::Minute)).unwrap_or_default()
    };
    window.map(|window| format!("{} to {} UTC", end(window.from.as_ref()), end(window.to.as_ref()))).unwrap_or_default()
}

/// A window and the freshness of an answer, as JSON.
pub fn window_json(window: Option<&proto::Window>, freshness: Option<&proto::Freshness>) -> serde_json::Value {
    serde_json::json!({
        "from": window.and_then(|window| window.from.as_ref()).map(rfc3339),
        "to": window.and_then(|window| window.to.as_ref()).map(rfc3339),
        "watermark": freshness.and_then(|freshness| freshness.watermark.as_ref()).map(rfc3339),
        "cached": freshness.is_some_and(|freshness| freshness.cached),
    })
}

/// The readable freshness of an answer.
pub fn readable_freshness(freshness: Option<&proto::Freshness>, now: Timestamp) -> String {
    let Some(freshness) = freshness else { return "freshness unknown".to_owned() };
    let origin = if freshness.cached { "from the cache" } else { "computed now" };
    let Some(watermark) = freshness.watermark.as_ref().map(from_proto) else { return origin.to_owned() };
    let age_ms = now.millis().saturating_sub(watermark.millis());
    let age = readable_duration(Duration::from_millis(u64::try_from(age_ms).unwrap_or(0)));
    format!("counts everything acknowledged up to {} UTC ({age} ago), {origin}", readable(watermark, Precision::Milli))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_numbers_with_units() {
        let check = |text: &str, millis: Option<u64>| {
            assert_eq!(parse_duration(text).ok(), millis.map(Duration::from_millis), "{text}");
        };
        check("0", Some(0));
        check("500ms", Some(500));
        check("90s", Some(90_000));
        check("15m", Some(900_000));
        check("24h", Some(86_400_000));
        check("7d", Some(604_800_000));
        check("2w", Some(1_209_600_000));
        check("1h30m", Some(5_400_000));
        check("1h 30min", Some(5_400_000));
        check("1.5h", Some(5_400_000));
        for wrong in ["", " ", "5", "m", "-5m", "5x", "99999999999d", "5m3", "\u{e9}"] {
            check(wrong, None);
        }
    }

    #[test]
    fn durations_are_shown_as_finely_as_they_matter() {
        let check = |millis: u64, expected: &str| {
            assert_eq!(readable_duration(Duration::from_millis(millis)).to_string(), expected);
        };
        check(0, "0s");
        check(99, "0s");
        check(1_599, "1s 500ms");
        check(59_999, "59s 900ms");
        check(60_900, "1m");
        check(3_723_000, "1h 2m 3s");
    }

    #[test]
    fn moments_are_times_or_dates() {
        let check = |text: &str, millis: Option<i64>| {
            assert_eq!(parse_time(text).ok(), millis.map(Timestamp::from_millis), "{text}");
        };
        check("1970-01-01", Some(0));
        check("1970-01-01T00:00:00.0019Z", Some(1));
        check("1970-01-01T01:00:00+01:00", Some(0));
        check("1969-12-31T23:59:59.9999Z", Some(-1));
        for wrong in ["", "now", "2026-02-30", "2026-02-10T21:00:00"] {
            check(wrong, None);
        }
    }

    #[test]
    fn moments_are_written_as_they_are_read() {
        for millis in [0, 1, -1, 1_770_757_653_120] {
            let moment = to_proto(Timestamp::from_millis(millis));
            assert_eq!(from_proto(&moment).millis(), millis);
            assert_eq!(parse_time(&rfc3339(&moment)), Ok(Timestamp::from_millis(millis)));
        }
        assert_eq!(readable(Timestamp::from_millis(1_770_757_653_120), Precision::Milli), "2026-02-10 21:07:33.120");
    }

    #[test]
    fn a_window_ends_now_unless_told_otherwise() {
        let now = Timestamp::from_millis(1_000_000);
        let check = |args: WindowArgs, expected: Option<(i64, i64)>| {
            let window = args.window(now).ok().flatten();
            let ends = window.and_then(|w| Some((from_proto(&w.from?).millis(), from_proto(&w.to?).millis())));
            assert_eq!(ends, expected, "{args:?}");
        };
        let at = |millis| Some(Timestamp::from_millis(millis));
        check(WindowArgs::default(), None);
        check(WindowArgs { last: Some(Duration::from_secs(1)), ..WindowArgs::default() }, Some((999_000, 1_000_001)));
        check(WindowArgs { from: at(5), ..WindowArgs::default() }, Some((5, 1_000_001)));
        check(WindowArgs { from: at(5), to: at(6), ..WindowArgs::default() }, Some((5, 6)));
        check(WindowArgs { from: at(6), to: at(6), ..WindowArgs::default() }, None);
    }
}
