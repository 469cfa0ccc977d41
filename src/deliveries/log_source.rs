//! Makes the log of accepted events a source of deliveries.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use tallyhouse_delivery::domain::{Event, Position};
use tallyhouse_delivery::source::{EventSource, SourceBatch, SourceError, SourcedEvent};

use crate::domain::OrgId;
use crate::ingest::row_reader::{RowFields, read_rows};
use crate::log::{LogPosition, LogReader, LogRows};
use crate::trace;

/// Reads one organization's events.
pub struct LogSource {
    reader: Arc<dyn LogReader>,
    org_id: OrgId,
    /// Events that arrived before are left out.
    arrived_from: u64,
    /// What the reader had missed when this source was made.
    missed_before: u64,
    /// A read has found nothing left, and waits.
    is_waiting: AtomicBool,
}

/// Microseconds of a millisecond.
pub(super) const MICROS: u64 = 1_000;

impl LogSource {
    /// Through this reader, which no other source has: those that arrived at this time or later, in microseconds since
    /// 1970 (see [`crate::clock`]).
    pub fn new(reader: Arc<dyn LogReader>, org_id: OrgId, arrived_from: u64) -> Self {
        let missed_before = reader.missed();
        Self { reader, org_id, arrived_from, missed_before, is_waiting: AtomicBool::new(false) }
    }

    /// That does not tell of the first so many segments that its reader has missed.
    #[must_use]
    pub fn without_missed(self, missed_before: u64) -> Self {
        Self { missed_before, ..self }
    }
}

#[async_trait]
impl EventSource for LogSource {
    async fn read(&self, from: Position, events_max: usize) -> Result<SourceBatch, SourceError> {
        let mut changes = self.reader.changes();
        let position = LogPosition { segment: from.segment, row: from.row };
        loop {
            self.is_waiting.store(false, Ordering::Relaxed);
            changes.mark_unchanged();
            let (reader, org_id, arrived_from) = (Arc::clone(&self.reader), self.org_id.clone(), self.arrived_from);
            let read = move || -> io::Result<Option<SourceBatch>> {
                Ok(reader.read(position, events_max as u64)?.map(|rows| decode(&rows, &org_id, arrived_from)))
            };
            let read = tokio::task::spawn_blocking(read).await.map_err(|error| SourceError(error.to_string()))?;
            match read.map_err(|error| SourceError(error.to_string()))? {
                Some(batch) => return Ok(batch),
                None => {
                    self.is_waiting.store(true, Ordering::Relaxed);
                    changes.changed().await.map_err(|error| SourceError(error.to_string()))?;
                }
            }
        }
    }

    fn release(&self, position: Position) {
        self.reader.release(position.segment);
    }

    fn missed(&self) -> u64 {
        self.reader.missed().saturating_sub(self.missed_before)
    }

    fn is_at_end(&self) -> bool {
        self.is_waiting.load(Ordering::Relaxed)
    }
}

/// The organization's events among some rows, from a time on.
fn decode(rows: &LogRows, org_id: &OrgId, arrived_from: u64) -> SourceBatch {
    let LogPosition { segment, row } = rows.first;
    let next = Position { segment: rows.next.segment, row: rows.next.row };
    let Some(read) = read_rows(&rows.columns, &rows.bytes) else {
        if rows.count > 0 {
            tracing::error!(columns = rows.columns, rows = rows.count, "another version's events are not delivered");
        }
        return SourceBatch { events: Vec::new(), next };
    };
    let skip = usize::try_from(rows.skip).unwrap_or(usize::MAX);
    let is_meant = |fields: &RowFields<'_>| fields.org_id == org_id.as_str() && fields.arrival >= arrived_from;
    let numbered = (row..).zip(read.skip(skip)).filter(|(_, fields)| is_meant(fields));
    let events = numbered
        .map(|(row, fields)| SourcedEvent { position: Position { segment, row }, event: Some(event(&fields)) })
        .collect();
    SourceBatch { events, next }
}

fn event(fields: &RowFields<'_>) -> Event {
    Event {
        id: fields.event_id.to_owned(),
        event_type: fields.event_type.to_owned(),
        campaign_id: fields.campaign_id.to_owned(),
        creative_id: fields.creative_id.to_owned(),
        source: fields.source.to_owned(),
        user_id: fields.user_id.to_owned(),
        occurred_at_ms: fields.occurred_at_ms,
        accepted_at_ms: fields.arrival / MICROS,
        seq: fields.seq,
        properties: fields.properties.to_owned(),
        traceparent: trace::traceparent_of(fields.arrival).unwrap_or_default(),
    }
}
