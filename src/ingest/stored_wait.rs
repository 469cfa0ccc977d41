//! Waits for the segments that an answer with `DURABILITY_STORED` depends on: the segment of the batch's own events,
//! and those of the first events of its duplicates.
//!
//! Of a duplicate the index knows the tag of its segment. 63 segments in turn share a tag, and it is kept for some time after
//! the segment was stored. Of a duplicate that is in the ledger, only that the ledger covers its segment is known. All
//! segments that may be meant are awaited, which is safe and takes little longer. A parked segment is not stored soon: its
//! file is read to find out whether the duplicate is in it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use uuid::Uuid;

use super::fingerprint::{Fingerprinter, IdFingerprint};
use super::segment_ids::{SegmentIdsError, read_segment_ids};
use crate::domain::Error;
use crate::log::{EventLog, Holders, Ordinal, Segment, SegmentState, SegmentTag, SegmentTags, Segments};

/// How long a caller is told to wait when ClickHouse is late.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long a caller is told to wait for somebody to mend what a segment was refused for.
const RETRY_AFTER_PARKED: Duration = Duration::from_secs(60);
/// Ids of parked segments that are kept in memory, at 16 bytes each, over all segments.
const PARKED_IDS_MAX: usize = 1_000_000;

/// The segments that an answer with `DURABILITY_STORED` waits for.
pub(super) struct AwaitedSegments {
    /// The segment of the batch's own events; none when none was new.
    pub(super) own: Option<Ordinal>,
    /// The ids of the duplicates, with the tags of the segments of their first events.
    pub(super) duplicates: Vec<(IdFingerprint, SegmentTag)>,
}

/// How the wait for one segment ended.
enum WaitEnd {
    Stored,
    Parked(Segment),
    /// The log is gone.
    Unknown,
}

impl AwaitedSegments {
    /// Waits until ClickHouse has them all.
    ///
    /// # Errors
    /// `Unavailable` when that takes longer than `wait_max`, and at once when one of them is parked: the
    /// message then names it.
    pub(super) async fn stored(self, log: &dyn EventLog, parked: &ParkedIds, wait_max: Duration) -> Result<(), Error> {
        let waited = tokio::time::timeout(wait_max, self.all_stored(log.segments(), parked)).await;
        waited.unwrap_or_else(|_| Err(late()))
    }

    async fn all_stored(&self, segments: &Segments, parked: &ParkedIds) -> Result<(), Error> {
        let tags: SegmentTags = self.duplicates.iter().map(|(_, tag)| *tag).collect();
        // An open segment without events waits for the first one.
        let is_awaited = |segment: &Segment| {
            let may_hold_duplicates = segment.rows > 0
                && (tags.contains(SegmentTag::of(segment.ordinal))
                    || !segment.held_by.include(Holders::LEDGER) && tags.contains(SegmentTag::NONE));
            self.own == Some(segment.ordinal) || may_hold_duplicates
        };
        for segment in segments.list().into_iter().filter(is_awaited) {
            match ended(segments, segment.ordinal).await {
                WaitEnd::Stored => {}
                WaitEnd::Unknown => return Err(late()),
                WaitEnd::Parked(segment) if self.own == Some(segment.ordinal) => return Err(is_parked(segment.id)),
                WaitEnd::Parked(segment) => {
                    let tag = SegmentTag::of(segment.ordinal);
                    let may_be_there = |of: SegmentTag| of == tag || of == SegmentTag::NONE;
                    let duplicates = self.duplicates.iter().filter(|(_, of)| may_be_there(*of));
                    let ids = duplicates.map(|(id, _)| *id).collect();
                    if parked.hold_any(&segment, ids).await {
                        return Err(is_parked(segment.id));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Waits until a segment is stored or parked.
async fn ended(segments: &Segments, ordinal: Ordinal) -> WaitEnd {
    let mut changes = segments.changes();
    loop {
        match segments.find(ordinal) {
            None => return WaitEnd::Stored,
            Some(segment) if segment.state == SegmentState::Parked => return WaitEnd::Parked(segment),
            Some(_) if changes.changed().await.is_err() => return WaitEnd::Unknown,
            Some(_) => {}
        }
    }
}

fn late() -> Error {
    let message = "the events are logged and will be counted, but ClickHouse has not taken them yet";
    Error::unavailable(message, RETRY_AFTER)
}

fn is_parked(segment: Uuid) -> Error {
    let message = format!(
        "ClickHouse refused the segment {segment}, which holds events of this batch: they are kept in the log and are \
         counted once an operator has mended the cause and run `tallyhouse segments retry`"
    );
    Error::unavailable(message, RETRY_AFTER_PARKED)
}

/// The ids of parked segments, read from their files when they are asked for.
pub(super) struct ParkedIds {
    fingerprinter: Fingerprinter,
    /// One reading at a time: whoever comes meanwhile often wants the same.
    by_segment: Mutex<BTreeMap<Uuid, Arc<[IdFingerprint]>>>,
}

impl ParkedIds {
    /// None have been read.
    pub(super) fn new(fingerprinter: Fingerprinter) -> Self {
        Self { fingerprinter, by_segment: Mutex::default() }
    }

    /// Whether a parked segment holds any of these ids. Yes, when its file cannot be read.
    async fn hold_any(&self, segment: &Segment, ids: Vec<IdFingerprint>) -> bool {
        match self.of(segment).await {
            Ok(held) => ids.iter().any(|id| held.binary_search(id).is_ok()),
            Err(error) => {
                tracing::warn!(%error, segment = %segment.id, "a parked segment cannot be read");
                true
            }
        }
    }

    /// The ids of a segment, in order.
    async fn of(&self, segment: &Segment) -> Result<Arc<[IdFingerprint]>, io::Error> {
        let mut by_segment = self.by_segment.lock().await;
        if let Some(ids) = by_segment.get(&segment.id) {
            return Ok(Arc::clone(ids));
        }
        let (fingerprinter, of) = (self.fingerprinter, segment.clone());
        let ids: Arc<[IdFingerprint]> =
            tokio::task::spawn_blocking(move || read_ids(fingerprinter, &of)).await??.into();
        if ids.len() <= PARKED_IDS_MAX {
            let held: usize = by_segment.values().map(|ids| ids.len()).sum();
            if held + ids.len() > PARKED_IDS_MAX {
                by_segment.clear();
            }
            by_segment.insert(segment.id, Arc::clone(&ids));
        }
        Ok(ids)
    }
}

/// Reads the ids of a segment's good frames.
fn read_ids(fingerprinter: Fingerprinter, segment: &Segment) -> io::Result<Vec<IdFingerprint>> {
    let mut ids = Vec::new();
    let read = read_segment_ids(segment, fingerprinter, |taken| ids.extend(taken.iter().map(|taken| taken.id)));
    read.map_err(|error| match error {
        SegmentIdsError::Frame(crate::log::FrameError::Io(error)) => error,
        error => io::Error::other(error),
    })?;
    ids.sort_unstable();
    Ok(ids)
}
