//! One event as a JSON object.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::domain::{Error, EventDraft, FieldError, PropertiesDraft, Timestamp};
use crate::transport::{properties, rfc3339};

/// The fields in the order in which they are named when they are at fault.
const FIELDS: [&str; 8] =
    ["event_id", "type", "campaign_id", "creative_id", "source", "occurred_at", "user_id", "metadata"];

/// One event, as it is sent.
#[derive(Deserialize, ToSchema)]
#[schema(as = NewEvent)]
pub(super) struct EventBody<'a> {
    /// Identity: however often it is sent, it counts once. 1 to 128 bytes, no control characters.
    #[serde(borrow, default)]
    #[schema(value_type = String, required, min_length = 1, example = "0199c2f0-7d6c-7a51-9d2b-6a4f3c1e8b77")]
    event_id: Text<'a>,
    /// What happened.
    #[serde(borrow, default, rename = "type")]
    #[schema(value_type = EventType, required)]
    event_type: Text<'a>,
    /// The campaign it counts for. At most 256 bytes.
    #[serde(borrow, default)]
    #[schema(value_type = String, required, min_length = 1, example = "camp_123")]
    campaign_id: Text<'a>,
    /// The creative shown or clicked. At most 256 bytes.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "creative_9")]
    creative_id: Text<'a>,
    /// The system that saw it. At most 256 bytes.
    #[serde(borrow, default)]
    #[schema(value_type = String, required, min_length = 1, example = "web")]
    source: Text<'a>,
    /// When it happened; kept to the millisecond. Not older than the retention time, not more than 5 minutes ahead.
    #[serde(borrow, default)]
    #[schema(value_type = String, required, format = DateTime, example = "2026-02-10T21:10:00.123Z")]
    occurred_at: Text<'a>,
    /// The user it counts for. At most 256 bytes.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "user_42")]
    user_id: Text<'a>,
    /// Anything else, as one object. At most 16 KiB of JSON.
    #[serde(borrow, default)]
    #[schema(value_type = Option<Object>)]
    metadata: Option<&'a RawValue>,
}

/// The types of events this resource takes.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[allow(dead_code, reason = "describes")]
pub(super) enum EventType {
    /// An ad was clicked.
    Click,
    /// An ad was shown.
    Impression,
}

impl<'a> EventBody<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// `Invalid` when it is not one JSON object. Its fields are not judged yet.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, Error> {
        let text = str::from_utf8(bytes).map_err(|_| Error::invalid_field("body", "must be UTF-8"))?;
        // An array would do for a struct, as far as serde is concerned.
        let is_object = text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{');
        match serde_json::from_str(text) {
            Ok(body) if is_object => Ok(body),
            Ok(_) => Err(Error::invalid_field("body", "must be one JSON object")),
            Err(error) if error.is_data() && !is_object => Err(Error::invalid_field("body", "must be one JSON object")),
            Err(error) => Err(Error::invalid_field("body", format!("must be one JSON object: {error}"))),
        }
    }

    /// The event it means, whose metadata may have so many bytes. What is wrong
    /// so far is in the draft.
    pub(super) fn draft(&self, metadata_bytes_max: usize) -> EventDraft<'_> {
        let mut faults = Faults::default();
        let event_id = faults.required("event_id", &self.event_id);
        let event_type = faults.required("type", &self.event_type);
        let campaign_id = faults.required("campaign_id", &self.campaign_id);
        let creative_id = faults.optional("creative_id", &self.creative_id);
        let source = faults.required("source", &self.source);
        let occurred_at = faults.required("occurred_at", &self.occurred_at);
        let user_id = faults.optional("user_id", &self.user_id);
        EventDraft {
            event_id,
            event_type: faults.known_type(event_type),
            campaign_id,
            creative_id,
            source,
            user_id,
            occurred_at: faults.time("occurred_at", occurred_at),
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
            if error.field == "properties" {
                "metadata".clone_into(&mut error.field);
            }
        }
        errors.sort_by_key(|error| FIELDS.iter().position(|field| *field == error.field));
        errors
    }
}

/// Collects what is wrong with the fields. A faulty field is taken for empty,
/// so that nothing more is said of it.
#[derive(Default)]
struct Faults(Vec<FieldError>);

impl Faults {
    fn add(&mut self, field: &str, message: &str) {
        self.0.push(FieldError::new(field, message));
    }

    fn optional<'t>(&mut self, field: &str, text: &'t Text<'_>) -> &'t str {
        match text {
            Text::Given(text) => text,
            Text::Absent => "",
            Text::Wrong => {
                self.add(field, "must be a string");
                ""
            }
        }
    }

    fn required<'t>(&mut self, field: &str, text: &'t Text<'_>) -> &'t str {
        let read = self.optional(field, text);
        if read.is_empty() && *text != Text::Wrong {
            self.add(field, "is required");
        }
        read
    }

    fn known_type<'t>(&mut self, event_type: &'t str) -> &'t str {
        if matches!(event_type, "" | "click" | "impression") {
            return event_type;
        }
        self.add("type", "must be 'click' or 'impression'");
        ""
    }

    fn time(&mut self, field: &str, text: &str) -> Option<Timestamp> {
        let time = rfc3339::parse(text);
        if time.is_none() && !text.is_empty() {
            self.add(field, rfc3339::EXPECTED);
        }
        time
    }

    fn object(&mut self, field: &str, value: Option<&RawValue>, bytes_max: usize) -> PropertiesDraft<'static> {
        let read = value.map_or(Ok(PropertiesDraft::None), |value| properties::read(value.get(), bytes_max));
        read.unwrap_or_else(|message| {
            self.add(field, &message);
            PropertiesDraft::None
        })
    }
}

/// A field that should be a string.
#[derive(Debug, Default, PartialEq, Eq)]
enum Text<'a> {
    /// Left out, or null.
    #[default]
    Absent,
    Given(Cow<'a, str>),
    /// Something else.
    Wrong,
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

/// Takes any JSON, so that every field can be judged and not only the first
/// that is wrong.
struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Text<'de>, E> {
        Ok(Text::Given(Cow::Borrowed(text)))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Text<'de>, E> {
        Ok(Text::Given(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Text<'de>, E> {
        Ok(Text::Absent)
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Text<'de>, E> {
        Ok(Text::Wrong)
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Text<'de>, E> {
        Ok(Text::Wrong)
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Text<'de>, E> {
        Ok(Text::Wrong)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Text<'de>, E> {
        Ok(Text::Wrong)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Text<'de>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Text::Wrong)
    }

    /// Numbers come this way, too.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Text<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Text::Wrong)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{Event, EventLimits, MILLIS_PER_DAY, OrgId};

    const LIMITS: EventLimits = EventLimits {
        event_id_bytes_max: 128,
        type_bytes_max: 64,
        text_bytes_max: 256,
        properties_bytes_max: 64,
        retention_millis: 10 * MILLIS_PER_DAY,
        future_millis_max: 300_000,
    };

    /// The fields at fault, in order.
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
        check(&format!("{{{VALID},\"user_id\":\"\\u0075\",\"metadata\":{{\"a\":[1.50]}},\"more\":[{{}}]}}"), &[]);
    }

    #[test]
    fn every_bad_field_is_named_once_and_in_order() {
        let required = ["event_id is", "type is", "campaign_id is", "source is", "occurred_at is"];
        check("{}", &required);
        check(r#"{"event_id":null,"type":"","campaign_id":"","source":null,"occurred_at":""}"#, &required);
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
            "\u{feff}{}",
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
