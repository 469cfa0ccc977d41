//! Parses a batch: one JSON object with several events.

use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::domain::{EventDraft, FieldError};
use crate::transport::error::failure::Failure;
use crate::transport::rest::fields::{self, FieldErrors, FirstItems, Text};

/// Most events of one call.
pub(super) const EVENTS_MAX: usize = 100;
/// The field name of errors about an event as a whole.
const EVENT: &str = "event";

/// Fields that have other names in the domain.
const NAMES: [(&str, &str); 2] = [("type", "event_type"), ("occurred_at", "timestamp")];
/// The fields in the order in which errors name them.
pub(in crate::transport::rest) const FIELDS: [&str; 10] = [
    EVENT,
    "event_id",
    "user_id",
    "event_type",
    "properties",
    "timestamp",
    "seq",
    "source",
    "campaign_id",
    "creative_id",
];

/// An event to send.
#[derive(Deserialize, ToSchema)]
#[schema(as = AnalyticsEvent)]
pub(in crate::transport::rest) struct EventItem<'a> {
    /// The event's identity: it is counted once, however often it is sent. 1 to 128 bytes, no
    /// control characters. Optional with an `Idempotency-Key`.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, min_length = 1, example = "0199c2f0-7d6c-7a51-9d2b-6a4f3c1e8b77")]
    event_id: Text<'a>,
    /// The user. At most 256 bytes.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "user_42")]
    user_id: Text<'a>,
    /// What happened. 1 to 64 letters, digits, `_`, `-`, `.` or `:`.
    #[serde(borrow, default)]
    #[schema(value_type = String, required, min_length = 1, example = "page_view")]
    event_type: Text<'a>,
    /// Further properties as an object. At most 16 KiB of JSON.
    #[serde(borrow, default)]
    #[schema(value_type = Option<Object>)]
    properties: Option<&'a RawValue>,
    /// When it happened, truncated to milliseconds. Not older than the retention period, and at
    /// most 5 minutes ahead.
    #[serde(borrow, default)]
    #[schema(value_type = String, required, format = DateTime, example = "2026-02-10T21:10:00.123Z")]
    timestamp: Text<'a>,
    /// A number by which the producer orders the events of a user; 0 if none.
    #[serde(borrow, default)]
    #[schema(value_type = Option<u64>)]
    seq: Option<&'a RawValue>,
    /// The system that recorded it. At most 256 bytes.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "web")]
    source: Text<'a>,
    /// The campaign. At most 256 bytes.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "camp_123")]
    campaign_id: Text<'a>,
    /// The creative shown or clicked. At most 256 bytes.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "creative_9")]
    creative_id: Text<'a>,
    /// The organization. Optional; must be that of the token.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "acme")]
    org_id: Text<'a>,
}

impl EventItem<'_> {
    /// The draft of the event, with errors so far under the domain's names.
    fn draft(&self, properties_bytes_max: usize) -> EventDraft<'_> {
        let mut faults = FieldErrors::default();
        EventDraft {
            event_id: faults.optional("event_id", &self.event_id),
            event_type: faults.optional("type", &self.event_type),
            campaign_id: faults.optional("campaign_id", &self.campaign_id),
            creative_id: faults.optional("creative_id", &self.creative_id),
            source: faults.optional("source", &self.source),
            user_id: faults.optional("user_id", &self.user_id),
            occurred_at: faults.time("occurred_at", &self.timestamp),
            seq: faults.number("seq", self.seq),
            properties: faults.object("properties", self.properties, properties_bytes_max),
            unreadable: faults.0,
        }
    }
}

/// A batch of events to send.
#[derive(Deserialize, ToSchema)]
#[schema(as = AnalyticsEvents)]
pub(in crate::transport::rest) struct EventsBody<'a> {
    /// The events, at most 100. Each is validated by itself.
    #[serde(borrow, default)]
    #[schema(value_type = Vec<EventItem>, required, min_items = 1, max_items = 100)]
    events: Option<&'a RawValue>,
    /// The organization. Optional; must be that of the token.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "acme")]
    org_id: Text<'a>,
}

/// A parsed batch: each event, or its errors.
pub(in crate::transport::rest) struct Batch<'a> {
    items: Vec<Result<EventItem<'a>, String>>,
    org_id: Text<'a>,
}

impl<'a> Batch<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// 400 if it is not JSON; 422 if it is not an object with 1 to 100 events. The events are not
    /// validated yet.
    pub(in crate::transport::rest) fn read(bytes: &'a [u8]) -> Result<Self, Failure> {
        let EventsBody { events, org_id } = fields::read_object(bytes).map_err(fields::NotAnObject::failure)?;
        let read = |item: &'a RawValue| fields::read_object(item.get().as_bytes()).map_err(|error| error.message);
        let items = FirstItems::<EVENTS_MAX>::read("events", events)?;
        Ok(Self { items: items.into_iter().map(read).collect(), org_id })
    }

    /// Every organization that the body or an event names.
    pub(in crate::transport::rest) fn org_ids(&self) -> impl Iterator<Item = &str> {
        let of_items = self.items.iter().flatten().filter_map(|item| item.org_id.org_id());
        self.org_id.org_id().into_iter().chain(of_items)
    }

    /// The drafts of the events, in order.
    pub(in crate::transport::rest) fn drafts(&self, properties_bytes_max: usize) -> Vec<EventDraft<'_>> {
        let items = self.items.iter();
        items
            .map(|item| match item {
                Ok(item) => item.draft(properties_bytes_max),
                Err(message) => {
                    let unreadable = vec![FieldError::new(EVENT, message.clone())];
                    EventDraft { unreadable, ..EventDraft::default() }
                }
            })
            .collect()
    }
}

/// What to say of an event's fields at fault: under the names they have here,
/// in the order of the contract.
pub(in crate::transport::rest) fn faults(errors: &[FieldError]) -> Vec<FieldError> {
    // Of what is no event at all, nothing else need be said.
    if let Some(whole) = errors.iter().find(|error| error.field == EVENT) {
        return vec![whole.clone()];
    }
    let named = |error: &FieldError| {
        let name = NAMES.iter().find(|(domain, _)| *domain == error.field).map_or(&*error.field, |(_, name)| *name);
        FieldError::new(name, &*error.message)
    };
    let mut errors: Vec<FieldError> = errors.iter().map(named).collect();
    // A place within a field stands where the field stands.
    let field_of = |error: &FieldError| error.field.split('.').next().unwrap_or_default().to_owned();
    errors.sort_by_key(|error| FIELDS.iter().position(|field| *field == field_of(error)));
    errors
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Config;
    use crate::domain::{Event, OrgId, Timestamp};

    const NOW: Timestamp = Timestamp::from_millis(1_770_757_800_000);

    /// The invalid fields of the one event.
    fn check(event: &str, expected: &[&str]) {
        let body = format!("{{\"events\":[{event}]}}");
        let batch = Batch::read(body.as_bytes()).expect("a batch");
        let draft = batch.drafts(64).remove(0);
        let org = OrgId::default_org();
        let errors = Event::parse(&org, draft, &Config::default().event_limits(), NOW).err();
        let faults = faults(&errors.map(|rejection| rejection.errors).unwrap_or_default());
        assert_eq!(faults.iter().map(|fault| &*fault.field).collect::<Vec<_>>(), expected, "{event}");
    }

    #[test]
    fn every_bad_field_is_named_as_the_contract_has_it() {
        let valid = r#""event_id":"e","event_type":"x","timestamp":"2026-02-10T21:10:00Z""#;
        check(&format!("{{{valid}}}"), &[]);
        check(&format!("{{{valid},\"seq\":18446744073709551615,\"properties\":{{}},\"user_id\":null}}"), &[]);
        check("{}", &["event_id", "event_type", "timestamp"]);
        check(
            r#"{"creative_id":1,"campaign_id":[],"source":{},"seq":1.5,"timestamp":1,"properties":1,"event_type":true,
                "user_id":1,"event_id":1}"#,
            &[
                "event_id",
                "user_id",
                "event_type",
                "properties",
                "timestamp",
                "seq",
                "source",
                "campaign_id",
                "creative_id",
            ],
        );
        for seq in ["-1", "1e3", "18446744073709551616", "\"1\"", "[]"] {
            check(&format!("{{{valid},\"seq\":{seq}}}"), &["seq"]);
        }
        for event in ["[]", "null", "1", "\"e\"", r#"{"event_id":"a","event_id":"b"}"#] {
            check(event, &["event"]);
        }
    }

    #[test]
    fn the_number_of_events_is_bounded_before_they_are_read() {
        let check = |count: usize, is_good: bool| {
            let body = format!("{{\"events\":[{}]}}", vec!["{}"; count].join(","));
            assert_eq!(Batch::read(body.as_bytes()).is_ok(), is_good, "{count}");
        };
        check(0, false);
        check(1, true);
        check(EVENTS_MAX, true);
        check(EVENTS_MAX + 1, false);
    }

    #[test]
    fn every_organization_that_is_named_is_looked_at() {
        let body = br#"{"org_id":"a","events":[{"org_id":"b"},{},5,{"org_id":7}]}"#;
        let batch = Batch::read(body).expect("a batch");
        assert_eq!(batch.org_ids().collect::<Vec<_>>(), ["a", "b", ""]);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Batch::read(&bytes).map(|batch| batch.drafts(64).len());
        }
    }
}
