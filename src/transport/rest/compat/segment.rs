//! Segment's tracking API: `/v1/batch`, `/v1/track`, `/v1/identify`, `/v1/page`, `/v1/screen`, `/v1/group`,
//! `/v1/alias`, and the short names that its library for browsers uses.
//!
//! Source: Segment's "HTTP Tracking API" and "Spec: Common Fields". The write key is the user name of Basic
//! authentication, or `writeKey` in the body.

use axum::response::Response;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{Format, Head, Reading, given, outcome, route};
#[cfg(test)]
use crate::domain::PropertiesDraft;
use crate::domain::{Error, FieldError, Timestamp};
use crate::event_intake::BatchResults;
use crate::transport::context::TransportContext;
use crate::transport::error::failure::Failure;
use crate::transport::foreign_event::{ForeignEvent, made_id, object_of, text_of};
use crate::transport::rest::auth_layer::Routes;

/// The members that differ each time a message is sent.
const OF_SENDING: [&str; 4] = ["sentAt", "receivedAt", "writeKey", "_metadata"];

/// Adds every path.
pub(super) fn add(routes: Routes) -> Routes {
    let of_batches = ["/v1/batch", "/v1/b", "/v1/import"];
    let routes = of_batches.into_iter().fold(routes, |routes, path| route(routes, path, &BATCH));
    let single: [(&[&str], &'static Format); 6] = [
        (&["/v1/track", "/v1/t"], &TRACK),
        (&["/v1/identify", "/v1/i"], &IDENTIFY),
        (&["/v1/page", "/v1/p"], &PAGE),
        (&["/v1/screen", "/v1/s"], &SCREEN),
        (&["/v1/group", "/v1/g"], &GROUP),
        (&["/v1/alias", "/v1/a"], &ALIAS),
    ];
    single
        .into_iter()
        .fold(routes, |routes, (paths, format)| paths.iter().fold(routes, |routes, path| route(routes, path, format)))
}

static BATCH: Format = Format { has_key_in_body: true, read: read_batch, answer };
static TRACK: Format = single(|head, bytes, _| read_one(head, bytes, "track"));
static IDENTIFY: Format = single(|head, bytes, _| read_one(head, bytes, "identify"));
static PAGE: Format = single(|head, bytes, _| read_one(head, bytes, "page"));
static SCREEN: Format = single(|head, bytes, _| read_one(head, bytes, "screen"));
static GROUP: Format = single(|head, bytes, _| read_one(head, bytes, "group"));
static ALIAS: Format = single(|head, bytes, _| read_one(head, bytes, "alias"));

/// The format of requests that are one message each.
const fn single(read: fn(&Head, &Bytes, &TransportContext) -> Result<Reading, Failure>) -> Format {
    Format { has_key_in_body: true, read, answer }
}

fn answer(_: &Head, results: &BatchResults) -> Response {
    outcome::answer(results, &json!({ "success": true }))
}

fn read_batch(head: &Head, bytes: &Bytes, context: &TransportContext) -> Result<Reading, Failure> {
    let body = super::read_object(bytes)?;
    let Some(Value::Array(messages)) = body.get("batch") else {
        return Err(Error::invalid_field("batch", "must be a list of messages").into());
    };
    context.app.intake.check_count(messages.len())?;
    let events = messages.iter().map(|message| match message {
        Value::Object(members) => {
            let kind = members.get("type").and_then(Value::as_str).unwrap_or_default();
            event(members, kind, head.now)
        }
        _ => ForeignEvent::unreadable("event", "must be an object"),
    });
    let of_messages = || messages.iter().find_map(key_of_message);
    let key = body.get("writeKey").and_then(Value::as_str).map(str::to_owned).or_else(of_messages);
    Ok(Reading::new(events.collect(), key))
}

fn key_of_message(message: &Value) -> Option<String> {
    message.get("writeKey").and_then(Value::as_str).map(str::to_owned)
}

fn read_one(head: &Head, bytes: &Bytes, kind: &str) -> Result<Reading, Failure> {
    let body = super::read_object(bytes)?;
    let key = body.get("writeKey").and_then(Value::as_str).map(str::to_owned);
    Ok(Reading::new(vec![event(&body, kind, head.now)], key))
}

/// The event that a message of this kind is.
fn event(message: &Map<String, Value>, kind: &str, now: Timestamp) -> ForeignEvent {
    let mut event = ForeignEvent::default();
    let faults = &mut event.faults;
    let event_id = text_of(message, "messageId", faults);
    let (user_id, anonymous_id) = (text_of(message, "userId", faults), text_of(message, "anonymousId", faults));
    let (name, title) = (text_of(message, "event", faults), text_of(message, "name", faults));
    let mut properties = object_of(message, "properties", faults);
    properties.extend(object_of(message, "traits", faults));
    for (member, property) in [("context", "context"), ("groupId", "group_id"), ("previousId", "previous_id")] {
        if let Some(value) = given(message, member) {
            properties.entry(property).or_insert_with(|| value.clone());
        }
    }
    if !anonymous_id.is_empty() && !user_id.is_empty() {
        properties.entry("anonymous_id").or_insert_with(|| Value::from(anonymous_id.clone()));
    }
    if !title.is_empty() {
        properties.entry("name").or_insert_with(|| Value::from(title));
    }
    match kind {
        "track" => {
            if name.is_empty() {
                faults.push(FieldError::new("event", "is required"));
            }
            event.set_name(&name, &mut properties);
        }
        "identify" | "page" | "screen" | "group" | "alias" => event.event_type = kind.to_owned(),
        _ => {
            let expected = "must be track, identify, page, screen, group or alias";
            faults.push(FieldError::new("type", expected));
        }
    }
    let time = given(message, "timestamp").or_else(|| given(message, "originalTimestamp"));
    event.event_id = if event_id.is_empty() { made_id(&content(message), time.is_some()) } else { event_id };
    event.user_id = if user_id.is_empty() { anonymous_id } else { user_id };
    event.set_time("timestamp", time, now);
    event.set_properties(properties);
    event
}

/// What is the same each time a message is sent.
fn content(message: &Map<String, Value>) -> Value {
    let kept = message.iter().filter(|(name, _)| !OF_SENDING.contains(&name.as_str()));
    Value::Object(kept.map(|(name, value)| (name.clone(), value.clone())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_770_757_800_000);

    fn event_of(message: &Value) -> ForeignEvent {
        let kind = message["type"].as_str().unwrap_or("track");
        event(message.as_object().expect("an object"), kind, NOW)
    }

    fn properties(event: &ForeignEvent) -> String {
        match &event.draft().properties {
            PropertiesDraft::None => String::new(),
            PropertiesDraft::Canonical(text) => text.to_string(),
        }
    }

    #[test]
    fn a_track_call_is_an_event_of_its_name() {
        let event = event_of(&json!({
            "type": "track", "messageId": "m1", "userId": "ann", "anonymousId": "a1", "event": "Order Completed",
            "properties": { "total": 5 }, "timestamp": "2026-02-10T21:10:00.000Z", "sentAt": "2026-02-10T21:11:00Z",
        }));
        assert!(event.faults.is_empty(), "{:?}", event.faults);
        let found = (&*event.event_id, &*event.event_type, &*event.user_id, event.occurred_at);
        assert_eq!(found, ("m1", "Order_Completed", "ann", Some(NOW)));
        let expected = r#"{"anonymous_id":"a1","event_name":"Order Completed","total":5}"#;
        assert_eq!(properties(&event), expected);
    }

    #[test]
    fn other_calls_are_events_of_their_kind() {
        for kind in ["identify", "page", "screen", "group", "alias"] {
            let event = event_of(&json!({ "type": kind, "messageId": "m", "anonymousId": "a", "traits": { "x": 1 } }));
            assert_eq!((&*event.event_type, &*event.user_id), (kind, "a"));
            assert_eq!(properties(&event), r#"{"x":1}"#);
            assert_eq!(event.occurred_at, Some(NOW), "none was sent");
        }
    }

    #[test]
    fn what_is_wrong_is_named_as_segment_names_it() {
        let check = |message: Value, expected: &[&str]| {
            let event = event_of(&message);
            let fields: Vec<&str> = event.faults.iter().map(|fault| &*fault.field).collect();
            assert_eq!(fields, expected, "{message}");
        };
        check(json!({ "type": "track", "messageId": "m" }), &["event"]);
        check(json!({ "type": "dance", "messageId": "m" }), &["type"]);
        check(
            json!({ "type": "page", "messageId": [], "properties": 5, "timestamp": 7 }),
            &["messageId", "properties", "timestamp"],
        );
    }

    #[test]
    fn a_message_without_an_id_is_the_same_event_when_it_is_sent_again() {
        let sent = |at: &str| {
            let message = json!({ "event": "a", "userId": "u", "timestamp": "2026-02-10T21:10:00Z", "sentAt": at });
            event_of(&message).event_id
        };
        assert_eq!(sent("2026-02-10T21:10:01Z"), sent("2026-02-10T21:20:00Z"));
    }

    #[test]
    fn a_time_that_is_null_is_none() {
        let message = json!({ "event": "a", "userId": "u", "timestamp": null });
        assert_ne!(event_of(&message).event_id, event_of(&message).event_id, "it may have happened twice");
        let message = json!({ "event": "a", "timestamp": null, "originalTimestamp": "2026-02-10T21:00:00Z" });
        assert_ne!(event_of(&message).occurred_at, Some(NOW));
    }
}
