//! Reads stored events from the event store as whole rows.

use crate::event_row::{RowSpan, Rows};
use crate::event_store::{EventReading, EventStore, MinuteSet, StoreError};

/// Stored events on their way from the database.
pub(super) struct StoredRows {
    pieces: EventReading,
    /// The beginning of a row.
    rest: Vec<u8>,
}

impl StoredRows {
    /// Of these minutes.
    ///
    /// # Errors
    /// The database's.
    pub(super) async fn read(store: &dyn EventStore, minutes: &MinuteSet) -> Result<Self, StoreError> {
        Ok(Self { pieces: store.read(minutes).await?, rest: Vec::new() })
    }

    /// The next whole rows; none at the end.
    ///
    /// # Errors
    /// The database's, also when its answer ends within a row.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        while let Some(piece) = self.pieces.recv().await {
            let mut rows = std::mem::take(&mut self.rest);
            rows.extend_from_slice(&piece?);
            let mut whole = Rows::payloads(&rows);
            let mut end = 0;
            // What is no row is the beginning of one, or what ends the answer.
            while let Some(Ok(_)) = whole.next() {
                end = whole.position();
            }
            self.rest = rows.split_off(end);
            if !rows.is_empty() {
                return Ok(Some(rows));
            }
        }
        if self.rest.is_empty() { Ok(None) } else { Err(StoreError::Retry("the answer ended within a row".to_owned())) }
    }
}

/// Hands over the stored events of these minutes: a buffer of rows, and where in it an event is.
///
/// # Errors
/// The database's. Some events have been handed over then.
pub(super) async fn for_each_stored(
    store: &dyn EventStore,
    minutes: &MinuteSet,
    mut take: impl FnMut(&[u8], &RowSpan),
) -> Result<(), StoreError> {
    let mut stored = StoredRows::read(store, minutes).await?;
    while let Some(rows) = stored.next().await? {
        Rows::payloads(&rows).map_while(Result::ok).for_each(|span| take(&rows, &span));
    }
    Ok(())
}
