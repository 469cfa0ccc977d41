//! The port through which an engine reads events, so that it depends neither on the service's log nor on a broker.
//!
//! A source is an ordered, durable sequence of accepted events. Each has a [`Position`] that never changes. A Kafka
//! partition is a source too: the position is the offset.

mod memory;

use async_trait::async_trait;

pub use memory::MemorySource;

use crate::domain::{Event, Position};

/// An event with its position. There is none where the row is of no interest: its position counts all the same.
#[derive(Clone, Debug)]
pub struct SourcedEvent {
    /// Where it is.
    pub position: Position,
    /// The event; none when it belongs to another organization or cannot be read.
    pub event: Option<Event>,
}

/// Some events in a row.
#[derive(Clone, Debug)]
pub struct SourceBatch {
    /// The events, in rising order of their positions.
    pub events: Vec<SourcedEvent>,
    /// Where to read on: no event will ever be between the last one and this.
    pub next: Position,
}

/// The source cannot be read just now.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the source of events cannot be read: {0}")]
pub struct SourceError(pub String);

/// A source of accepted events.
#[async_trait]
pub trait EventSource: Send + Sync + 'static {
    /// Reads at most `events_max` events at or after `from`. Waits until there is one, or until there is a later
    /// `next` to report.
    ///
    /// # Errors
    /// When it cannot be read just now; the engine tries again.
    async fn read(&self, from: Position, events_max: usize) -> Result<SourceBatch, SourceError>;

    /// This subscription will not read anything before `position` again: the source may delete it once ClickHouse has
    /// it and all others have said so.
    fn release(&self, position: Position);

    /// How many pieces of the source were deleted before this subscription had read them, since the source was opened.
    fn missed(&self) -> u64 {
        0
    }

    /// Whether the read that is under way has found nothing left, and waits for more to arrive. Users wait for missing seqs
    /// at least until then. A source that cannot tell says yes.
    fn is_at_end(&self) -> bool {
        true
    }

    /// While it reads what was stored before the subscription was created: up to which time of acceptance that was read, in
    /// milliseconds since 1970.
    fn catching_up_ms(&self) -> Option<u64> {
        None
    }
}
