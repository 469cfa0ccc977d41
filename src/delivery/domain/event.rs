//! Events as they are delivered, and their positions in the source.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A place in the source. Events are read in the order of their positions, and an event has the same position for ever.
///
/// In the log of the service, `segment` is the number of a segment's id, and `row` counts the rows in it from 0. In a
/// Kafka partition, `segment` would be the partition's epoch, and `row` the offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The piece of the source.
    pub segment: u128,
    /// The event's place in it.
    pub row: u64,
}

impl Position {
    /// Before everything.
    pub const START: Self = Self { segment: 0, row: 0 };
    /// After everything.
    pub const END: Self = Self { segment: u128::MAX, row: u64::MAX };

    /// The position after this one in the same segment.
    pub const fn next(self) -> Self {
        Self { segment: self.segment, row: self.row.saturating_add(1) }
    }
}

/// An accepted event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its id, unique in its organization.
    pub id: String,
    /// What happened.
    pub event_type: String,
    /// Its campaign; empty when none.
    pub campaign_id: String,
    /// Its creative; empty when none.
    pub creative_id: String,
    /// Where it comes from; empty when unknown.
    pub source: String,
    /// Its user; empty when none.
    pub user_id: String,
    /// When it happened, in milliseconds since 1970.
    pub occurred_at_ms: i64,
    /// When the service accepted it, in milliseconds since 1970; 0 when unknown.
    #[serde(default)]
    pub accepted_at_ms: u64,
    /// Its place among its user's events, from 1; 0 when it has none.
    pub seq: u64,
    /// The canonical text of one JSON object; empty when there are no properties.
    pub properties: String,
    /// The trace of the call that it was accepted with, as the header `traceparent` of W3C Trace Context; empty when that
    /// was not sampled, or is not known any more.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub traceparent: String,
}

impl Event {
    /// What it takes in memory, about, in bytes.
    pub const fn bytes(&self) -> usize {
        const FIXED_BYTES: usize = 256;
        FIXED_BYTES
            + self.id.len()
            + self.event_type.len()
            + self.campaign_id.len()
            + self.creative_id.len()
            + self.source.len()
            + self.user_id.len()
            + self.properties.len()
    }

    /// The properties as a JSON object.
    pub fn properties_json(&self) -> &str {
        if self.properties.is_empty() { "{}" } else { &self.properties }
    }
}

/// Which events wait for each other: those of a user. An event without a user waits for none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LaneKey(Arc<str>);

/// In front of an event's id: no user begins with it, since control characters are refused.
const ANONYMOUS: char = '\0';

impl LaneKey {
    /// The lane of an event.
    pub fn of(event: &Event) -> Self {
        match event.user_id.as_str() {
            "" => Self(format!("{ANONYMOUS}{}", event.id).into()),
            user => Self(user.into()),
        }
    }

    /// The lane of a user.
    pub fn of_user(user_id: &str) -> Self {
        Self(user_id.into())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is that of one event without a user.
    pub fn is_anonymous(&self) -> bool {
        self.0.starts_with(ANONYMOUS)
    }
}
