//! Converts between a line of NDJSON and an event of the protocol.
//!
//! The fields are those of the REST contract. Values of the right types are sent to the service, which
//! validates them; values that the protocol cannot represent are refused here.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::cli::time_args;
use crate::domain::FieldError;
use crate::json;
use crate::transport::{proto, rfc3339};

/// Why a line was not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// `NOT_JSON`, `INVALID` or `TOO_LONG`.
    pub code: &'static str,
    /// The event's id, if at least that could be read.
    pub event_id: String,
    /// What is wrong with it.
    pub errors: Vec<FieldError>,
}

/// The line is not a JSON object.
pub const NOT_JSON: &str = "NOT_JSON";
/// A field is of the wrong type.
pub const INVALID: &str = "INVALID";
/// The line is longer than this command reads.
pub const TOO_LONG: &str = "TOO_LONG";

/// A valid line, parsed in one pass.
#[derive(Deserialize)]
struct Line<'a> {
    event_id: Option<String>,
    // Each REST contract has a name of its own for these two.
    #[serde(rename = "type", alias = "event_type")]
    event_type: Option<String>,
    campaign_id: Option<String>,
    creative_id: Option<String>,
    source: Option<String>,
    user_id: Option<String>,
    #[serde(alias = "timestamp")]
    occurred_at: Option<String>,
    seq: Option<u64>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow)]
    properties: Option<&'a RawValue>,
}

/// Parses a line. Ignores a byte-order mark before it, since concatenated files have them anywhere.
pub fn parse(text: &[u8]) -> Result<proto::Event, Unreadable> {
    let text = str::from_utf8(text).map_err(|_| not_json("must be UTF-8"))?;
    let text = json::without_bom(text);
    // Slower, and only for those that went wrong: what exactly is wrong.
    let line: Line<'_> = serde_json::from_str(text).map_err(|error| diagnose(text, &error.to_string()))?;
    let refuse = |event_id: &Option<String>, field: &str, message: &str| Unreadable {
        code: INVALID,
        event_id: event_id.clone().unwrap_or_default(),
        errors: vec![FieldError::new(field, message)],
    };
    let occurred_at = match line.occurred_at.as_deref().map(parse_time) {
        None => None,
        Some(Some(time)) => Some(time),
        Some(None) => return Err(refuse(&line.event_id, "occurred_at", TIME_FORM)),
    };
    let properties = match (line.metadata, line.properties) {
        (Some(_), Some(_)) => {
            return Err(refuse(&line.event_id, "metadata", "is another name of 'properties'; give one of them"));
        }
        // As they are: the service alone judges what is in them.
        (Some(object), None) | (None, Some(object)) if object.get().starts_with('{') => object.get(),
        (Some(_), None) | (None, Some(_)) => return Err(diagnose(text, "the properties are not an object")),
        (None, None) => "",
    };
    Ok(proto::Event {
        event_id: line.event_id.unwrap_or_default(),
        r#type: line.event_type.unwrap_or_default(),
        campaign_id: line.campaign_id.unwrap_or_default(),
        creative_id: line.creative_id.unwrap_or_default(),
        source: line.source.unwrap_or_default(),
        user_id: line.user_id.unwrap_or_default(),
        occurred_at,
        seq: line.seq.unwrap_or_default(),
        properties: if properties == "{}" { String::new() } else { properties.to_owned() },
    })
}

const TIME_FORM: &str = "must be an RFC 3339 time such as 2026-02-10T21:07:00Z";

/// Parses an RFC 3339 time as the service does, truncated to milliseconds.
pub fn parse_time(text: &str) -> Option<prost_types::Timestamp> {
    rfc3339::parse(text).map(time_args::to_proto)
}

/// Names every invalid field of a line that could not be parsed.
fn diagnose(text: &str, error: &str) -> Unreadable {
    let object = match json::parse(text) {
        Ok(Value::Object(object)) => object,
        Ok(_) => return not_json("is JSON, but not an object"),
        Err(error) => return not_json(&format!("is not JSON: {error}")),
    };
    let mut errors = Vec::new();
    for (field, value) in object.iter().filter(|(_, value)| !value.is_null()) {
        match field.as_str() {
            "event_id" | "type" | "event_type" | "campaign_id" | "creative_id" | "source" | "user_id"
            | "occurred_at" | "timestamp" => match value.as_str() {
                None => errors.push(FieldError::new(field, "must be a string")),
                Some(text) if is_time(field) && parse_time(text).is_none() => {
                    errors.push(FieldError::new(field, TIME_FORM));
                }
                Some(_) => {}
            },
            "seq" if value.as_u64().is_none() => {
                errors.push(FieldError::new(field, "must be a whole number from 0 to 18446744073709551615"));
            }
            "metadata" | "properties" if !value.is_object() => {
                errors.push(FieldError::new(field, "must be a JSON object"));
            }
            _ => {}
        }
    }
    if errors.is_empty() {
        // Such as a field that occurs twice.
        errors.push(FieldError::new("line", error));
    }
    let event_id = object.get("event_id").and_then(Value::as_str).unwrap_or_default().to_owned();
    Unreadable { code: INVALID, event_id, errors }
}

fn is_time(field: &str) -> bool {
    matches!(field, "occurred_at" | "timestamp")
}

fn not_json(message: &str) -> Unreadable {
    Unreadable { code: NOT_JSON, event_id: String::new(), errors: vec![FieldError::new("line", message)] }
}

/// An event in output: fields without a value are left out.
#[derive(Serialize)]
struct WrittenLine<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    event_id: &'a str,
    #[serde(rename = "type", skip_serializing_if = "str::is_empty")]
    event_type: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    campaign_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    creative_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    source: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    user_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    occurred_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    received_at: Option<String>,
}

/// Writes an event as a line that [`parse`] reads as the same event, and that
/// can be posted to the REST contract. Without a line end. `received_at` is
/// for the reader; senders ignore it.
pub fn write(event: &proto::Event, received_at: Option<&prost_types::Timestamp>) -> String {
    let line = WrittenLine {
        event_id: &event.event_id,
        event_type: &event.r#type,
        campaign_id: &event.campaign_id,
        creative_id: &event.creative_id,
        source: &event.source,
        user_id: &event.user_id,
        occurred_at: event.occurred_at.as_ref().map(time_args::rfc3339),
        seq: (event.seq > 0).then_some(event.seq),
        metadata: json::parse(&event.properties).ok(),
        received_at: received_at.map(time_args::rfc3339),
    };
    // Strings, numbers and a value that was JSON before: nothing here can fail
    // to be written.
    serde_json::to_string(&line).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The code and fields at fault of a line that is refused.
    fn check_refused(text: &str, code: &str, fields: &[&str]) {
        let refused = parse(text.as_bytes()).expect_err(text);
        let got: Vec<&str> = refused.errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!((refused.code, got.as_slice()), (code, fields), "{text}: {:?}", refused.errors);
    }

    #[test]
    fn a_line_of_the_contract_becomes_an_event() {
        let text = r#"{"event_id":"e-1","type":"click","campaign_id":"c","creative_id":"k","source":"web",
            "user_id":"u","occurred_at":"2026-02-10T22:07:00.25+01:00","seq":7,"metadata":{"b":1.50,"a":"é"},
            "unknown":[1]}"#;
        let event = parse(text.as_bytes()).unwrap();
        assert_eq!((event.event_id.as_str(), event.r#type.as_str(), event.seq), ("e-1", "click", 7));
        assert_eq!(event.occurred_at, Some(prost_types::Timestamp { seconds: 1_770_757_620, nanos: 250_000_000 }));
        assert_eq!(event.properties, r#"{"b":1.50,"a":"é"}"#, "they are sent as they are");
    }

    #[test]
    fn a_line_is_read_as_the_service_reads_a_body() {
        let properties = |text: &str| parse(text.as_bytes()).map(|event| event.properties);
        assert_eq!(properties("\u{feff}{\"metadata\":{\"a\":1}}").unwrap(), "{\"a\":1}");
        for key in ["$serde_json::private::Number", "$serde_json::private::RawValue"] {
            let object = format!("{{\"{key}\":\"1\",\"b\":[{{\"{key}\":\"[]\"}}]}}");
            assert_eq!(properties(&format!("{{\"metadata\":{object}}}")).unwrap(), object);
            check_refused(&format!("{{\"seq\":{object},\"metadata\":{{}}}}"), INVALID, &["seq"]);
            check_refused(&format!("{{\"{key}\":\"1\",\"type\":5}}"), INVALID, &["type"]);
            let event = proto::Event { properties: object.clone(), ..proto::Event::default() };
            assert_eq!(write(&event, None), format!("{{\"metadata\":{object}}}"));
        }
        for depth in [json::DEPTH_MAX, 100_000] {
            let deep = format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
            assert_eq!(properties(&format!("{{\"metadata\":{deep}}}")).unwrap(), deep);
        }
        for time in ["2026-02-10x21:10:00Z", "2026-02-10 21:10:00Z", "2026-02-10T21:10:00", ""] {
            check_refused(&format!("{{\"occurred_at\":\"{time}\"}}"), INVALID, &["occurred_at"]);
        }
    }

    #[test]
    fn what_is_missing_is_for_the_service_to_judge() {
        assert_eq!(parse(b"{}"), Ok(proto::Event::default()));
        assert_eq!(parse(br#"{"event_id":null,"seq":null,"metadata":{}}"#), Ok(proto::Event::default()));
    }

    #[test]
    fn what_cannot_be_put_into_the_protocol_is_refused_by_name() {
        check_refused("", NOT_JSON, &["line"]);
        check_refused(r#"{"event_id":"e"#, NOT_JSON, &["line"]);
        check_refused("[1]", NOT_JSON, &["line"]);
        check_refused("17", NOT_JSON, &["line"]);
        check_refused(r#"{"event_id":5,"seq":-1,"type":["click"]}"#, INVALID, &["event_id", "seq", "type"]);
        check_refused(r#"{"occurred_at":"yesterday"}"#, INVALID, &["occurred_at"]);
        check_refused(r#"{"occurred_at":"yesterday","user_id":1}"#, INVALID, &["occurred_at", "user_id"]);
        check_refused(r#"{"metadata":"a=b"}"#, INVALID, &["metadata"]);
        check_refused(r#"{"metadata":{},"properties":{}}"#, INVALID, &["metadata"]);
        check_refused(r#"{"type":"a","type":"b"}"#, INVALID, &["line"]);
        assert_eq!(parse(br#"{"event_id":"e","seq":"1"}"#).unwrap_err().event_id, "e");
        assert_eq!(parse(b"{\"event_id\":\"\xff\"}").unwrap_err().code, NOT_JSON);
    }

    proptest! {
        #[test]
        fn an_event_written_and_read_is_the_same(
            texts in prop::array::uniform6(".{0,20}"),
            seconds in 0_i64..253_402_300_799,
            millis in 0_i32..1_000,
            seq in any::<u64>(),
            property in prop::option::of(".{0,10}"),
        ) {
            let [event_id, event_type, campaign_id, creative_id, source, user_id] = texts;
            let event = proto::Event {
                event_id, r#type: event_type, campaign_id, creative_id, source, user_id, seq,
                occurred_at: Some(prost_types::Timestamp { seconds, nanos: millis * 1_000_000 }),
                properties: property.map(|p| serde_json::json!({ "key": p }).to_string()).unwrap_or_default(),
            };
            prop_assert_eq!(parse(write(&event, None).as_bytes()), Ok(event));
        }

        #[test]
        fn no_line_breaks_the_reader(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&text);
        }
    }
}
