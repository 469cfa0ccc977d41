//! Events in the formats of other systems, translated.
//!
//! Every format has its own names for an event's id, type, user and time. What they have in common is here: a name
//! becomes a type, and an event without an id gets one from its content, so that the same event sent again counts once.

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{properties, rfc3339};
use crate::domain::{EventDraft, FieldError, PropertiesDraft, Timestamp};

/// Longest type that is made of a name, in bytes: what [`crate::config::Config`] allows by default.
const TYPE_BYTES_MAX: usize = 64;
/// Characters of a digest that tell apart two names that would become one type.
const TYPE_DIGEST_CHARS: usize = 8;
/// Characters of an id that is made of an event's content: 128 bits.
const ID_DIGEST_CHARS: usize = 32;

/// An event of another system's format, in the service's terms.
#[derive(Debug, Default)]
pub(super) struct ForeignEvent {
    pub(super) event_id: String,
    pub(super) event_type: String,
    pub(super) user_id: String,
    pub(super) source: String,
    pub(super) campaign_id: String,
    pub(super) creative_id: String,
    pub(super) occurred_at: Option<Timestamp>,
    pub(super) seq: u64,
    pub(super) properties: PropertiesDraft<'static>,
    /// What could not be read, by the names that the format has.
    pub(super) faults: Vec<FieldError>,
}

impl ForeignEvent {
    /// What cannot be read at all.
    pub(super) fn unreadable(field: &str, message: impl Into<String>) -> Self {
        Self { faults: vec![FieldError::new(field, message)], ..Self::default() }
    }

    /// Sets the type by a name that people chose freely. A name that is no type as it is stays in the properties, as
    /// `event_name`.
    pub(super) fn set_name(&mut self, name: &str, properties: &mut Map<String, Value>) {
        self.event_type = type_of(name);
        if self.event_type != name && !name.is_empty() {
            properties.entry("event_name").or_insert_with(|| Value::from(name));
        }
    }

    /// Sets the properties, and names what cannot be kept of them.
    pub(super) fn set_properties(&mut self, properties: Map<String, Value>) {
        match properties::of_value("properties", &Value::Object(properties)) {
            Ok(draft) => self.properties = draft,
            Err(faults) => self.faults.extend(faults),
        }
    }

    /// Sets the time by a text; `now` where none was sent.
    pub(super) fn set_time(&mut self, field: &str, time: Option<&Value>, now: Timestamp) {
        self.occurred_at = match time {
            None | Some(Value::Null) => Some(now),
            Some(Value::String(text)) => rfc3339::parse_loosely(text),
            Some(_) => None,
        };
        if self.occurred_at.is_none() {
            self.faults.push(FieldError::new(field, rfc3339::EXPECTED));
        }
    }

    /// The event, to be judged.
    pub(super) fn draft(&self) -> EventDraft<'_> {
        EventDraft {
            event_id: &self.event_id,
            event_type: &self.event_type,
            campaign_id: &self.campaign_id,
            creative_id: &self.creative_id,
            source: &self.source,
            user_id: &self.user_id,
            occurred_at: self.occurred_at,
            seq: self.seq,
            properties: self.properties.clone(),
            unreadable: self.faults.clone(),
        }
    }
}

/// The type that a name becomes: other characters than letters, digits, `_`, `-`, `.` and `:` become `_`. Where that
/// would make two names one beyond such ASCII characters (letters of other scripts, or more than fit), the end of the
/// type is a digest of the whole name.
pub(super) fn type_of(name: &str) -> String {
    let is_kept = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':');
    let mapped: String = name.chars().map(|c| if is_kept(c) { c } else { '_' }).collect();
    if name.is_ascii() && mapped.len() <= TYPE_BYTES_MAX {
        return mapped;
    }
    let digest = &digest(name.as_bytes())[..TYPE_DIGEST_CHARS];
    let kept: String = mapped.chars().take(TYPE_BYTES_MAX - TYPE_DIGEST_CHARS - 1).collect();
    format!("{kept}-{digest}")
}

/// The id of an event that has none: made of its content when that says when it happened, so that it is the same each
/// time; else one that is never made again.
pub(super) fn made_id(content: &Value, has_time: bool) -> String {
    if has_time { id_of(content.to_string().as_bytes()) } else { Uuid::now_v7().to_string() }
}

/// An id that is the same for the same bytes.
pub(super) fn id_of(bytes: &[u8]) -> String {
    let mut digest = digest(bytes);
    digest.truncate(ID_DIGEST_CHARS);
    digest
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The text of a member; empty when it is left out or null. A number is taken as its digits.
pub(super) fn text_of(members: &Map<String, Value>, name: &str, faults: &mut Vec<FieldError>) -> String {
    match members.get(name) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(_) => {
            faults.push(FieldError::new(name, "must be a string"));
            String::new()
        }
    }
}

/// A member that is an object; empty when it is left out or null.
pub(super) fn object_of(members: &Map<String, Value>, name: &str, faults: &mut Vec<FieldError>) -> Map<String, Value> {
    match members.get(name) {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(object)) => object.clone(),
        Some(_) => {
            faults.push(FieldError::new(name, "must be an object"));
            Map::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_becomes_a_type_and_two_names_of_other_scripts_become_two() {
        let check = |name: &str, expected: &str| assert_eq!(type_of(name), expected, "{name}");
        check("click", "click");
        check("com.example.click:v1", "com.example.click:v1");
        check("Order Completed", "Order_Completed");
        check("$pageview", "_pageview");
        check("", "");
        assert_ne!(type_of("注册"), type_of("登录"));
        let long = "x".repeat(100);
        assert_eq!(type_of(&long).len(), 64);
        assert_ne!(type_of(&long), type_of(&format!("{long}y")));
    }

    #[test]
    fn an_event_without_an_id_has_the_same_each_time_if_it_has_a_time() {
        let event = serde_json::json!({ "event": "a", "timestamp": "2026-02-10T21:10:00Z" });
        assert_eq!(made_id(&event, true), made_id(&event, true));
        assert_ne!(made_id(&event, false), made_id(&event, false));
    }

    proptest! {
        #[test]
        fn every_name_becomes_a_type_that_is_taken(name in "\\PC{1,200}") {
            let event_type = type_of(&name);
            prop_assert!((1..=TYPE_BYTES_MAX).contains(&event_type.len()));
            let is_token = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':');
            prop_assert!(event_type.bytes().all(is_token));
        }
    }
}
