//! The records of the store.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::{
    DeadLetter, Event, Gaps, LaneKey, LetterNumber, Position, Settlement, SubscriptionId, SubscriptionSettings,
};

/// From where the source is read again after a crash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Everything before has ended, or is in the store.
    pub resume: Position,
    /// The same of these ranges behind it, both ends included.
    pub settled: Vec<(Position, Position)>,
    /// How many pieces of the source were deleted before they were read.
    #[serde(default)]
    pub missed: u64,
}

/// Where a subscription that began in the past went over from stored events to the log. Each event is on one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutOver {
    /// Events with an arrival before this one were read from the store of events; arrivals rise as the service gives them.
    pub arrival: u64,
    /// The others are in the log at or behind this position.
    pub position: Position,
}

impl Cursor {
    /// Whether the event at this position has ended, or is in the store.
    pub fn is_settled(&self, position: Position) -> bool {
        let at = self.settled.partition_point(|(_, last)| *last < position);
        position < self.resume || self.settled.get(at).is_some_and(|(first, _)| *first <= position)
    }
}

/// What is known of a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneRecord {
    /// The seq whose turn it is.
    pub next_seq: u64,
    /// The missing seqs.
    #[serde(default)]
    pub gaps: Gaps,
    /// Those of them that were skipped before they came.
    #[serde(default)]
    pub skipped: Gaps,
    /// Whether the user is paused.
    #[serde(default)]
    pub is_paused: bool,
}

impl Default for LaneRecord {
    fn default() -> Self {
        Self { next_seq: 1, gaps: Gaps::default(), skipped: Gaps::default(), is_paused: false }
    }
}

/// An event that has not ended, and that the source need not keep for the subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredEvent {
    /// Where it is in the source. That of a replayed dead letter is before all others: its number in segment 0.
    pub position: Position,
    /// The event.
    pub event: Arc<Event>,
    /// Attempts that failed.
    pub attempts: u32,
    /// What the handler said to the last.
    pub error: String,
    /// Whether it was a dead letter and is replayed.
    pub is_replay: bool,
}

/// What happens to a dead letter.
#[derive(Clone, Debug)]
pub enum LetterChange {
    /// It is there.
    Put(DeadLetter),
    /// It is gone: replayed or discarded.
    Remove(LetterNumber),
}

/// A subscription as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubscriptionRecord {
    /// Its number.
    pub id: SubscriptionId,
    /// Its organization.
    pub org_id: String,
    /// Its name, unique in the organization.
    pub name: String,
    /// What it wants.
    pub settings: SubscriptionSettings,
    /// Its handler, as the service describes it.
    pub handler: String,
    /// Where it begins to read.
    pub start: Position,
    /// When it was created, in milliseconds since 1970.
    pub created_at_ms: u64,
}

/// What has happened in a subscription since the last commit.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// From where the source would be read again.
    pub cursor: Cursor,
    /// Lanes that have changed.
    pub lanes: Vec<(LaneKey, LaneRecord)>,
    /// Events that the store keeps from now on.
    pub stored: Vec<StoredEvent>,
    /// Those that have ended.
    pub removed: Vec<Position>,
    /// What happens to dead letters, in order.
    pub letters: Vec<LetterChange>,
    /// Records of how events ended, for subscriptions that keep them; none where the event has a newer one of these.
    pub settlements: Arc<Vec<Option<Settlement>>>,
    /// Events of these that had ended before, as those that were replayed: their older records go.
    pub settled_again: Vec<String>,
    /// Most such records that are kept; the oldest go.
    pub settlements_max: u64,
    /// The subscription, if it has changed.
    pub subscription: Option<Box<SubscriptionRecord>>,
    /// Users whose lanes, events and names are deleted, before anything else of the commit. Dead letters are not.
    pub erased: Vec<LaneKey>,
}
