//! Daily metrics: counted from events, or stored by the organization.

use super::{Error, FieldError, MILLIS_PER_DAY, Timestamp, Window};

/// Most days of one answer.
const DAYS_MAX: i64 = 3_660;
/// Most bytes of a metric's name.
const NAME_BYTES_MAX: usize = 64;
/// The prefix of the metrics that count one type of events.
const EVENTS_OF: &str = "events:";
/// The first day of a stored value. Days are from 1970-01-01 to before 2106-01-01.
const DAY_MIN: Timestamp = Timestamp::from_millis(0);
const DAY_END: Timestamp = Timestamp::from_millis(49_673 * MILLIS_PER_DAY);
/// Largest value. The sum of any range of days is then a finite number, too.
const VALUE_MAX: f64 = 1e300;

/// A daily metric, counted or stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Events of every type.
    Events,
    /// Distinct users with at least one event.
    ActiveUsers,
    /// Events of type `impression`.
    Impressions,
    /// Events of type `click`.
    Clicks,
    /// Clicks per impression; 0 when there are no impressions.
    Ctr,
    /// Events of this type.
    EventsOf(String),
    /// Values that the organization stores under this name.
    Custom(String),
}

impl Metric {
    /// Most metrics of one query.
    pub const COUNT_MAX: usize = 20;
    /// The metrics of a query that names none.
    pub const DEFAULT: [Self; 5] = [Self::Events, Self::ActiveUsers, Self::Impressions, Self::Clicks, Self::Ctr];
    /// The types that `impressions` and `clicks` count.
    pub const IMPRESSION: &'static str = "impression";
    /// See [`Self::IMPRESSION`].
    pub const CLICK: &'static str = "click";

    /// Parses a name; none if it is invalid.
    pub fn parse(name: &str) -> Option<Self> {
        let built_in = Self::DEFAULT.into_iter().find(|metric| metric.name() == name);
        let metric = built_in.or_else(|| match name.strip_prefix(EVENTS_OF) {
            Some(event_type) => is_token(event_type, ":").then(|| Self::EventsOf(event_type.to_owned())),
            None => is_token(name, "").then(|| Self::Custom(name.to_owned())),
        })?;
        Some(metric)
    }

    /// Its name.
    pub fn name(&self) -> String {
        match self {
            Self::Events => "events".to_owned(),
            Self::ActiveUsers => "active_users".to_owned(),
            Self::Impressions => "impressions".to_owned(),
            Self::Clicks => "clicks".to_owned(),
            Self::Ctr => "ctr".to_owned(),
            Self::EventsOf(event_type) => format!("{EVENTS_OF}{event_type}"),
            Self::Custom(name) => name.clone(),
        }
    }
}

fn is_token(text: &str, more: &str) -> bool {
    let is_good = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c) || more.contains(c);
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.chars().all(is_good)
}

/// A query for metrics of every day of a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SummaryQuery {
    /// Whole days in UTC, at most 3,660.
    pub window: Window,
    /// Each once, in the order of the query.
    pub metrics: Vec<Metric>,
}

impl SummaryQuery {
    /// Validates the query and extends the window to whole days. Without names, the metrics are
    /// [`Metric::DEFAULT`].
    ///
    /// # Errors
    /// Name `metrics`, or `window_field` for too many days.
    pub fn new(window_field: &str, window: Window, names: &[String]) -> Result<Self, Error> {
        let mut errors = Vec::new();
        errors.extend(check_days(window_field, window).err());
        let mut metrics: Vec<Metric> = Vec::new();
        for name in names {
            match Metric::parse(name) {
                Some(metric) if metrics.contains(&metric) => {}
                Some(metric) if metrics.len() < Metric::COUNT_MAX => metrics.push(metric),
                Some(_) => {
                    errors.push(FieldError::new("metrics", format!("may name at most {}", Metric::COUNT_MAX)));
                    break;
                }
                None => {
                    errors.push(unknown_metric(name));
                    break;
                }
            }
        }
        if !errors.is_empty() {
            return Err(Error::invalid(errors));
        }
        if metrics.is_empty() {
            metrics = Metric::DEFAULT.to_vec();
        }
        Ok(Self { window: window.outwards_to(MILLIS_PER_DAY), metrics })
    }
}

/// Refuses a window of too many days.
pub fn check_days(field: &str, window: Window) -> Result<(), FieldError> {
    let days = window.buckets(MILLIS_PER_DAY);
    if days <= DAYS_MAX {
        return Ok(());
    }
    Err(FieldError::new(field, format!("gives {days} days; at most {DAYS_MAX} are allowed")))
}

/// The error for an unknown metric.
pub fn unknown_metric(name: &str) -> FieldError {
    let shown: String = name.chars().take(NAME_BYTES_MAX).collect();
    let message = format!(
        "has no metric {shown:?}: there are 'events', 'active_users', 'impressions', 'clicks', 'ctr', 'events:TYPE', \
         and those that values were sent for"
    );
    FieldError::new("metrics", message)
}

/// A value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Measurement {
    /// A count.
    Count(u64),
    /// A number; always finite.
    Number(f64),
}

/// One metric of every day of a window.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricSeries {
    /// The metric's name.
    pub name: String,
    /// The total of the window: for users, distinct users over the whole window; for a ratio, the
    /// ratio of the totals; for stored metrics, the sum.
    pub total: Measurement,
    /// The value of each day of the window, in order.
    pub daily: Vec<(Timestamp, Measurement)>,
}

/// A value that an organization stores.
#[derive(Clone, Debug, PartialEq)]
pub struct CustomValue {
    /// The day's first moment.
    pub day: Timestamp,
    /// The metric's name.
    pub name: String,
    /// The value, a finite number.
    pub value: f64,
}

impl CustomValue {
    /// Most values of one call.
    pub const COUNT_MAX: usize = 1_000;

    /// Validates a value. A field that is none could not be parsed and has been reported. Every
    /// invalid field is added to `errors`, under the name that `field` makes of it.
    pub fn check(
        day: Option<Timestamp>,
        name: &str,
        value: Option<f64>,
        field: impl Fn(&str) -> String,
        errors: &mut Vec<FieldError>,
    ) -> Option<Self> {
        let before = errors.len();
        if day.is_some_and(|day| !(DAY_MIN..DAY_END).contains(&day)) {
            errors.push(FieldError::new(field("date"), "must be from 1970-01-01 to 2105-12-31"));
        }
        match Metric::parse(name) {
            Some(Metric::Custom(_)) => {}
            Some(_) => errors.push(FieldError::new(field("name"), "must not be the name of a metric that is counted")),
            None => {
                let message = format!("must be 1 to {NAME_BYTES_MAX} letters, digits, '_', '-' or '.'");
                errors.push(FieldError::new(field("name"), message));
            }
        }
        // Neither is what is no number at all.
        if value.is_some_and(|value| !(-VALUE_MAX..=VALUE_MAX).contains(&value)) {
            errors.push(FieldError::new(field("value"), "must be a number from -1e300 to 1e300"));
        }
        let (day, value) = day.zip(value).filter(|_| errors.len() == before)?;
        Some(Self { day, name: name.to_owned(), value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_is_counted() {
        let check = |name: &str, expected: Option<Metric>| assert_eq!(Metric::parse(name), expected, "{name}");
        check("events", Some(Metric::Events));
        check("ctr", Some(Metric::Ctr));
        check("events:a:b", Some(Metric::EventsOf("a:b".to_owned())));
        check("revenue.eur", Some(Metric::Custom("revenue.eur".to_owned())));
        check("Events", Some(Metric::Custom("Events".to_owned())));
        for wrong in ["", "events:", "a:b", "a b", "é", "events:a b", &"x".repeat(65)] {
            check(wrong, None);
        }
        for metric in Metric::DEFAULT.into_iter().chain([Metric::EventsOf("a".to_owned())]) {
            assert_eq!(Metric::parse(&metric.name()), Some(metric));
        }
    }

    #[test]
    fn a_question_has_bounds() {
        let days = |n: i64| Window::new(DAY_MIN, DAY_MIN.plus_millis(n * MILLIS_PER_DAY)).expect("a window");
        let named = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let ask = |window: Window, names: &[&str]| SummaryQuery::new("end_date", window, &named(names));
        assert_eq!(ask(days(1), &[]).expect("a question").metrics, Metric::DEFAULT);
        assert_eq!(ask(days(DAYS_MAX), &["ctr", "a", "ctr"]).expect("a question").metrics.len(), 2);
        let fields = |asked: Result<SummaryQuery, Error>| asked.err().map(|error| error.fields[0].field.clone());
        assert_eq!(fields(ask(days(DAYS_MAX + 1), &[])).as_deref(), Some("end_date"));
        assert_eq!(fields(ask(days(1), &["a b"])).as_deref(), Some("metrics"));
        let many: Vec<String> = (0..21).map(|n| format!("m{n}")).collect();
        assert_eq!(fields(SummaryQuery::new("end_date", days(1), &many)).as_deref(), Some("metrics"));
        assert!(SummaryQuery::new("end_date", days(1), &many[1..]).is_ok());
    }

    #[test]
    fn a_value_is_finite_and_has_a_name_of_its_own() {
        let faults = |day: Timestamp, name: &str, value: f64| {
            let mut errors = Vec::new();
            let checked = CustomValue::check(Some(day), name, Some(value), str::to_owned, &mut errors);
            assert_eq!(checked.is_none(), !errors.is_empty());
            errors.into_iter().map(|error| error.field).collect::<Vec<_>>()
        };
        let none: [&str; 0] = [];
        assert_eq!(faults(DAY_MIN, "revenue", -1.5), none);
        assert_eq!(faults(DAY_END.plus_millis(-MILLIS_PER_DAY), "x", VALUE_MAX), none);
        assert_eq!(faults(DAY_END, "ctr", f64::NAN), ["date", "name", "value"]);
        assert_eq!(faults(DAY_MIN.plus_millis(-1), "events:x", f64::INFINITY), ["date", "name", "value"]);
        assert_eq!(faults(DAY_MIN, "two words", 1e301), ["name", "value"]);
    }
}
