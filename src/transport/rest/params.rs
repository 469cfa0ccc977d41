//! Parses parameters of a query string, and reports every invalid one.

use std::convert::Infallible;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;

use crate::domain::{
    Error, EventFilter, FieldError, Limit, MILLIS_PER_DAY, MILLIS_PER_HOUR, MILLIS_PER_MINUTE, Timestamp, Window,
};
use crate::transport::rfc3339;

/// Longest relative window, in milliseconds: ten years.
const LENGTH_MAX: i64 = 3_660 * MILLIS_PER_DAY;

/// The parameters that have not been taken yet, and the faults so far. Those
/// that nobody takes are ignored.
pub(super) struct Params {
    pairs: Vec<(String, String)>,
    errors: Vec<FieldError>,
}

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::read(&parts.uri))
    }
}

impl Params {
    pub(super) fn read(uri: &axum::http::Uri) -> Self {
        match Query::try_from_uri(uri) {
            Ok(Query(pairs)) => Self { pairs, errors: Vec::new() },
            Err(_) => Self { pairs: Vec::new(), errors: vec![FieldError::new("query", "cannot be read")] },
        }
    }

    /// A parameter's values, in order.
    pub(super) fn all(&mut self, name: &str) -> Vec<String> {
        self.pairs.extract_if(.., |(key, _)| key == name).map(|(_, value)| value).collect()
    }

    /// A parameter that may be given once.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        let mut values = self.all(name);
        if values.len() > 1 {
            self.fault(name, "must be given only once");
        }
        values.pop()
    }

    /// A parameter that lets everything through when it is empty or left out.
    pub(super) fn filter(&mut self, name: &str) -> String {
        self.text(name).unwrap_or_default()
    }

    /// One end of a window.
    fn end(&mut self, ends: &Ends, which: usize) -> Option<Timestamp> {
        let name = ends.names[which];
        let text = self.text(name)?;
        let day = if ends.may_be_days { rfc3339::parse_date(&text) } else { None };
        let is_last = which == 1;
        // A day is included, whichever end it is.
        let day = day.map(|day| if is_last { day.plus_millis(MILLIS_PER_DAY) } else { day });
        let end = day.or_else(|| rfc3339::parse_in_query(&text));
        if end.is_none() {
            self.fault(name, if ends.may_be_days { DATE_EXPECTED } else { rfc3339::EXPECTED });
        }
        end
    }

    /// Both ends of a window; what is missing is a fault when both are
    /// required, and else as far away as the database reaches. None without
    /// both.
    fn window_of(&mut self, ends: &Ends, are_required: bool) -> Option<Window> {
        let missing = ends.names.map(|name| !self.has(name));
        let (from, to) = (self.end(ends, 0), self.end(ends, 1));
        if are_required {
            for (name, _) in ends.names.into_iter().zip(missing).filter(|(_, is_missing)| *is_missing) {
                self.fault(name, "is required");
            }
        } else if missing == [true, true] {
            return None;
        }
        let or = |end: Option<Timestamp>, is_missing: bool, far: Timestamp| {
            if is_missing && !are_required { Some(far) } else { end }
        };
        match Window::new(or(from, missing[0], FIRST)?, or(to, missing[1], LAST)?) {
            Ok(window) => Some(window),
            Err(_) => {
                self.fault(ends.names[0], format!("must be before '{}'", ends.names[1]));
                None
            }
        }
    }

    /// `from` and `to`, both required.
    pub(super) fn window(&mut self) -> Option<Window> {
        self.window_of(&MOMENTS, true)
    }

    /// `from` and `to`, of which either may be left out; none without both.
    pub(super) fn open_window(&mut self) -> Option<Window> {
        self.window_of(&MOMENTS, false)
    }

    /// `start_date` and `end_date`, both required: times, of which the second
    /// is not included, or days, which both are.
    pub(super) fn dates(&mut self) -> Option<Window> {
        self.window_of(&DATES, true)
    }

    /// The same, of which either may be left out; none without both.
    pub(super) fn open_dates(&mut self) -> Option<Window> {
        self.window_of(&DATES, false)
    }

    /// `from` and `to`, or `window` as a length up to now; without any, the
    /// last 24 hours.
    pub(super) fn recent_window(&mut self, now: Timestamp) -> Option<Window> {
        let Some(length) = self.text("window") else {
            return if self.has("from") || self.has("to") { self.window() } else { Some(Window::last_day(now)) };
        };
        if self.has("from") || self.has("to") {
            self.fault("window", "must not be given together with 'from' or 'to'");
            return None;
        }
        let Some(length) = parse_length(&length) else {
            self.fault("window", "must be a number of minutes, hours or days up to 3660d, as in '90m', '24h' or '7d'");
            return None;
        };
        let to = Window::last_day(now).to();
        self.keep(Window::new(to.plus_millis(-length), to))
    }

    /// `limit`.
    pub(super) fn limit(&mut self, max: u32, default: Limit) -> Option<Limit> {
        self.count("limit", max).unwrap_or(Some(default))
    }

    /// A number from 1 to `max`; the outer none when it is left out.
    pub(super) fn count(&mut self, name: &str, max: u32) -> Option<Option<Limit>> {
        let text = self.text(name)?;
        // What is no number is out of bounds as well.
        Some(self.keep(Limit::new(name, text.parse().unwrap_or(0), max)))
    }

    /// What is listed in a parameter that may be repeated, written with
    /// brackets, and hold several values with commas between them.
    pub(super) fn list(&mut self, name: &str) -> Vec<String> {
        let values = [self.all(name), self.all(&format!("{name}[]"))].concat();
        let values = values.iter().flat_map(|value| value.split(','));
        values.filter(|value| !value.is_empty()).map(str::to_owned).collect()
    }

    /// A filter by types of events, which may be repeated.
    pub(super) fn types(&mut self, name: &str) -> Vec<String> {
        let types: Vec<String> = self.all(name).into_iter().filter(|text| !text.is_empty()).collect();
        if types.len() > EventFilter::TYPES_MAX {
            self.fault(name, format!("may be given at most {} times", EventFilter::TYPES_MAX));
        }
        types
    }

    fn has(&self, name: &str) -> bool {
        self.pairs.iter().any(|(key, _)| key == name)
    }

    /// Notes what is wrong with a parameter.
    pub(super) fn fault(&mut self, name: &str, message: impl Into<String>) {
        self.errors.push(FieldError::new(name, message));
    }

    /// Notes what is wrong, if something is.
    pub(super) fn keep<T>(&mut self, result: Result<T, Error>) -> Option<T> {
        result.map_err(|error| self.errors.extend(error.fields)).ok()
    }

    /// The window and the limit of a ranking; the window in whole minutes.
    pub(super) fn ranking(mut self, now: Timestamp) -> Result<(Window, Limit), Error> {
        let window = self.recent_window(now);
        let limit = self.limit(Limit::RANKING_MAX, Limit::RANKING_DEFAULT);
        let (window, limit) = self.done(window.zip(limit))?;
        Ok((window.outwards_to(MILLIS_PER_MINUTE), limit))
    }

    /// What was read, if nothing is wrong.
    pub(super) fn done<T>(self, read: Option<T>) -> Result<T, Error> {
        match read {
            Some(read) if self.errors.is_empty() => Ok(read),
            _ => Err(Error::invalid(self.errors)),
        }
    }
}

/// The names of a window's ends.
struct Ends {
    names: [&'static str; 2],
    may_be_days: bool,
}

const MOMENTS: Ends = Ends { names: ["from", "to"], may_be_days: false };
const DATES: Ends = Ends { names: ["start_date", "end_date"], may_be_days: true };
/// What is said of a text that is neither a time nor a day.
const DATE_EXPECTED: &str = "must be a date, as in 2026-02-10, or an RFC 3339 time";

/// The ends of a window that is open on one side: what ClickHouse's DateTime64
/// can hold, the years 1900 to 2299.
const FIRST: Timestamp = Timestamp::from_millis(-2_208_988_800_000);
const LAST: Timestamp = Timestamp::from_millis(10_413_791_999_999);

/// Reads a length such as `90m`, `24h` or `7d`, in milliseconds.
fn parse_length(text: &str) -> Option<i64> {
    let unit = match text.as_bytes().last()? {
        b'm' => MILLIS_PER_MINUTE,
        b'h' => MILLIS_PER_HOUR,
        b'd' => MILLIS_PER_DAY,
        _ => return None,
    };
    let number = &text[..text.len() - 1];
    // `parse` takes a sign.
    let number: i64 = number.bytes().all(|b| b.is_ascii_digit()).then(|| number.parse().ok())??;
    number.checked_mul(unit).filter(|length| (1..=LENGTH_MAX).contains(length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_770_757_800_001);

    fn params(query: &str) -> Params {
        Params::read(&format!("/?{query}").parse().expect("a URI"))
    }

    fn written(window: Option<Window>) -> Option<(String, String)> {
        window.map(|window| (rfc3339::write(window.from()), rfc3339::write(window.to())))
    }

    /// The window, or the fields at fault.
    fn check(
        query: &str,
        read: impl Fn(&mut Params) -> Option<Window>,
        expected: Result<Option<(&str, &str)>, &[&str]>,
    ) {
        let mut params = params(query);
        let window = written(read(&mut params));
        let faults: Vec<&str> = params.errors.iter().map(|error| &*error.field).collect();
        match expected {
            Ok(ends) => {
                assert_eq!(faults, Vec::<&str>::new(), "{query}");
                assert_eq!(window, ends.map(|(from, to)| (from.to_owned(), to.to_owned())), "{query}");
            }
            Err(fields) => assert_eq!(faults, fields, "{query}"),
        }
    }

    #[test]
    fn a_window_needs_both_ends() {
        let both = Ok(Some(("2026-02-10T21:10:00Z", "2026-02-10T21:20:00Z")));
        check("from=2026-02-10T21:10:00Z&to=2026-02-10T21:20:00Z", Params::window, both);
        check("to=2026-02-10T23:20:00%2B02:00&from=2026-02-10T23:10:00+02:00&x=1", Params::window, both);
        check("from=2026-02-10t21%3A10%3A00z&to=2026-02-10T21:20:00Z", Params::window, both);
        check("", Params::window, Err(&["from", "to"]));
        check("from=&to=2026-02-10T21:20:00Z", Params::window, Err(&["from"]));
        check("from=now&to=later", Params::window, Err(&["from", "to"]));
        check("from=2026-02-10T21:20:00Z&to=2026-02-10T21:20:00Z", Params::window, Err(&["from"]));
        let twice = "from=2026-02-10T21:10:00Z&from=2026-02-10T21:10:00Z&to=2026-02-10T21:20:00Z";
        check(twice, Params::window, Err(&["from"]));
        check("from=%ff&to=2026-02-10T21:20:00Z", Params::window, Err(&["from"]));
    }

    #[test]
    fn an_open_window_ends_where_the_database_does() {
        check("", Params::open_window, Ok(None));
        check(
            "from=2026-02-10T21:10:00Z",
            Params::open_window,
            Ok(Some(("2026-02-10T21:10:00Z", "2299-12-31T23:59:59.999Z"))),
        );
        check(
            "to=2026-02-10T21:10:00Z",
            Params::open_window,
            Ok(Some(("1900-01-01T00:00:00Z", "2026-02-10T21:10:00Z"))),
        );
        check("from=x", Params::open_window, Err(&["from"]));
    }

    #[test]
    fn a_day_is_included_and_the_moment_of_an_end_is_not() {
        let whole = Ok(Some(("2026-02-10T00:00:00Z", "2026-02-12T00:00:00Z")));
        check("start_date=2026-02-10&end_date=2026-02-11", Params::dates, whole);
        check("start_date=2026-02-10&end_date=2026-02-12T00:00:00Z", Params::dates, whole);
        check("start_date=2026-02-10T02:00:00%2B02:00&end_date=2026-02-11", Params::open_dates, whole);
        check("end_date=2026-02-11", Params::dates, Err(&["start_date"]));
        check("end_date=1900-01-01", Params::open_dates, Ok(Some(("1900-01-01T00:00:00Z", "1900-01-02T00:00:00Z"))));
        check(
            "start_date=2026-02-10&end_date=2026-02-10",
            Params::dates,
            Ok(Some(("2026-02-10T00:00:00Z", "2026-02-11T00:00:00Z"))),
        );
        check("start_date=2026-02-11&end_date=2026-02-10", Params::dates, Err(&["start_date"]));
        for date in ["2026-02-30", "2026-2-1", "26-02-01", "2026-02-10T", "20260210", "2026-02-10%20"] {
            check(&format!("start_date={date}&end_date=2026-03-01"), Params::dates, Err(&["start_date"]));
        }
        check("from=2026-02-10&to=2026-02-11", Params::window, Err(&["from", "to"]));
    }

    #[test]
    fn a_list_is_repeated_or_has_commas() {
        let check = |query: &str, expected: &[&str]| assert_eq!(params(query).list("metrics"), expected, "{query}");
        check("metrics=a,b&metrics=c", &["a", "b", "c"]);
        check("metrics[]=a&metrics%5B%5D=b,,", &["a", "b"]);
        check("metrics=", &[]);
        check("", &[]);
    }

    #[test]
    fn a_recent_window_ends_with_the_minute_of_now() {
        let recent = |params: &mut Params| params.recent_window(NOW);
        let day = Ok(Some(("2026-02-09T21:11:00Z", "2026-02-10T21:11:00Z")));
        check("", recent, day);
        check("window=24h", recent, day);
        check("window=1440m", recent, day);
        check("window=1d", recent, day);
        check("window=5m", recent, Ok(Some(("2026-02-10T21:06:00Z", "2026-02-10T21:11:00Z"))));
        check("from=2026-02-10T21:10:00Z", recent, Err(&["to"]));
        check("window=24h&from=2026-02-10T21:10:00Z", recent, Err(&["window"]));
        for length in ["", "h", "0h", "-1h", "%2B1h", "1", "1s", "1.5h", "3661d", "99999999999999999999h", "%C3%A9"] {
            check(&format!("window={length}"), recent, Err(&["window"]));
        }
    }

    #[test]
    fn a_limit_is_a_number_within_its_bounds() {
        let check = |query: &str, expected: Option<u32>| {
            let mut params = params(query);
            let limit = params.limit(500, Limit::PAGE_DEFAULT);
            assert_eq!(params.done(limit).ok().map(Limit::get), expected, "{query}");
        };
        check("", Some(50));
        check("limit=1", Some(1));
        check("limit=500", Some(500));
        for query in [
            "limit=",
            "limit=0",
            "limit=501",
            "limit=-1",
            "limit=x",
            "limit=1e2",
            "limit=99999999999",
            "limit=1&limit=2",
        ] {
            check(query, None);
        }
    }

    proptest! {
        #[test]
        fn no_query_panics(query in "[a-zA-Z0-9=&%+._~:/?!$()*,;-]{0,80}") {
            let mut params = params(&query);
            let _ = (params.recent_window(NOW), params.limit(10, Limit::PAGE_DEFAULT), params.all("a"));
            let _ = parse_length(&query);
        }
    }
}
