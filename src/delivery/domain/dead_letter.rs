//! Dead letters: events whose delivery was given up.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Event;

/// A dead letter's number in its subscription. Rises with each.
pub type LetterNumber = u64;

/// Why an event was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadLetterReason {
    /// The handler failed as often as it may.
    HandlerFailed,
    /// An event of the same user and seq was handled, was given up, or is waiting.
    SeqRepeated,
    /// Its seq was skipped before it came; or is so old that it is only known that such ones were.
    SeqLate,
}

impl DeadLetterReason {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HandlerFailed => "handler_failed",
            Self::SeqRepeated => "seq_repeated",
            Self::SeqLate => "seq_late",
        }
    }
}

/// An event that was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Its number.
    pub number: LetterNumber,
    /// The event.
    pub event: Arc<Event>,
    /// Why.
    pub reason: DeadLetterReason,
    /// What the handler said last, or what is wrong with the seq.
    pub error: String,
    /// How often the handler failed; 0 when it was never called.
    pub attempts: u32,
    /// When, in milliseconds since 1970.
    pub failed_at_ms: u64,
    /// Whether it has been replayed before.
    pub is_replay: bool,
}
