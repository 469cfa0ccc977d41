//! The states of events and the progress of a subscription.

use serde::{Deserialize, Serialize};

use super::{Gaps, Position};

/// How an event ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinalOutcome {
    /// The handler handled it.
    Processed,
    /// It is a dead letter, or was one and was discarded.
    Failed,
}

/// The record of an event that ended. Written once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    /// The event's id.
    pub event_id: String,
    /// Its user.
    pub user_id: String,
    /// Its type.
    pub event_type: String,
    /// Its seq; 0 when it has none.
    pub seq: u64,
    /// How it ended.
    pub outcome: FinalOutcome,
    /// When, in milliseconds since 1970.
    pub processed_at_ms: u64,
    /// How often the handler was called, as far as its answers were recorded.
    pub attempts: u32,
    /// Why it failed; empty when it did not.
    pub error: String,
}

/// Where an event is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventState {
    /// It waits for its turn, or for the time of its next attempt.
    Pending,
    /// It came before its turn.
    Buffered {
        /// The seq that its user's lane waits for.
        waiting_for_seq: u64,
    },
    /// The handler has it.
    InFlight,
    /// It has ended.
    Settled(Settlement),
}

/// An event's state, with what the engine knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventStatus {
    /// The event's id.
    pub event_id: String,
    /// Its user.
    pub user_id: String,
    /// Its type.
    pub event_type: String,
    /// Its seq; 0 when it has none.
    pub seq: u64,
    /// Where it is.
    pub state: EventState,
    /// Attempts so far.
    pub attempts: u32,
    /// What the handler said to the last attempt; empty when nothing.
    pub error: String,
}

/// How a subscription is getting on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionStatus {
    /// Whether it is paused.
    pub is_paused: bool,
    /// Why its handler cannot be called; empty when it can.
    pub handler_error: String,
    /// Events that were read and have not ended.
    pub waiting: u64,
    /// Those of them that came before their turn.
    pub buffered: u64,
    /// Those of them that the handler has.
    pub in_flight: u64,
    /// Those of them that are tried again later.
    pub retrying: u64,
    /// Users with such events.
    pub users: u64,
    /// Age of the oldest of them, in milliseconds since it was accepted (since it was read, where that is unknown).
    pub oldest_ms: u64,
    /// The oldest of them.
    pub oldest: Option<OldestEvent>,
    /// Events that the handler has handled since the start of the service.
    pub processed: u64,
    /// Events that were given up since then.
    pub failed: u64,
    /// Attempts that failed since then.
    pub retries: u64,
    /// Gaps that were given up since then, because of the gap policy or a bound.
    pub skipped: u64,
    /// Dead letters that are kept.
    pub dead_letters: u64,
    /// Whether the engine waits for room before it reads on.
    pub is_full: bool,
    /// Up to where the source was read.
    pub read_to: Position,
    /// Pieces of the source that were deleted before they were read: events of theirs are lost for the subscription.
    pub missed: u64,
    /// Those of them that were deleted since the start of the service.
    pub missed_since_start: u64,
    /// While events are read that were stored before the subscription was created: up to which time of acceptance, in
    /// milliseconds since 1970.
    pub catching_up_ms: Option<u64>,
}

/// The event that has waited longest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OldestEvent {
    /// Its id.
    pub event_id: String,
    /// Its user.
    pub user_id: String,
    /// Its seq; 0 when it has none.
    pub seq: u64,
}

/// How a user's lane is getting on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserStatus {
    /// The seq whose turn it is.
    pub next_seq: u64,
    /// Events that wait, early ones included.
    pub waiting: u64,
    /// The lowest seq that came before its turn; 0 when none did.
    pub lowest_buffered_seq: u64,
    /// The missing seqs.
    pub gaps: Gaps,
    /// Whether the user is paused.
    pub is_paused: bool,
}
