//! The names of the keys in Redis, and the texts of their values.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::domain::Event;

/// The list of dead letters.
pub(super) const DEAD_LETTERS: &str = "dlq:list";
/// The hash of how many records each subscription has written.
pub(super) const COUNTS: &str = "tallyhouse:deliveries";

pub(super) fn event(id: &str) -> String {
    format!("event:{id}")
}

pub(super) fn dedup(id: &str) -> String {
    format!("dedup:{id}")
}

pub(super) fn in_flight(id: &str) -> String {
    format!("inflight:{id}")
}

pub(super) fn order(user_id: &str) -> String {
    format!("order:{user_id}")
}

pub(super) fn dead_letter(id: &str) -> String {
    format!("dlq:{id}")
}

/// The hash of a dead letter. The event with the id `list` has none: its key is that of the list.
pub(super) fn dead_letter_hash(id: &str) -> Option<String> {
    Some(dead_letter(id)).filter(|key| key != DEAD_LETTERS)
}

/// A seq as it is written: empty when there is none.
pub(super) fn seq(seq: u64) -> String {
    if seq == 0 { String::new() } else { seq.to_string() }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EventJson<'a> {
    event_id: &'a str,
    user_id: &'a str,
    r#type: &'a str,
    occurred_at_ms: i64,
    payload: Option<&'a RawValue>,
}

/// An event as JSON.
pub(super) fn event_json(event: &Event) -> String {
    let json = EventJson {
        event_id: &event.id,
        user_id: &event.user_id,
        r#type: &event.event_type,
        occurred_at_ms: event.occurred_at_ms,
        payload: serde_json::from_str(event.properties_json()).ok(),
    };
    serde_json::to_string(&json).unwrap_or_default()
}
