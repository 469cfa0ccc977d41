//! Reads the ids of the events in a segment's file.

use tallyhouse_ledger::time_in_id;

use super::fingerprint::Fingerprinter;
use super::index::{Minute, TakenId};
use crate::event_row::{self, RowSpan, Rows};
use crate::log::{FrameError, Segment, SegmentFrames};

/// Why the ids of a segment cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SegmentIdsError {
    /// Its file.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Its rows have columns of another version.
    #[error("it was written by another version, with the columns {columns}: run that version until its log is empty")]
    Columns {
        /// Those, comma-separated.
        columns: String,
    },
}

impl SegmentIdsError {
    /// Whether the file is damaged, or its end is still being written.
    pub const fn is_damage(&self) -> bool {
        matches!(self, Self::Frame(FrameError::Torn | FrameError::Damaged))
    }
}

/// Reads the ids of a segment's good frames, frame by frame. Blocks on the disk.
///
/// # Errors
/// When the file cannot be read to its end. What came before has been handed over then.
pub fn read_segment_ids(
    segment: &Segment,
    fingerprinter: Fingerprinter,
    mut take: impl FnMut(Vec<TakenId>),
) -> Result<(), SegmentIdsError> {
    let mut frames = SegmentFrames::open(segment)?;
    if frames.columns() != event_row::COLUMNS {
        return Err(SegmentIdsError::Columns { columns: frames.columns().to_owned() });
    }
    let mut rows = Vec::new();
    while frames.next_frame(&mut rows)?.is_some() {
        let taken: Result<Vec<TakenId>, _> =
            Rows::whole(&rows).map(|span| span.map(|span| taken(fingerprinter, &rows, &span))).collect();
        take(taken.map_err(|_| FrameError::Damaged)?);
        rows.clear();
    }
    Ok(())
}

/// What is remembered of the event of a row.
pub(super) fn taken(fingerprinter: Fingerprinter, rows: &[u8], span: &RowSpan) -> TakenId {
    let id = &rows[span.id.clone()];
    TakenId {
        id: fingerprinter.id(id),
        time_in_id: event_row::event_id(id).and_then(time_in_id),
        payload: fingerprinter.payload(&rows[span.payload.clone()]),
        minute: Minute::of(span.occurred_at),
    }
}
