//! Parses one event from a JSON object.

use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::fields::{self, FieldErrors, Text};
use crate::domain::{Error, EventDraft, FieldError};

/// The fields in the order in which errors name them.
const FIELDS: [&str; 8] =
    ["event_id", "type", "campaign_id", "creative_id", "source", "occurred_at", "user_id", "metadata"];

/// An event to send.
#[derive(Deserialize, ToSchema)]
#[schema(as = NewEvent)]
pub(super) struct EventBody<'a> {
    /// The event's identity: it is counted once, however often it is sent. 1 to 128 bytes, no
    /// control characters.
    #[serde(borrow, default)]
    #[schema(value_type = String, required, min_length = 1, example = "0199c2f0-7d6c-7a51-9d2b-6a4f3c1e8b77")]
    event_id: Text<'a>,
    /// What happened.
    #[serde(borrow, default, rename = "type")]
    #[schema(value_type = AdEventType, required)]
    event_type: Text<'a>,
    /// The campaign. At most 256 bytes.
    #[serde(borrow, default)]
    #[schema(value_type = String, required, min_length = 1, example = "camp_123")]
    campaign_id: Text<'a>,
    /// The creative shown or clicked. At most 256 bytes.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "creative_9")]
    creative_id: Text<'a>,
    /// The system that recorded it. At most 256 bytes.
    #[serde(borrow, default)]
    #[schema(value_type = String, required, min_length = 1, example = "web")]
    source: Text<'a>,
    /// When it happened, truncated to milliseconds. Not older than the retention period, and at
    /// most 5 minutes ahead.
    #[serde(borrow, default)]
    #[schema(value_type = String, required, format = DateTime, example = "2026-02-10T21:10:00.123Z")]
    occurred_at: Text<'a>,
    /// The user. At most 256 bytes.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "user_42")]
    user_id: Text<'a>,
    /// The organization. Optional; must be that of the token.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "acme")]
    org_id: Text<'a>,
    /// Further properties as an object. At most 16 KiB of JSON.
    #[serde(borrow, default)]
    #[schema(value_type = Option<Object>)]
    metadata: Option<&'a RawValue>,
}

/// The event types of this resource.
#[derive(ToSchema)]
#[schema(as = AdEventType, rename_all = "lowercase")]
#[allow(dead_code, reason = "describes")]
pub(super) enum AdEventType {
    /// An ad was clicked.
    Click,
    /// An ad was shown.
    Impression,
}

impl<'a> EventBody<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// `Invalid` if it is not one JSON object. Its fields are not validated yet.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, Error> {
        fields::read_object(bytes).map_err(|error| error.invalid("body"))
    }

    /// The organization it names.
    pub(super) fn org_id(&self) -> Option<&str> {
        self.org_id.org_id()
    }

    /// The event it means, whose metadata may have so many bytes. What is wrong
    /// so far is in the draft.
    pub(super) fn draft(&self, metadata_bytes_max: usize) -> EventDraft<'_> {
        let mut faults = FieldErrors::default();
        let event_id = required("event_id", &self.event_id, &mut faults);
        let event_type = required("type", &self.event_type, &mut faults);
        let campaign_id = required("campaign_id", &self.campaign_id, &mut faults);
        let creative_id = faults.optional("creative_id", &self.creative_id);
        let source = required("source", &self.source, &mut faults);
        let occurred_at = faults.time("occurred_at", &self.occurred_at);
        let user_id = faults.optional("user_id", &self.user_id);
        EventDraft {
            event_id,
            event_type: known_type(event_type, &mut faults),
            campaign_id,
            creative_id,
            source,
            user_id,
            occurred_at,
            seq: 0,
            properties: faults.object("metadata", self.metadata, metadata_bytes_max),
            unreadable: faults.0,
        }
    }

    /// What to say of fields at fault: under the names they have here, in the
    /// order of the contract.
    pub(super) fn faults(errors: Vec<FieldError>) -> Vec<FieldError> {
        let mut errors = errors;
        for error in &mut errors {
            // With the place within them, if one is at fault.
            if let Some(place) = error.field.strip_prefix("properties") {
                error.field = format!("metadata{place}");
            }
        }
        let field_of = |error: &FieldError| error.field.split('.').next().unwrap_or_default().to_owned();
        errors.sort_by_key(|error| FIELDS.iter().position(|field| *field == field_of(error)));
        errors
    }
}

fn required<'t>(field: &str, text: &'t Text<'_>, faults: &mut FieldErrors) -> &'t str {
    let read = faults.optional(field, text);
    if read.is_empty() && *text != Text::Wrong {
        faults.add(field, "is required");
    }
    read
}

fn known_type<'t>(event_type: &'t str, faults: &mut FieldErrors) -> &'t str {
    if matches!(event_type, "" | "click" | "impression") {
        return event_type;
    }
    faults.add("type", "must be 'click' or 'impression'");
    ""
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{Event, EventLimits, MILLIS_PER_DAY, OrgId, Timestamp};

    const LIMITS: EventLimits = EventLimits {
        event_id_bytes_max: 128,
        type_bytes_max: 64,
        text_bytes_max: 256,
        properties_bytes_max: 64,
        retention_millis: 10 * MILLIS_PER_DAY,
        future_millis_max: 300_000,
    };

    /// The invalid fields, in order.
    fn faults(body: &str) -> Vec<String> {
        let faults = match EventBody::read(body.as_bytes()) {
            Err(error) => error.fields,
            Ok(body) => {
                let org = OrgId::default_org();
                let now = Timestamp::from_millis(1_770_757_800_000);
                let parsed = Event::parse(&org, body.draft(LIMITS.properties_bytes_max), &LIMITS, now);
                EventBody::faults(parsed.err().map(|rejection| rejection.errors).unwrap_or_default())
            }
        };
        faults.into_iter().map(|fault| format!("{} {}", fault.field, fault.message)).collect()
    }

    fn check(body: &str, expected: &[&str]) {
        let faults = faults(body);
        let same =
            faults.len() == expected.len() && faults.iter().zip(expected).all(|(got, want)| got.starts_with(want));
        assert!(same, "{body}: {faults:?}");
    }

    const VALID: &str =
        r#""event_id":"e","type":"click","campaign_id":"c","source":"web","occurred_at":"2026-02-10T21:10:00Z""#;

    #[test]
    fn a_valid_event_has_no_faults() {
        check(&format!("{{{VALID}}}"), &[]);
        check(&format!(" \r\n{{{VALID},\"user_id\":null,\"creative_id\":null,\"metadata\":null}} "), &[]);
        check(&format!("\u{feff}{{{VALID}}}"), &[]);
        check(&format!("{{{VALID},\"user_id\":\"\\u0075\",\"metadata\":{{\"a\":[1.50]}},\"more\":[{{}}]}}"), &[]);
    }

    #[test]
    fn every_bad_field_is_named_once_and_in_order() {
        let required = ["event_id is", "type is", "campaign_id is", "source is", "occurred_at is"];
        check("{}", &required);
        check(r#"{"event_id":null,"type":"","campaign_id":"","source":null,"occurred_at":null}"#, &required);
        check(&format!("{{{}}}", VALID.replace("2026-02-10T21:10:00Z", "")), &["occurred_at must be an RFC 3339"]);
        check(
            r#"{"metadata":[1],"user_id":{"a":1},"occurred_at":1770757800,"source":true,"creative_id":1.5,
                "campaign_id":[],"type":-1,"event_id":12345678901234567890123}"#,
            &[
                "event_id must be a string",
                "type must be a string",
                "campaign_id must be a string",
                "creative_id must be a string",
                "source must be a string",
                "occurred_at must be a string",
                "user_id must be a string",
                "metadata must be an object",
            ],
        );
        check(
            r#"{"event_id":"a\u0000","type":"view","campaign_id":"a\n","source":"s","occurred_at":"yesterday"}"#,
            &[
                "event_id must not",
                "type must be 'click' or 'impression'",
                "campaign_id must not",
                "occurred_at must be an RFC 3339",
            ],
        );
        check(
            &format!("{{{VALID},\"metadata\":{{\"a\":\"{}\"}}}}", "x".repeat(100)),
            &["metadata must be at most 64 bytes"],
        );
        check(&format!("{{{VALID},\"metadata\":\"{{}}\"}}"), &["metadata must be an object"]);
        check(
            &format!("{{{VALID},\"metadata\":{{\"a\":1e400,\"b\":[18446744073709551616]}}}}"),
            &["metadata.a must be a whole number", "metadata.b.0 must be a whole number"],
        );
        let old = VALID.replace("2026", "2016");
        check(&format!("{{{old}}}"), &["occurred_at must not be more than 10 days ago"]);
    }

    #[test]
    fn anything_but_one_object_is_refused() {
        for body in [
            "",
            " ",
            "null",
            "1",
            "\"a\"",
            "[]",
            "[1]",
            "{",
            "{]",
            "{} {}",
            "{\"a\"}",
            "{'a':1}",
            "{\"a\":1,}",
            "\u{feff}[]",
            "\u{feff}\u{feff}{}",
            "{\"event_id\":\"\\ud800\"}",
            "{\"event_id\":\"a\",\"event_id\":\"b\"}",
            "[\"e\",\"click\",\"c\",\"x\",\"s\"]",
            "{\"event_id\":\"a\nb\"}",
            "nul",
            "{\"a\":01}",
        ] {
            check(body, &["body must be one JSON object"]);
        }
        check(&"[".repeat(1_000_000), &["body must be"]);
        check(&format!("{{\"metadata\":{}", "[".repeat(1_000_000)), &["body must be"]);
        check(&"{\"metadata\":".repeat(100_000), &["body must be"]);
        assert!(EventBody::read(b"{\"a\":\"\xff\"}").is_err());
        assert!(EventBody::read(b"\xff\xfe{\x00}\x00").is_err());
    }

    #[test]
    fn nesting_that_is_not_kept_is_harmless() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        check(&format!("{{{VALID},\"unknown\":{deep}}}"), &[]);
        let wrong = VALID.replace("\"web\"", &deep);
        check(&format!("{{{wrong}}}"), &["source must be a string"]);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = EventBody::read(&bytes).map(|body| body.draft(64).unreadable.len());
        }

        #[test]
        fn nothing_like_an_event_panics(value in "(null|true|-?[0-9]{1,30}(\\.[0-9])?(e[0-9]{1,3})?|\"\\PC{0,9}\"|\\[\\]|\\{\\}|\\{\"a\":1\\})", field in 0..FIELDS.len()) {
            faults(&format!("{{{VALID},\"more\":{value}}}"));
            faults(&format!("{{\"{}\":{value}}}", FIELDS[field]));
        }
    }
}
