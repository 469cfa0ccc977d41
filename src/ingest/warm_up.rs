//! Fills the index at start with the ids of those segments of the log that the ledger does not cover.
//!
//! These are usually the ids that came after the last run was written, however much is stored. Where the ledger was lost,
//! they are those of the whole log: then they go on to the ledger as memory fills.

use std::collections::HashSet;

use super::fingerprint::Fingerprinter;
use super::index::{Index, SegmentStanding};
use super::lost_ids::write_note;
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
        if index.ids() >= index.ids_max() {
            write_to_ledger(index, fingerprinter, log)?;
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

/// Memory is full: writes the ids of whole segments to the ledger. As later, what only a segment's own file has is noted
/// before. Of damaged ones the ids stay in memory.
fn write_to_ledger(index: &Index, fingerprinter: Fingerprinter, log: &dyn EventLog) -> Result<(), StoreError> {
    let (segments, mut noted) = (log.segments(), HashSet::new());
    let unstored = segments.list().into_iter().filter(|segment| index.has_ids_of(segment.ordinal));
    for segment in unstored.filter(|segment| segment.salvage.is_none()) {
        match write_note(index.ledger(), fingerprinter, &segment) {
            Ok(()) => _ = noted.insert(segment.id),
            Err(error) => tracing::warn!(error, segment = %segment.id, "the ids of a segment could not be noted"),
        }
    }
    let standing = |ordinal| {
        let Some(segment) = segments.find_any(ordinal) else { return SegmentStanding::Gone };
        let is_safe = segment.state == SegmentState::Stored || noted.contains(&segment.id);
        segment.closed().filter(|_| is_safe).map_or(SegmentStanding::Open, SegmentStanding::Closed)
    };
    let Some(sealed) = index.seal(standing) else { return Ok(()) };
    let in_log = segments.ids();
    let written = index.write(&sealed, |segment| in_log.contains(&segment));
    written.map_err(|error| StoreError::Retry(format!("ids cannot be written to the ledger: {error}")))?;
    let ordinals: Vec<Ordinal> = sealed.segments().iter().map(|(ordinal, _)| *ordinal).collect();
    log.release(&ordinals, Holders::LEDGER);
    Ok(())
}

fn restore(index: &Index, fingerprinter: Fingerprinter, segment: &Segment) -> Result<u64, SegmentIdsError> {
    let mut ids = 0;
    read_segment_ids(segment, fingerprinter, |taken| {
        index.restore(&taken, segment.ordinal);
        ids += taken.len() as u64;
    })?;
    Ok(ids)
}
