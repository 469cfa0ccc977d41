//! PostHog's capture API: `/batch/`, `/capture/`, `/e/`, `/i/v0/e/` and `/track/`, and what its library for browsers
//! asks before it sends anything.
//!
//! Source: PostHog's "Capture and batch API endpoints", and what its libraries send. The write key is `api_key` or
//! `token` in the body or in an event's properties. A body may be compressed by gzip as `Content-Encoding` or
//! `compression=gzip-js` in the query says, or be a form whose `data` is JSON in base64.

use axum::Json;
use axum::response::Response;
use axum::routing::{get, post};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{Format, Head, Reading, given, outcome, read_json, route};
use crate::domain::{Error, FieldError, Timestamp};
use crate::event_intake::BatchResults;
use crate::transport::auth::RequiredAccess;
use crate::transport::context::TransportContext;
use crate::transport::error::failure::Failure;
use crate::transport::foreign_event::{ForeignEvent, made_id, object_of, text_of};
use crate::transport::rest::auth_layer::Routes;
use crate::transport::rest::body::decompress;
use crate::transport::rest::params::Params;

/// The first bytes of gzip data (RFC 1952).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

static CAPTURE: Format = Format { has_key_in_body: true, read, answer };

/// Adds every path, each with and without the slash at its end.
pub(super) fn add(routes: Routes) -> Routes {
    let paths = ["/batch", "/capture", "/e", "/i/v0/e", "/track"];
    let routes = paths
        .into_iter()
        .fold(routes, |routes, path| route(route(routes, path, &CAPTURE), &format!("{path}/"), &CAPTURE));
    // There are no feature flags and nothing to configure. Libraries ask all the same, and send nothing before.
    let asked = ["/flags", "/flags/", "/decide", "/decide/"];
    let routes = asked
        .into_iter()
        .fold(routes, |routes, path| routes.route(path, RequiredAccess::Nothing, post(async || Json(no_flags()))));
    routes.route("/array/{token}/config", RequiredAccess::Nothing, get(async || Json(no_flags())))
}

fn no_flags() -> Value {
    json!({
        "flags": {}, "featureFlags": {}, "featureFlagPayloads": {}, "errorsWhileComputingFlags": false,
        "hasFeatureFlags": false, "supportedCompression": ["gzip", "gzip-js"], "sessionRecording": false,
        "surveys": false, "heatmaps": false, "capturePerformance": false, "autocapture_opt_out": false,
        "isAuthenticated": false, "siteApps": [], "toolbarParams": {},
    })
}

fn answer(_: &Head, results: &BatchResults) -> Response {
    outcome::answer(results, &json!({ "status": 1 }))
}

fn read(head: &Head, bytes: &Bytes, context: &TransportContext) -> Result<Reading, Failure> {
    let body = decode(head, bytes, context.app.config.body_bytes_max)?;
    let (members, messages) = match body {
        Value::Array(messages) => (Map::new(), messages),
        Value::Object(mut members) => match members.remove("batch").or_else(|| members.remove("data")) {
            Some(Value::Array(messages)) => (members, messages),
            Some(_) => return Err(Error::invalid_field("batch", "must be a list of events").into()),
            None => (Map::new(), vec![Value::Object(members)]),
        },
        _ => return Err(Error::invalid_field("body", "must be a JSON object or a list of events").into()),
    };
    context.app.intake.check_count(messages.len())?;
    let events = messages.iter().map(|message| match message {
        Value::Object(members) => event(members, head.now),
        _ => ForeignEvent::unreadable("event", "must be an object"),
    });
    let key = key_of(&members).or_else(|| messages.iter().filter_map(Value::as_object).find_map(key_of));
    Ok(Reading::new(events.collect(), key))
}

/// The key that an object holds, or its properties.
fn key_of(members: &Map<String, Value>) -> Option<String> {
    let held = |members: &Map<String, Value>| {
        let key = members.get("api_key").or_else(|| members.get("token"));
        key.and_then(Value::as_str).map(str::to_owned)
    };
    held(members).or_else(|| members.get("properties").and_then(Value::as_object).and_then(held))
}

/// The JSON of a body, however it is packed.
fn decode(head: &Head, bytes: &Bytes, bytes_max: usize) -> Result<Value, Failure> {
    if bytes.starts_with(&GZIP_MAGIC) {
        return read_json(&decompress(bytes, bytes_max)?);
    }
    if let Some(data) = form_data(bytes) {
        let mut params = Params::read(&head.uri);
        let is_base64 = params.all("compression").iter().any(|compression| compression == "base64");
        let decoded = BASE64_STANDARD.decode(data.replace(' ', "+"));
        return match decoded {
            Ok(decoded) if is_base64 || !data.starts_with(['{', '[']) => read_json(&decoded),
            Err(_) if is_base64 => Err(Error::invalid_field("data", "must be base64").into()),
            _ => read_json(data.as_bytes()),
        };
    }
    read_json(bytes)
}

/// The field `data` of a form.
fn form_data(bytes: &Bytes) -> Option<String> {
    let is_form = bytes.starts_with(b"data=");
    let mut fields = form_urlencoded::parse(bytes);
    fields.find(|(name, _)| is_form && name == "data").map(|(_, value)| value.into_owned())
}

/// The event that a message is.
fn event(message: &Map<String, Value>, now: Timestamp) -> ForeignEvent {
    let mut event = ForeignEvent::default();
    let faults = &mut event.faults;
    let (name, event_id) = (text_of(message, "event", faults), text_of(message, "uuid", faults));
    let distinct_id = text_of(message, "distinct_id", faults);
    let mut properties = object_of(message, "properties", faults);
    // The key is not a property; libraries for browsers put it there.
    properties.remove("token");
    let of_properties = |name: &str| properties.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (insert_id, distinct_within) = (of_properties("$insert_id"), of_properties("distinct_id"));
    if name.is_empty() {
        faults.push(FieldError::new("event", "is required"));
    }
    event.set_name(&name, &mut properties);
    for member in ["$set", "$set_once", "$groups"] {
        if let Some(value) = given(message, member) {
            properties.entry(member).or_insert_with(|| value.clone());
        }
    }
    let time = given(message, "timestamp");
    event.event_id = match (event_id, insert_id) {
        (id, _) if !id.is_empty() => id,
        (_, id) if !id.is_empty() => id,
        _ => made_id(&content(message), time.is_some()),
    };
    event.user_id = if distinct_id.is_empty() { distinct_within } else { distinct_id };
    event.set_time("timestamp", time, now);
    event.set_properties(properties);
    event
}

/// What is the same each time a message is sent.
fn content(message: &Map<String, Value>) -> Value {
    let of_sending = ["sent_at", "api_key", "offset"];
    let kept = message.iter().filter(|(name, _)| !of_sending.contains(&name.as_str()));
    Value::Object(kept.map(|(name, value)| (name.clone(), value.clone())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_770_757_800_000);

    fn head(uri: &str) -> Head {
        Head { headers: Default::default(), uri: uri.parse().expect("a URI"), now: NOW }
    }

    #[test]
    fn a_capture_is_an_event_of_its_name() {
        let message = json!({
            "event": "$pageview", "uuid": "0199c2f0-7d6c-7a51-9d2b-6a4f3c1e8b77", "distinct_id": "ann",
            "timestamp": "2026-02-10T21:10:00+00:00", "properties": { "token": "thw_x", "$current_url": "/" },
        });
        let event = event(message.as_object().expect("an object"), NOW);
        assert!(event.faults.is_empty(), "{:?}", event.faults);
        assert_eq!((&*event.event_type, &*event.user_id, event.occurred_at), ("_pageview", "ann", Some(NOW)));
        assert_eq!(event.event_id, "0199c2f0-7d6c-7a51-9d2b-6a4f3c1e8b77");
        let draft = event.draft();
        let text = format!("{:?}", draft.properties);
        assert!(text.contains("$current_url") && !text.contains("thw_x"), "{text}");
    }

    #[test]
    fn a_body_is_read_however_it_is_packed() {
        let text = br#"[{"event":"a"}]"#;
        let check = |uri: &str, body: Vec<u8>| {
            let read = decode(&head(uri), &body.into(), 1 << 20).ok();
            assert_eq!(read, Some(json!([{ "event": "a" }])), "{uri}");
        };
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, text).expect("memory");
        check("/e/", text.to_vec());
        check("/e/?compression=gzip-js", gzip.finish().expect("memory"));
        let base64 = BASE64_STANDARD.encode(text);
        let escaped: String = form_urlencoded::byte_serialize(base64.as_bytes()).collect();
        check("/e/?compression=base64", format!("data={escaped}").into_bytes());
        check("/e/", format!("data={escaped}").into_bytes());
        let plain: String = form_urlencoded::byte_serialize(text).collect();
        check("/e/", format!("data={plain}").into_bytes());
    }

    #[test]
    fn the_key_is_found_wherever_libraries_put_it() {
        let check = |body: Value| assert_eq!(key_of(body.as_object().expect("an object")).as_deref(), Some("k"));
        check(json!({ "api_key": "k" }));
        check(json!({ "token": "k" }));
        check(json!({ "properties": { "token": "k" } }));
    }
}
