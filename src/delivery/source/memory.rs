//! A source in memory, for tests and benchmarks. It outlives the engines that read it.

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{EventSource, SourceBatch, SourceError, SourcedEvent};
use crate::domain::{Event, Position};

/// A source of events in memory, for tests and benchmarks. It outlives the engines that read it.
pub struct MemorySource {
    events: watch::Sender<Vec<Event>>,
    released: Mutex<Position>,
}

impl Default for MemorySource {
    fn default() -> Self {
        Self { events: watch::Sender::new(Vec::new()), released: Mutex::default() }
    }
}

impl MemorySource {
    /// Events arrive.
    pub fn push(&self, events: impl IntoIterator<Item = Event>) {
        self.events.send_modify(|all| all.extend(events));
    }

    /// Up to where all subscribers have read for good.
    pub fn released(&self) -> Position {
        *self.released.lock()
    }
}

#[async_trait]
impl EventSource for MemorySource {
    async fn read(&self, from: Position, events_max: usize) -> Result<SourceBatch, SourceError> {
        let mut changes = self.events.subscribe();
        let start = usize::try_from(from.row).unwrap_or(usize::MAX);
        let all = changes.wait_for(|events| events.len() > start).await;
        let all = all.map_err(|error| SourceError(error.to_string()))?;
        let some = all.iter().enumerate().skip(start).take(events_max);
        let events: Vec<_> = some
            .map(|(row, event)| SourcedEvent {
                position: Position { segment: 1, row: row as u64 },
                event: Some(event.clone()),
            })
            .collect();
        let next = Position { segment: 1, row: (start + events.len()) as u64 };
        Ok(SourceBatch { events, next })
    }

    fn release(&self, position: Position) {
        let mut released = self.released.lock();
        *released = (*released).max(position);
    }
}
