//! The ids of events that were lost with a damaged segment while the service runs.
//!
//! The index knows them as taken. Nobody can read them from the damaged bytes any more, so what is left is found
//! by exclusion: of all ids with the segment's tag, those that are in no good frame of an unstored segment and
//! not in ClickHouse. They are forgotten, so that their events are accepted when they are sent again.

use std::collections::{BTreeSet, HashMap};

use super::fill::stored_ids;
use super::fingerprint::{Fingerprinter, IdFingerprint};
use super::index::{Index, Minute, SegmentTag};
use super::log::{FrameError, Log, Segment, SegmentFrames};
use super::row::Rows;
use super::store::{EventStore, MinuteSet, StoreError};

/// Minutes that ClickHouse is asked for at a time.
const MINUTES_PER_READING: usize = 1_000;
/// How often a segment's file is looked for: it may get another name meanwhile.
const ATTEMPTS: u32 = 3;

/// Forgets the ids that were lost with this segment, and returns how many they were. Must be called once the
/// segment says what is good of it.
///
/// # Errors
/// When a segment or ClickHouse cannot be read. Nothing is forgotten then.
pub(super) async fn forget_lost(
    segment: &Segment,
    index: &Index,
    prints: Fingerprinter,
    log: &Log,
    store: &dyn EventStore,
) -> Result<usize, StoreError> {
    let tag = SegmentTag::of(segment.ordinal);
    let mut suspects: HashMap<IdFingerprint, Minute> = index.tagged(tag).into_iter().collect();
    // Whatever is in an unstored segment by now was durable before the index had it.
    for other in log.segments().list().into_iter().filter(|other| SegmentTag::of(other.ordinal) == tag) {
        for id in logged_ids(other, prints, log).await? {
            suspects.remove(&Index::as_tagged(id));
        }
    }
    let minutes: Vec<Minute> = suspects.values().copied().collect::<BTreeSet<_>>().into_iter().collect();
    for minutes in minutes.chunks(MINUTES_PER_READING) {
        let minutes = MinuteSet::These(minutes.iter().map(|minute| minute.start()).collect());
        stored_ids(store, prints, &minutes, |id| _ = suspects.remove(&Index::as_tagged(id))).await?;
    }
    let lost: Vec<(IdFingerprint, Minute)> = suspects.into_iter().collect();
    index.forget_lost(&lost);
    Ok(lost.len())
}

/// The ids in the good frames of a segment; none when it has been stored meanwhile.
async fn logged_ids(mut segment: Segment, prints: Fingerprinter, log: &Log) -> Result<Vec<IdFingerprint>, StoreError> {
    let mut last_error = String::new();
    for _ in 0..ATTEMPTS {
        let of = segment.clone();
        let read = tokio::task::spawn_blocking(move || read_ids(&of, prints)).await;
        match read.map_err(|error| StoreError::Retry(error.to_string()))? {
            Ok(ids) => return Ok(ids),
            Err(error) => last_error = error.to_string(),
        }
        match log.segments().find(segment.ordinal) {
            Some(now) => segment = now,
            None => return Ok(Vec::new()),
        }
    }
    Err(StoreError::Retry(last_error))
}

/// Reads the ids of a segment up to its end, or up to where it is being written.
fn read_ids(segment: &Segment, prints: Fingerprinter) -> Result<Vec<IdFingerprint>, FrameError> {
    let mut frames = match SegmentFrames::open(segment) {
        Err(FrameError::Torn | FrameError::Damaged) => return Ok(Vec::new()),
        opened => opened?,
    };
    let (mut ids, mut rows) = (Vec::new(), Vec::new());
    loop {
        rows.clear();
        match frames.next_frame(&mut rows) {
            Ok(Some(_)) => ids.extend(Rows::whole(&rows).map_while(Result::ok).map(|span| prints.id(&rows[span.id]))),
            Ok(None) | Err(FrameError::Torn | FrameError::Damaged) => return Ok(ids),
            Err(error @ FrameError::Io(_)) => return Err(error),
        }
    }
}
