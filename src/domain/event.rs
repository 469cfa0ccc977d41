//! Events. A constructed event is always valid.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::{FieldError, MILLIS_PER_MINUTE, Rejection, RejectionCode, Timestamp};

/// The tenant an event belongs to: an organization.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrgId(Arc<str>);

impl OrgId {
    /// Most bytes of an id.
    pub const BYTES_MAX: usize = 64;
    /// A description of valid ids.
    pub const EXPECTED: &'static str = "must be 1 to 64 letters, digits, '_', '-' or '.'";

    /// Parses an id; none if it is invalid. Ids are compared byte by byte.
    pub fn parse(text: &str) -> Option<Self> {
        let is_token = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
        (is_token && (1..=Self::BYTES_MAX).contains(&text.len())).then(|| Self(text.into()))
    }

    /// The organization of a service that runs without authentication.
    pub fn default_org() -> Self {
        Self("default".into())
    }

    /// The organization's id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for OrgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OrgId({})", self.0)
    }
}

/// The limits for events. All are configurable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventLimits {
    /// Longest event id, in bytes.
    pub event_id_bytes_max: usize,
    /// Longest event type, in bytes.
    pub type_bytes_max: usize,
    /// Longest campaign, creative, source and user, in bytes.
    pub text_bytes_max: usize,
    /// Longest JSON text of the properties, in bytes, without insignificant
    /// white space.
    pub properties_bytes_max: usize,
    /// How far `occurred_at` may be in the past, in milliseconds; never before 1970. It equals the
    /// retention period, so a deleted id cannot be accepted again.
    pub retention_millis: i64,
    /// How far `occurred_at` may be ahead of the service's clock, in milliseconds.
    pub future_millis_max: i64,
}

/// An unvalidated event.
#[derive(Clone, Debug, Default)]
pub struct EventDraft<'a> {
    /// See [`Event::event_id`].
    pub event_id: &'a str,
    /// See [`Event::event_type`].
    pub event_type: &'a str,
    /// See [`Event::campaign_id`].
    pub campaign_id: &'a str,
    /// See [`Event::creative_id`].
    pub creative_id: &'a str,
    /// See [`Event::source`].
    pub source: &'a str,
    /// See [`Event::user_id`].
    pub user_id: &'a str,
    /// See [`Event::occurred_at`]; none if missing.
    pub occurred_at: Option<Timestamp>,
    /// See [`Event::seq`].
    pub seq: u64,
    /// See [`Event::properties`].
    pub properties: PropertiesDraft<'a>,
    /// Fields that the transport could not parse.
    pub unreadable: Vec<FieldError>,
}

/// Properties as a transport parsed them. Transports parse JSON, since the domain has no wire
/// format.
#[derive(Clone, Debug, Default)]
pub enum PropertiesDraft<'a> {
    /// None were sent, or an empty object.
    #[default]
    None,
    /// One JSON object in canonical form: keys sorted, no insignificant white
    /// space.
    Canonical(Cow<'a, str>),
}

/// A valid event. Invalid events cannot be constructed.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    org_id: &'a OrgId,
    draft: EventDraft<'a>,
    occurred_at: Timestamp,
    schema_version: u32,
}

impl<'a> Event<'a> {
    /// Validates a draft against the limits and the time. Returns every invalid field.
    pub fn parse(
        org_id: &'a OrgId,
        draft: EventDraft<'a>,
        limits: &EventLimits,
        now: Timestamp,
    ) -> Result<Self, Rejection> {
        let mut faults = DraftErrors { errors: draft.unreadable.clone(), code: RejectionCode::Invalid };
        faults.check_id("event_id", draft.event_id, limits.event_id_bytes_max);
        faults.check_type(draft.event_type, limits.type_bytes_max);
        for (field, text) in [
            ("campaign_id", draft.campaign_id),
            ("creative_id", draft.creative_id),
            ("source", draft.source),
            ("user_id", draft.user_id),
        ] {
            faults.check_text(field, text, limits.text_bytes_max);
        }
        faults.check_properties(&draft.properties, limits.properties_bytes_max);
        let occurred_at = faults.check_time(draft.occurred_at, limits, now);
        match occurred_at {
            Some(occurred_at) if faults.errors.is_empty() => Ok(Self { org_id, draft, occurred_at, schema_version: 0 }),
            _ => Err(Rejection { code: faults.code, errors: faults.errors }),
        }
    }

    /// The organization it belongs to.
    pub const fn org_id(&self) -> &'a OrgId {
        self.org_id
    }

    /// Its identity within the organization; never empty.
    pub const fn event_id(&self) -> &'a str {
        self.draft.event_id
    }

    /// What happened: `click`, `impression`, or any other token.
    pub const fn event_type(&self) -> &'a str {
        self.draft.event_type
    }

    /// The campaign; empty if none.
    pub const fn campaign_id(&self) -> &'a str {
        self.draft.campaign_id
    }

    /// The creative; empty if none.
    pub const fn creative_id(&self) -> &'a str {
        self.draft.creative_id
    }

    /// The system that recorded it; empty if unknown.
    pub const fn source(&self) -> &'a str {
        self.draft.source
    }

    /// The user; empty if none.
    pub const fn user_id(&self) -> &'a str {
        self.draft.user_id
    }

    /// When it happened.
    pub const fn occurred_at(&self) -> Timestamp {
        self.occurred_at
    }

    /// A number by which the producer orders the events of a user; 0 if none.
    pub const fn seq(&self) -> u64 {
        self.draft.seq
    }

    /// The version of its type that its properties were checked against; 0 when its type is not
    /// registered. It is not part of the payload: an event that is repeated after a new version is
    /// still a duplicate.
    pub const fn schema_version(&self) -> u32 {
        self.schema_version
    }

    /// The same event, checked against this version of its type.
    pub const fn checked_against(mut self, schema_version: u32) -> Self {
        self.schema_version = schema_version;
        self
    }

    /// The canonical text of one JSON object; empty if there are none.
    pub fn properties(&self) -> &str {
        match &self.draft.properties {
            PropertiesDraft::None => "",
            PropertiesDraft::Canonical(text) => text,
        }
    }
}

/// The earliest accepted time, for any retention period: the rollups store buckets as ClickHouse's
/// `DateTime` and `Date`, which begin in 1970.
const FIRST: Timestamp = Timestamp::from_millis(0);

/// Collects the errors of a draft.
struct DraftErrors {
    errors: Vec<FieldError>,
    code: RejectionCode,
}

impl DraftErrors {
    fn add(&mut self, field: &str, message: impl Into<String>) {
        self.errors.push(FieldError::new(field, message));
    }

    /// Whether the transport has already reported the field.
    fn is_named(&self, field: &str) -> bool {
        self.errors.iter().any(|error| error.field == field)
    }

    fn check_id(&mut self, field: &str, text: &str, bytes_max: usize) {
        if text.is_empty() {
            if !self.is_named(field) {
                self.add(field, "is required");
            }
        } else {
            self.check_text(field, text, bytes_max);
        }
    }

    fn check_text(&mut self, field: &str, text: &str, bytes_max: usize) {
        if text.len() > bytes_max {
            self.add(field, format!("must be at most {bytes_max} bytes; it has {}", text.len()));
        } else if has_control(text) {
            self.add(field, "must not contain control characters");
        } else if is_blank(text) {
            self.add(field, BLANK);
        }
    }

    fn check_type(&mut self, text: &str, bytes_max: usize) {
        let is_token = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':'));
        if text.is_empty() {
            if !self.is_named("type") {
                self.add("type", "is required");
            }
        } else if text.len() > bytes_max || !is_token {
            self.add("type", format!("must be 1 to {bytes_max} letters, digits, '_', '-', '.' or ':'"));
        }
    }

    fn check_properties(&mut self, properties: &PropertiesDraft<'_>, bytes_max: usize) {
        if let PropertiesDraft::Canonical(text) = properties
            && text.len() > bytes_max
        {
            self.add("properties", format!("must be at most {bytes_max} bytes of JSON; they have {}", text.len()));
        }
    }

    fn check_time(
        &mut self,
        occurred_at: Option<Timestamp>,
        limits: &EventLimits,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let Some(occurred_at) = occurred_at else {
            if !self.is_named("occurred_at") {
                self.add("occurred_at", "is required");
            }
            return None;
        };
        let (code, message) = if occurred_at > now.plus_millis(limits.future_millis_max) {
            let ahead = limits.future_millis_max / MILLIS_PER_MINUTE;
            (RejectionCode::InFuture, format!("must not be more than {ahead} minutes ahead of now"))
        } else if occurred_at < now.plus_millis(-limits.retention_millis) {
            let days = limits.retention_millis / super::MILLIS_PER_DAY;
            (RejectionCode::TooOld, format!("must not be more than {days} days ago (the retention period)"))
        } else if occurred_at < FIRST {
            (RejectionCode::TooOld, "must not be before 1970-01-01T00:00:00Z".to_owned())
        } else {
            return Some(occurred_at);
        };
        // A malformed event stays malformed when its time comes: say so first.
        if self.errors.is_empty() {
            self.code = code;
        }
        self.add("occurred_at", message);
        None
    }
}

/// The message for blank texts.
pub(super) const BLANK: &str = "must not be blank";

/// Whether a text is only white space. Such values usually come from missing ones, and all such
/// events would be the same.
pub(super) fn is_blank(text: &str) -> bool {
    !text.is_empty() && text.chars().all(char::is_whitespace)
}

/// Control characters have no place in an identity or a name: they hide in
/// logs and reports. Covers C0, DEL and C1, as `char::is_control` does, at the
/// speed of bytes for the usual case of ASCII.
pub(super) fn has_control(text: &str) -> bool {
    if text.is_ascii() { text.bytes().any(|b| b < 0x20 || b == 0x7f) } else { text.chars().any(char::is_control) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
    const LIMITS: EventLimits = EventLimits {
        event_id_bytes_max: 128,
        type_bytes_max: 64,
        text_bytes_max: 256,
        properties_bytes_max: 64,
        retention_millis: 10 * super::super::MILLIS_PER_DAY,
        future_millis_max: 5 * MILLIS_PER_MINUTE,
    };

    fn valid() -> EventDraft<'static> {
        EventDraft { event_id: "e-1", event_type: "click", occurred_at: Some(NOW), ..EventDraft::default() }
    }

    /// The code and the fields at fault; nothing for a valid draft.
    fn check(draft: EventDraft<'_>, expected: Option<(RejectionCode, &[&str])>) {
        let org = OrgId::default_org();
        let got = Event::parse(&org, draft.clone(), &LIMITS, NOW).err();
        let fields: Vec<String> = got.iter().flat_map(|r| &r.errors).map(|e| e.field.clone()).collect();
        let expected_fields: Vec<&str> = expected.iter().flat_map(|(_, f)| f.iter().copied()).collect();
        assert_eq!(fields, expected_fields, "{draft:?}");
        assert_eq!(got.map(|r| r.code), expected.map(|(code, _)| code), "{draft:?}");
    }

    #[test]
    fn an_organization_has_a_plain_name() {
        for good in ["default", "acme", "0199c2f0-7d6c-7a51-9d2b-6a4f3c1e8b77", "A.b_c-9", &"x".repeat(64)] {
            assert_eq!(OrgId::parse(good).as_ref().map(OrgId::as_str), Some(good));
        }
        for bad in ["", "a b", "a/b", "é", "a\n", "a'", &"x".repeat(65)] {
            assert_eq!(OrgId::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn every_bad_field_is_named() {
        let long = "x".repeat(300);
        check(valid(), None);
        check(EventDraft::default(), Some((RejectionCode::Invalid, &["event_id", "type", "occurred_at"])));
        check(
            EventDraft {
                event_id: &long,
                event_type: "two words",
                campaign_id: "a\nb",
                creative_id: &long,
                source: "\u{85}",
                user_id: "\0",
                properties: PropertiesDraft::Canonical(Cow::Borrowed(&long)),
                ..valid()
            },
            Some((
                RejectionCode::Invalid,
                &["event_id", "type", "campaign_id", "creative_id", "source", "user_id", "properties"],
            )),
        );
    }

    #[test]
    fn the_time_must_lie_between_retention_and_five_minutes_ahead() {
        let at = |millis: i64| EventDraft { occurred_at: Some(NOW.plus_millis(millis)), ..valid() };
        check(at(5 * MILLIS_PER_MINUTE), None);
        check(at(5 * MILLIS_PER_MINUTE + 1), Some((RejectionCode::InFuture, &["occurred_at"])));
        check(at(-LIMITS.retention_millis), None);
        check(at(-LIMITS.retention_millis - 1), Some((RejectionCode::TooOld, &["occurred_at"])));
        check(at(i64::MAX), Some((RejectionCode::InFuture, &["occurred_at"])));
        check(at(i64::MIN), Some((RejectionCode::TooOld, &["occurred_at"])));
    }

    #[test]
    fn times_before_1970_are_refused_however_long_events_are_kept() {
        let org = OrgId::default_org();
        let limits = EventLimits { retention_millis: i64::MAX, ..LIMITS };
        let parsed = |millis: i64| {
            let draft = EventDraft { occurred_at: Some(Timestamp::from_millis(millis)), ..valid() };
            Event::parse(&org, draft, &limits, NOW).map_err(|rejection| rejection.code).map(|event| event.occurred_at())
        };
        assert_eq!(parsed(0), Ok(FIRST));
        assert_eq!(parsed(-1), Err(RejectionCode::TooOld));
        assert_eq!(parsed(i64::MIN), Err(RejectionCode::TooOld));
    }

    #[test]
    fn a_blank_text_names_nothing() {
        for blank in [" ", "   ", "\u{a0}", "\u{2003}\u{3000} "] {
            let draft = EventDraft {
                event_id: blank,
                campaign_id: blank,
                creative_id: blank,
                source: blank,
                user_id: blank,
                ..valid()
            };
            let fields: &[&str] = &["event_id", "campaign_id", "creative_id", "source", "user_id"];
            check(draft, Some((RejectionCode::Invalid, fields)));
        }
        check(EventDraft { event_id: " a ", user_id: "\u{200b}", ..valid() }, None);
    }

    #[test]
    fn malformed_outweighs_untimely() {
        let draft = EventDraft { event_id: "", occurred_at: Some(Timestamp::from_millis(0)), ..valid() };
        check(draft, Some((RejectionCode::Invalid, &["event_id", "occurred_at"])));
    }

    #[test]
    fn what_could_not_be_read_is_named_once() {
        let unreadable = vec![FieldError::new("occurred_at", "must be an RFC 3339 time")];
        check(
            EventDraft { occurred_at: None, unreadable, ..valid() },
            Some((RejectionCode::Invalid, &["occurred_at"])),
        );
    }
}
