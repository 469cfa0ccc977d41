//! Makes the log of accepted events a source of deliveries.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use tallyhouse_delivery::domain::{Event, Position};
use tallyhouse_delivery::source::{EventSource, SourceBatch, SourceError, SourcedEvent};

use crate::domain::OrgId;
use crate::ingest::row_reader::{RowFields, read_rows};
use crate::log::{LogPosition, LogReader, LogRows};

/// Reads one organization's events.
pub struct LogSource {
    reader: Arc<dyn LogReader>,
    org_id: OrgId,
}

impl LogSource {
    /// Through this reader, which is nobody else's.
    pub fn new(reader: Arc<dyn LogReader>, org_id: OrgId) -> Self {
        Self { reader, org_id }
    }
}

#[async_trait]
impl EventSource for LogSource {
    async fn read(&self, from: Position, events_max: usize) -> Result<SourceBatch, SourceError> {
        let mut changes = self.reader.changes();
        let position = LogPosition { segment: from.segment, row: from.row };
        loop {
            changes.mark_unchanged();
            let (reader, org_id) = (Arc::clone(&self.reader), self.org_id.clone());
            let read = move || -> io::Result<Option<SourceBatch>> {
                Ok(reader.read(position, events_max as u64)?.map(|rows| decode(&rows, &org_id)))
            };
            let read = tokio::task::spawn_blocking(read).await.map_err(|error| SourceError(error.to_string()))?;
            match read.map_err(|error| SourceError(error.to_string()))? {
                Some(batch) => return Ok(batch),
                None => changes.changed().await.map_err(|error| SourceError(error.to_string()))?,
            }
        }
    }

    fn release(&self, position: Position) {
        self.reader.release(position.segment);
    }
}

/// The organization's events among some rows.
fn decode(rows: &LogRows, org_id: &OrgId) -> SourceBatch {
    let LogPosition { segment, row } = rows.first;
    let next = Position { segment: rows.next.segment, row: rows.next.row };
    let Some(read) = read_rows(&rows.columns, &rows.bytes) else {
        if rows.count > 0 {
            tracing::error!(columns = rows.columns, rows = rows.count, "another version's events are not delivered");
        }
        return SourceBatch { events: Vec::new(), next };
    };
    let skip = usize::try_from(rows.skip).unwrap_or(usize::MAX);
    let numbered = (row..).zip(read.skip(skip)).filter(|(_, fields)| fields.org_id == org_id.as_str());
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
        seq: fields.seq,
        properties: fields.properties.to_owned(),
    }
}
