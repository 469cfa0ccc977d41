//! Filling the index at start, before the port opens: from the log what
//! ClickHouse may not have, from ClickHouse the newest minutes that fit.

use std::sync::Arc;

use super::fingerprint::{Fingerprinter, IdFingerprint};
use super::index::{Index, Minute, SegmentTag};
use super::log::{FrameError, Log, Segment, SegmentFrames};
use super::row::{self, RowSpan, Rows};
use super::store::{EventStore, MinuteSet, StoreError};
use crate::domain::{MILLIS_PER_MINUTE, Timestamp};

/// How full the index is made from ClickHouse, in percent: new events need
/// room.
const FILL_PERCENT: u64 = 80;

/// Fills an empty index, and sets its floor.
///
/// # Errors
/// `Retry` when the database or the disk fails; `Refused` when a segment has
/// columns that this version does not know: without its ids, they would be taken
/// for new.
pub async fn fill(
    index: &Arc<Index>,
    prints: Fingerprinter,
    log: &Arc<Log>,
    store: &dyn EventStore,
    ids_max: usize,
) -> Result<(), StoreError> {
    let (log_index, log) = (Arc::clone(index), Arc::clone(log));
    let logged_rows = log.segments().rows();
    let ids_for_stored = (ids_max as u64 * FILL_PERCENT / 100).saturating_sub(logged_rows);
    let floor = floor_for(&store.minutes(&MinuteSet::All).await?, ids_for_stored);
    index.raise_floor(floor.map_or(Minute::FIRST, Minute::of));
    let from_log = tokio::task::spawn_blocking(move || fill_from_log(&log_index, prints, &log));
    restore_all(index, prints, store, &floor.map_or(MinuteSet::All, MinuteSet::Since)).await?;
    from_log.await.map_err(|error| StoreError::Retry(error.to_string()))?
}

/// The first moment from which on everything fits; none when all does.
fn floor_for(minutes_newest_first: &[(Timestamp, u64)], ids_max: u64) -> Option<Timestamp> {
    let mut ids = 0;
    for (minute, count) in minutes_newest_first {
        ids += count;
        if ids > ids_max {
            // This minute does not fit, and so the next is the first that does.
            return Some(Timestamp::from_millis(minute.millis() + MILLIS_PER_MINUTE));
        }
    }
    None
}

fn fill_from_log(index: &Index, prints: Fingerprinter, log: &Log) -> Result<(), StoreError> {
    log.segments().list().iter().try_for_each(|segment| fill_from_segment(index, prints, segment))
}

fn fill_from_segment(index: &Index, prints: Fingerprinter, segment: &Segment) -> Result<(), StoreError> {
    let path = segment.path.display();
    let unreadable = |error: FrameError| StoreError::Retry(format!("the segment {path} cannot be read: {error}"));
    let mut reader = match SegmentFrames::open(segment) {
        Ok(reader) => reader,
        // A copy of another segment is never stored, so its ids are not known. Damage was seen and reported
        // when the log was opened.
        Err(FrameError::Torn | FrameError::Damaged) => {
            tracing::error!(%path, "a segment cannot be read: its ids are not known");
            return Ok(());
        }
        Err(error @ FrameError::Io(_)) => return Err(unreadable(error)),
    };
    if reader.columns() != row::COLUMNS {
        return Err(StoreError::Refused(format!(
            "the segment {path} was written by another version, with the columns {}: run that version until its log \
             is empty",
            reader.columns()
        )));
    }
    let mut rows = Vec::new();
    while reader.next_frame(&mut rows).map_err(unreadable)?.is_some() {
        for span in Rows::whole(&rows) {
            let span = span.map_err(|error| unreadable(FrameError::Io(std::io::Error::other(error))))?;
            restore(index, prints, &rows, &span, Some(SegmentTag::of(segment.ordinal)));
        }
        rows.clear();
    }
    Ok(())
}

/// Reads the ids of these minutes that are stored.
pub(super) async fn stored_ids(
    store: &dyn EventStore,
    prints: Fingerprinter,
    minutes: &MinuteSet,
    mut take: impl FnMut(IdFingerprint),
) -> Result<(), StoreError> {
    for_each_stored(store, minutes, |rows, span| take(prints.id(&rows[span.id.clone()]))).await
}

/// Takes in the stored ids of these minutes, and counts them.
pub(super) async fn restore_all(
    index: &Index,
    prints: Fingerprinter,
    store: &dyn EventStore,
    minutes: &MinuteSet,
) -> Result<usize, StoreError> {
    let mut ids = 0;
    let restored = for_each_stored(store, minutes, |rows, span| {
        restore(index, prints, rows, span, None);
        ids += 1;
    });
    restored.await?;
    Ok(ids)
}

/// Reads the stored events of these minutes.
async fn for_each_stored(
    store: &dyn EventStore,
    minutes: &MinuteSet,
    mut take: impl FnMut(&[u8], &RowSpan),
) -> Result<(), StoreError> {
    let mut pieces = store.read(minutes).await?;
    let mut rows: Vec<u8> = Vec::new();
    while let Some(piece) = pieces.recv().await {
        rows.extend_from_slice(&piece?);
        let mut end = 0;
        let mut walk = Rows::payloads(&rows);
        // What is no row is the beginning of one, or what ends the answer.
        while let Some(Ok(span)) = walk.next() {
            take(&rows, &span);
            end = walk.position();
        }
        rows.drain(..end);
    }
    if rows.is_empty() { Ok(()) } else { Err(StoreError::Retry("the answer ended within a row".to_owned())) }
}

fn restore(index: &Index, prints: Fingerprinter, rows: &[u8], span: &RowSpan, unstored_in: Option<SegmentTag>) {
    let id = prints.id(&rows[span.id.clone()]);
    let payload = prints.payload(&rows[span.payload.clone()]);
    index.restore(id, payload, Minute::of(span.occurred_at), unstored_in);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_the_first_minute_from_which_all_fits() {
        let minute = MILLIS_PER_MINUTE;
        let minutes = [3, 2, 1].map(|n| (Timestamp::from_millis(n * minute), 10));
        assert_eq!(floor_for(&minutes, 30), None);
        assert_eq!(floor_for(&minutes, 29), Some(Timestamp::from_millis(2 * minute)));
        assert_eq!(floor_for(&minutes, 10), Some(Timestamp::from_millis(3 * minute)));
        assert_eq!(floor_for(&minutes, 9), Some(Timestamp::from_millis(4 * minute)));
        assert_eq!(floor_for(&[], 9), None);
    }
}
