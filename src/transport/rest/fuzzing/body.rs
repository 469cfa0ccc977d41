//! The bodies of `POST /events` and `POST /api/v1/events`.

use axum::response::IntoResponse as _;
use serde_json::{Value, json};

use crate::domain::{Event, OrgId};
use crate::transport::fuzzing::{NOW, limits};
use crate::transport::rest::event_body::EventBody;
use crate::transport::rest::v1::batch::{self, Batch};
use crate::transport::rfc3339;

const FIELDS: [&str; 9] =
    ["event_id", "type", "campaign_id", "creative_id", "source", "occurred_at", "user_id", "metadata", "body"];

/// A body is an event or refused with the contract's error; and an event
/// written as JSON is the same event.
pub(crate) fn run(bytes: &[u8]) {
    run_batch(bytes);
    let org = OrgId::default_org();
    let body = match EventBody::read(bytes) {
        Ok(body) => body,
        Err(error) => return super::check_failure(error, &["body"]),
    };
    match Event::parse(&org, body.draft(limits().properties_bytes_max), &limits(), NOW) {
        Err(rejection) => {
            let faults = EventBody::faults(rejection.errors);
            super::check_failure(crate::domain::Error::invalid(faults), &FIELDS);
        }
        Ok(event) => {
            let written = written(&event).to_string();
            let again = EventBody::read(written.as_bytes()).expect("what was read can be written");
            let again = Event::parse(&org, again.draft(limits().properties_bytes_max), &limits(), NOW)
                .expect("and is as valid");
            assert_eq!(written, self::written(&again).to_string());
        }
    }
}

/// A body is at most a hundred events, each valid or at fault in fields that
/// the contract names; or it is refused.
fn run_batch(bytes: &[u8]) {
    let batch = match Batch::read(bytes) {
        Ok(batch) => batch,
        Err(failure) => {
            let status = failure.into_response().status();
            assert!(status == 400 || status == 422, "{status}");
            return;
        }
    };
    let org = OrgId::default_org();
    let drafts = batch.drafts(limits().properties_bytes_max);
    assert!((1..=100).contains(&drafts.len()));
    for draft in drafts {
        let Err(rejection) = Event::parse(&org, draft, &limits(), NOW) else { continue };
        let faults = batch::faults(&rejection.errors);
        assert!(!faults.is_empty());
        assert!(faults.iter().all(|fault| batch::FIELDS.contains(&super::field_of(&fault.field))), "{faults:?}");
    }
}

fn written(event: &Event<'_>) -> Value {
    let properties = event.properties();
    let metadata: Value =
        if properties.is_empty() { Value::Null } else { crate::json::parse(properties).expect("properties are JSON") };
    json!({
        "event_id": event.event_id(), "type": event.event_type(), "campaign_id": event.campaign_id(),
        "creative_id": event.creative_id(), "source": event.source(), "user_id": event.user_id(),
        "occurred_at": rfc3339::write(event.occurred_at()), "metadata": metadata,
    })
}

/// Events, good and bad.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let valid =
        r#""event_id":"e","type":"click","campaign_id":"c","source":"web","occurred_at":"2026-02-10T21:10:00Z""#;
    [
        format!("{{{valid}}}"),
        format!(
            " {{{valid},\"user_id\":null,\"creative_id\":\"\\u0075\",\"metadata\":{{\"a\":[1.50]}},\"x\":[{{}}]}} "
        ),
        "{}".to_owned(),
        "[\"e\",\"click\"]".to_owned(),
        r#"{"metadata":[1],"user_id":{"a":1},"occurred_at":1770757800,"source":true,"event_id":1e400}"#.to_owned(),
        "{\"metadata\":".repeat(300),
        r#"{"events":[{"event_id":"e","event_type":"x","timestamp":"2026-02-10T21:10:00Z","seq":7},{"properties":[]},5]}"#
            .to_owned(),
        r#"{"events":[{"event_id":"e","seq":-1,"seq":2},{"event_id":"\ud800"}],"org_id":null,"events2":[]}"#.to_owned(),
    ]
    .map(String::into_bytes)
    .to_vec()
}
