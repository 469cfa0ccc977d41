//! CloudEvents 1.0 over HTTP at `POST /cloudevents`: structured, batched and binary content mode.
//!
//! Source: "CloudEvents - Version 1.0.2" with its HTTP protocol binding and JSON format. `source` and `id` together
//! identify an event, so its id here is `id@source`; where that is too long or would not be unique, a digest of both.
//! `type` becomes the type, `time` the time, `subject` (or the extension `userid`) the user, `data` the properties.
//! The extensions `campaignid`, `creativeid` and `sequence` (a whole number) are known; others become properties.

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use super::{Format, Head, Reading, outcome, read_json, read_object, route};
use crate::domain::{Error, FieldError, Timestamp};
use crate::event_intake::BatchResults;
use crate::transport::context::TransportContext;
use crate::transport::error::failure::Failure;
use crate::transport::foreign_event::{ForeignEvent, id_of, text_of};
use crate::transport::rest::auth_layer::Routes;

/// Longest id that is made of `id` and `source` as they are, in bytes.
const READABLE_ID_BYTES_MAX: usize = 128;
/// How headers of the binary mode begin.
const HEADER_PREFIX: &str = "ce-";
/// Attributes that have a meaning of their own.
const KNOWN: [&str; 14] = [
    "specversion",
    "id",
    "source",
    "type",
    "time",
    "subject",
    "datacontenttype",
    "dataschema",
    "data",
    "data_base64",
    "userid",
    "campaignid",
    "creativeid",
    "sequence",
];

static CLOUDEVENTS: Format = Format { has_key_in_body: false, read, answer };

/// Adds the path.
pub(super) fn add(routes: Routes) -> Routes {
    route(routes, "/cloudevents", &CLOUDEVENTS)
}

fn answer(_: &Head, results: &BatchResults) -> Response {
    let mut response = outcome::answer(results, &json!({}));
    if response.status() == StatusCode::OK {
        *response.status_mut() = StatusCode::ACCEPTED;
    }
    response.into_response()
}

fn read(head: &Head, bytes: &Bytes, context: &TransportContext) -> Result<Reading, Failure> {
    let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let events = match essence.as_str() {
        "application/cloudevents+json" => vec![event(&read_object(bytes)?, head.now)],
        "application/cloudevents-batch+json" => batch(bytes, head.now, context)?,
        _ => vec![event(&binary(head, &essence, bytes)?, head.now)],
    };
    Ok(Reading::new(events, None))
}

fn batch(bytes: &Bytes, now: Timestamp, context: &TransportContext) -> Result<Vec<ForeignEvent>, Failure> {
    let Value::Array(events) = read_json(bytes)? else {
        return Err(Error::invalid_field("body", "must be a list of events").into());
    };
    context.app.intake.check_count(events.len())?;
    let read = |value: &Value| match value {
        Value::Object(attributes) => event(attributes, now),
        _ => ForeignEvent::unreadable("event", "must be an object"),
    };
    Ok(events.iter().map(read).collect())
}

/// The attributes of an event in binary mode: its headers, and the body as `data`.
fn binary(head: &Head, content_type: &str, bytes: &Bytes) -> Result<Map<String, Value>, Failure> {
    let headers = head.headers.iter().filter_map(|(name, value)| {
        let name = name.as_str().strip_prefix(HEADER_PREFIX)?;
        let value = value.to_str().ok()?;
        // HTTP protocol binding, 3.1.3.2.
        let decoded = percent_decode_str(value).decode_utf8_lossy();
        Some((name.to_owned(), Value::from(decoded.into_owned())))
    });
    let mut attributes: Map<String, Value> = headers.collect();
    if !attributes.contains_key("specversion") {
        let message = "must be application/cloudevents+json or application/cloudevents-batch+json, or the headers \
             ce-id, ce-source, ce-type and ce-specversion must be given";
        return Err(Error::invalid_field("Content-Type", message).into());
    }
    let is_json = content_type.is_empty() || content_type.ends_with("/json") || content_type.ends_with("+json");
    if bytes.is_empty() {
    } else if is_json {
        attributes.insert("data".to_owned(), read_json(bytes)?);
    } else if let Ok(text) = str::from_utf8(bytes) {
        attributes.insert("data".to_owned(), Value::from(text));
    } else {
        attributes.insert("data_base64".to_owned(), Value::from(BASE64_STANDARD.encode(bytes)));
    }
    Ok(attributes)
}

/// The event that these attributes are.
fn event(attributes: &Map<String, Value>, now: Timestamp) -> ForeignEvent {
    let mut event = ForeignEvent::default();
    let faults = &mut event.faults;
    if attributes.get("specversion").and_then(Value::as_str) != Some("1.0") {
        faults.push(FieldError::new("specversion", "must be 1.0"));
    }
    let [id, source, name] = ["id", "source", "type"].map(|attribute| {
        let text = text_of(attributes, attribute, faults);
        if text.is_empty() && !faults.iter().any(|fault| fault.field == attribute) {
            faults.push(FieldError::new(attribute, "is required"));
        }
        text
    });
    let (subject, user_id) = (text_of(attributes, "subject", faults), text_of(attributes, "userid", faults));
    event.seq = sequence(attributes, faults);
    event.campaign_id = text_of(attributes, "campaignid", faults);
    event.creative_id = text_of(attributes, "creativeid", faults);
    event.event_id = event_id(&id, &source);
    event.user_id = if user_id.is_empty() { subject } else { user_id };
    event.source = source;
    let mut properties = properties(attributes);
    event.set_name(&name, &mut properties);
    event.set_time("time", attributes.get("time"), now);
    event.set_properties(properties);
    event
}

/// The identity: `id` and `source` as they are where they can be told apart in it.
fn event_id(id: &str, source: &str) -> String {
    let readable = format!("{id}@{source}");
    let is_good = !id.contains('@') && !readable.chars().any(char::is_control);
    if is_good && readable.len() <= READABLE_ID_BYTES_MAX {
        return readable;
    }
    id_of(format!("{}:{source}{id}", source.len()).as_bytes())
}

fn sequence(attributes: &Map<String, Value>, faults: &mut Vec<FieldError>) -> u64 {
    let text = text_of(attributes, "sequence", faults);
    if text.is_empty() {
        return 0;
    }
    text.parse().unwrap_or_else(|_| {
        faults.push(FieldError::new("sequence", "must be a whole number from 0 to 18446744073709551615"));
        0
    })
}

/// `data` where it is an object, else an object that holds it; and the extensions that are not known.
fn properties(attributes: &Map<String, Value>) -> Map<String, Value> {
    let mut properties = match attributes.get("data") {
        Some(Value::Object(data)) => data.clone(),
        Some(Value::Null) | None => Map::new(),
        Some(data) => Map::from_iter([("data".to_owned(), data.clone())]),
    };
    if let Some(data) = attributes.get("data_base64") {
        properties.entry("data_base64").or_insert_with(|| data.clone());
    }
    for (name, value) in attributes.iter().filter(|(name, _)| !KNOWN.contains(&name.as_str())) {
        properties.entry(name).or_insert_with(|| value.clone());
    }
    properties
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_770_757_800_000);

    #[test]
    fn source_and_id_are_the_identity() {
        assert_eq!(event_id("1", "/shop"), "1@/shop");
        assert_ne!(event_id("a@b", "c"), event_id("a", "b@c"));
        assert_eq!(event_id(&"x".repeat(200), "/shop").len(), 32);
    }

    #[test]
    fn attributes_become_the_fields_of_an_event() {
        let attributes = json!({
            "specversion": "1.0", "id": "7", "source": "/shop", "type": "com.example.sold", "subject": "ann",
            "time": "2026-02-10T21:10:00Z", "sequence": "3", "campaignid": "c", "tenant": "x", "data": { "total": 1 },
        });
        let event = event(attributes.as_object().expect("an object"), NOW);
        assert!(event.faults.is_empty(), "{:?}", event.faults);
        let found = (&*event.event_id, &*event.event_type, &*event.user_id, &*event.source, event.seq);
        assert_eq!(found, ("7@/shop", "com.example.sold", "ann", "/shop", 3));
        assert!(format!("{:?}", event.properties).contains(r#"{\"tenant\":\"x\",\"total\":1}"#));
    }

    #[test]
    fn what_is_missing_is_named() {
        let event = event(&Map::new(), NOW);
        let fields: Vec<&str> = event.faults.iter().map(|fault| &*fault.field).collect();
        assert_eq!(fields, ["specversion", "id", "source", "type"]);
    }

    #[test]
    fn headers_are_attributes_in_binary_mode() {
        let pairs = [("ce-specversion", "1.0"), ("ce-id", "a%20b"), ("ce-source", "/s?a=b"), ("ce-type", "t")];
        let headers = pairs.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let head = Head { headers: HeaderMap::from_iter(headers), uri: "/".parse().expect("a URI"), now: NOW };
        let check = |content_type: &str, body: &'static [u8], name: &str, expected: Value| {
            let read = binary(&head, content_type, &Bytes::from_static(body)).expect("attributes");
            assert_eq!((&read["id"], &read["source"]), (&json!("a b"), &json!("/s?a=b")));
            assert_eq!(read.get(name), Some(&expected));
        };
        check("application/json", b"{\"a\":1}", "data", json!({ "a": 1 }));
        check("text/plain", b"hello", "data", json!("hello"));
        check("application/octet-stream", &[0xff], "data_base64", json!("/w=="));
    }

    proptest! {
        #[test]
        fn two_pairs_of_id_and_source_have_two_identities(
            a in ("[a@:1]{1,4}", "[a@:1]{1,4}"), b in ("[a@:1]{1,4}", "[a@:1]{1,4}")
        ) {
            prop_assert_eq!(event_id(&a.0, &a.1) == event_id(&b.0, &b.1), a == b);
        }
    }
}
