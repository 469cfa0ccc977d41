//! Fills the index at start with the ids of those segments of the log that the ledger does not cover.
//!
//! These are at most the ids that came after the last run was written, however much is stored.

use super::fingerprint::Fingerprinter;
use super::index::Index;
use super::segment_ids::{SegmentIdsError, read_segment_ids};
use crate::event_store::StoreError;
use crate::log::{EventLog, Holders, Ordinal, Segment, SegmentState};

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WarmUp {
    /// Ids that were read.
    pub ids: u64,
    /// Segments that ClickHouse has and that cannot be read to their ends, so that ids are unknown: the ledger is not
    /// complete without them. They are to be released for the ledger once it says so.
    pub unreadable: Vec<Ordinal>,
}

/// Takes in the ids of the log's segments. Segments whose ids are all in the ledger are not read.
/// Blocks on the disk.
///
/// # Errors
/// `Refused` when a segment has columns that this version does not know: without its ids, they would be taken for new.
/// `Retry` when the disk fails.
pub fn warm_up(index: &Index, fingerprinter: Fingerprinter, log: &dyn EventLog) -> Result<WarmUp, StoreError> {
    let mut warm_up = WarmUp::default();
    let segments = log.segments();
    for segment in segments.list().into_iter().chain(segments.retained()) {
        if index.ledger().covers(segment.id) {
            log.release(&[segment.ordinal], Holders::LEDGER);
            continue;
        }
        let is_stored = segment.state == SegmentState::Stored;
        match restore(index, fingerprinter, &segment) {
            Ok(ids) => {
                warm_up.ids += ids;
                if is_stored && segment.salvage.is_some() {
                    warm_up.unreadable.push(segment.ordinal);
                }
            }
            Err(error) if error.is_damage() && is_stored => warm_up.unreadable.push(segment.ordinal),
            // A copy of another segment is never stored, so its ids are not known. Damage was seen and reported
            // when the log was opened.
            Err(error) if error.is_damage() => {
                tracing::error!(%error, segment = %segment.id, "a segment cannot be read: its ids are not known");
            }
            Err(error @ SegmentIdsError::Columns { .. }) => {
                return Err(StoreError::Refused(format!("the segment {}: {error}", segment.path().display())));
            }
            Err(error) => {
                return Err(StoreError::Retry(format!(
                    "the segment {} cannot be read: {error}",
                    segment.path().display()
                )));
            }
        }
    }
    Ok(warm_up)
}

fn restore(index: &Index, fingerprinter: Fingerprinter, segment: &Segment) -> Result<u64, SegmentIdsError> {
    let mut ids = 0;
    read_segment_ids(segment, fingerprinter, |taken| {
        index.restore(&taken, segment.ordinal);
        ids += taken.len() as u64;
    })?;
    Ok(ids)
}
