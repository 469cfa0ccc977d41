//! Queries and their answers.

use super::{Error, FieldError, MILLIS_PER_DAY, MILLIS_PER_HOUR, MILLIS_PER_MINUTE, Timestamp};

/// A period of time: `from` is included, `to` is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    from: Timestamp,
    to: Timestamp,
}

impl Window {
    /// A window from `from` (included) to `to` (not included). If it would be empty, an error names
    /// the fields `from` and `to`.
    pub fn new(from: Timestamp, to: Timestamp) -> Result<Self, Error> {
        if from < to { Ok(Self { from, to }) } else { Err(Error::invalid_field("from", "must be before 'to'")) }
    }

    /// The 24 hours up to and including the minute of `now`.
    pub fn last_day(now: Timestamp) -> Self {
        let to = now.plus_millis(1).ceil_to(MILLIS_PER_MINUTE);
        Self { from: to.plus_millis(-MILLIS_PER_DAY), to }
    }

    /// Its first moment.
    pub const fn from(self) -> Timestamp {
        self.from
    }

    /// The moment after its last.
    pub const fn to(self) -> Timestamp {
        self.to
    }

    /// The smallest window of whole buckets of `length` milliseconds that contains this one.
    #[must_use]
    pub const fn outwards_to(self, length: i64) -> Self {
        Self { from: self.from.floor_to(length), to: self.to.ceil_to(length) }
    }

    /// The number of buckets of `length` milliseconds that it touches.
    pub const fn buckets(self, length: i64) -> i64 {
        let whole = self.outwards_to(length);
        whole.to.millis().saturating_sub(whole.from.millis()) / length
    }
}

/// The length of a bucket in a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Granularity {
    /// One minute.
    Minute,
    /// One hour in UTC.
    Hour,
    /// One day in UTC.
    Day,
}

impl Granularity {
    /// The length in milliseconds.
    pub const fn millis(self) -> i64 {
        match self {
            Self::Minute => MILLIS_PER_MINUTE,
            Self::Hour => MILLIS_PER_HOUR,
            Self::Day => MILLIS_PER_DAY,
        }
    }

    /// The name in JSON and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    /// Parses the name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Minute, Self::Hour, Self::Day].into_iter().find(|granularity| granularity.as_str() == text)
    }
}

/// A query for one campaign's counts over time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StatsQuery {
    /// The campaign.
    pub campaign_id: String,
    /// The window, in whole minutes.
    pub window: Window,
    /// The length of a bucket.
    pub granularity: Granularity,
}

impl StatsQuery {
    /// Validates the query and extends the window to whole minutes.
    pub fn new(campaign_id: String, window: Window, granularity: Granularity, buckets_max: u32) -> Result<Self, Error> {
        let mut errors = Vec::new();
        if campaign_id.is_empty() {
            errors.push(FieldError::new("campaign_id", "is required"));
        }
        let buckets = window.buckets(granularity.millis());
        if buckets > i64::from(buckets_max) {
            errors.push(FieldError::new(
                "granularity",
                format!("gives {buckets} buckets; at most {buckets_max} are allowed: shorten the window or use longer buckets"),
            ));
        }
        if !errors.is_empty() {
            return Err(Error::invalid(errors));
        }
        Ok(Self { campaign_id, window: window.outwards_to(MILLIS_PER_MINUTE), granularity })
    }
}

/// The largest number of items of a ranking or a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limit(u32);

impl Limit {
    /// The most items of a ranking.
    pub const RANKING_MAX: u32 = 1_000;
    /// The most events of a page.
    pub const PAGE_MAX: u32 = 500;
    /// The default for a ranking.
    pub const RANKING_DEFAULT: Self = Self(10);
    /// The default for a page of events.
    pub const PAGE_DEFAULT: Self = Self(50);

    /// The most days of a ranking of organizations.
    pub const DAYS_MAX: u32 = 3_660;
    /// The default number of days for a ranking of organizations.
    pub const DAYS_DEFAULT: Self = Self(30);
    /// The default for a ranking of organizations.
    pub const ORGANIZATIONS_DEFAULT: Self = Self(5);

    /// A limit of 1 to `max`; an error names `field`.
    pub fn new(field: &str, limit: u32, max: u32) -> Result<Self, Error> {
        if (1..=max).contains(&limit) {
            Ok(Self(limit))
        } else {
            Err(Error::invalid_field(field, format!("must be from 1 to {max}")))
        }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// A result with its freshness.
#[derive(Clone, Debug)]
pub struct Answer<T> {
    /// The result.
    pub value: T,
    /// Everything acknowledged at or before this time is counted.
    pub watermark: Timestamp,
    /// Whether it came from the cache.
    pub cached: bool,
}

/// One campaign's counts over time, in order of time; buckets without events
/// are left out.
pub type CampaignStats = Vec<CampaignBucket>;

/// One campaign's counts in one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CampaignBucket {
    /// The bucket's first moment.
    pub start: Timestamp,
    /// Events of type `impression`.
    pub impressions: u64,
    /// Events of type `click`.
    pub clicks: u64,
}

/// Most events first; equal counts by id.
pub type Ranking<T> = Vec<T>;

/// One user's count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserCount {
    /// The user.
    pub user_id: String,
    /// Events of every type.
    pub events: u64,
}

/// One campaign's count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CampaignCount {
    /// The campaign.
    pub campaign_id: String,
    /// Events of every type.
    pub events: u64,
    /// Events of type `impression`.
    pub impressions: u64,
    /// Events of type `click`.
    pub clicks: u64,
}

/// The distinct users of a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DayCount {
    /// The day's first moment.
    pub day: Timestamp,
    /// The number of distinct users with at least one event.
    pub users: u64,
}

/// A stored event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// See [`super::Event::event_id`].
    pub event_id: String,
    /// See [`super::Event::event_type`].
    pub event_type: String,
    /// See [`super::Event::campaign_id`].
    pub campaign_id: String,
    /// See [`super::Event::creative_id`].
    pub creative_id: String,
    /// See [`super::Event::source`].
    pub source: String,
    /// See [`super::Event::user_id`].
    pub user_id: String,
    /// See [`super::Event::occurred_at`].
    pub occurred_at: Timestamp,
    /// See [`super::Event::seq`].
    pub seq: u64,
    /// See [`super::Event::properties`].
    pub properties: String,
    /// See [`super::Event::schema_version`].
    pub schema_version: u32,
    /// When the service received it, in microseconds since 1970-01-01T00:00:00Z.
    pub received_at_micros: i64,
}

/// A filter of events. Empty fields match all events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct EventFilter {
    /// Only events of this window.
    pub window: Option<Window>,
    /// Only events of this campaign.
    pub campaign_id: String,
    /// Only events of this user.
    pub user_id: String,
    /// Only events of one of these types.
    pub types: Vec<String>,
}

impl EventFilter {
    /// The most types a filter may name.
    pub const TYPES_MAX: usize = 20;
}

/// The position after a page: the next page starts after this event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PageKey {
    /// The last event's time.
    pub occurred_at: Timestamp,
    /// The last event's id.
    pub event_id: String,
}

/// A page of events, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventPage {
    /// The events.
    pub events: Vec<StoredEvent>,
    /// The position of the next page; none if this is the last page.
    pub next: Option<PageKey>,
}
