//! Which segments there are, and where each is on its way to ClickHouse.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;

use super::holders::Holders;
use super::lanes::Lane;
use super::port::SegmentSource;
use super::salvage::Salvage;
use crate::domain::Timestamp;
use crate::log::dedup_window::DedupWindow;
use crate::trace::Calls;

/// A segment that takes no more events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedSegment {
    /// Its id.
    pub id: Uuid,
    /// Events that were written to it.
    pub rows: u64,
    /// All of them are good.
    pub is_whole: bool,
}

/// A segment's place among those this process knows, from 0.
pub type Ordinal = u64;

/// Where a segment is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentState {
    /// Still written to.
    Open,
    /// Frozen, and waiting for its turn.
    Sealed,
    /// Frozen, and in the forwarder's hands.
    Inserting,
    /// Refused by ClickHouse for a reason that waiting does not mend. It is
    /// kept until it is retried by command.
    Parked,
    /// In ClickHouse. Its file is kept for others who need it.
    Stored,
}

/// A segment: a piece of the log, the unit that is inserted.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Its id, and its insert's token. Names these bytes and no others, ever.
    pub id: Uuid,
    /// Its place among those this process knows.
    pub ordinal: Ordinal,
    /// Where it is on its way.
    pub state: SegmentState,
    /// Which of its lanes the forwarder inserts it in.
    pub lane: Lane,
    /// Events in it.
    pub rows: u64,
    /// Events that were written to it in this run; more than `rows` when it has been damaged since.
    pub rows_written: u64,
    /// Its size on disk, in bytes.
    pub bytes: u64,
    /// When its first event arrived in the order of arrival, in microseconds since 1970.
    pub opened_at_micros: u64,
    /// The same by the monotonic clock; for a segment of a former run, when it was found.
    pub opened: Instant,
    /// For how long its token can be relied on.
    pub dedup_window: DedupWindow,
    /// What is good in its file, when that is damaged: it is stored without its token then, by looking up
    /// what is missing.
    pub salvage: Option<Arc<Salvage>>,
    /// Who needs its file once it is stored.
    pub held_by: Holders,
    /// What ClickHouse last said against it.
    pub last_error: Option<String>,
    /// The calls that its events came with, as far as they are sampled. Not kept
    /// through a restart.
    pub calls: Calls,
    /// Where its bytes are.
    pub source: Arc<dyn SegmentSource>,
}

/// All segments that are not in ClickHouse yet, and apart from them those that are and whose files others need.
/// Shared by the writer, which adds them, the forwarder, which stores them, and those who hold them.
pub struct Segments {
    by_ordinal: Mutex<BTreeMap<Ordinal, Segment>>,
    /// Those that are in ClickHouse and are held by somebody.
    retained: Mutex<BTreeMap<Ordinal, Segment>>,
    /// Rises with every change.
    changes: watch::Sender<u64>,
}

impl Default for Segments {
    fn default() -> Self {
        Self { by_ordinal: Mutex::default(), retained: Mutex::default(), changes: watch::Sender::new(0) }
    }
}

impl Segment {
    /// Its file, or what else names its bytes in messages.
    pub fn path(&self) -> &Path {
        self.source.path()
    }

    /// Whether it is frozen and neither parked nor stored.
    const fn waits(&self) -> bool {
        matches!(self.state, SegmentState::Sealed | SegmentState::Inserting)
    }

    /// Itself, when it takes no more events.
    pub fn closed(&self) -> Option<ClosedSegment> {
        (self.state != SegmentState::Open).then_some(ClosedSegment {
            id: self.id,
            rows: self.rows_written,
            is_whole: self.salvage.is_none(),
        })
    }
}

impl Segments {
    /// Tells of changes from now on.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn changed(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    pub(super) fn put(&self, segment: Segment) {
        let segments = if segment.state == SegmentState::Stored { &self.retained } else { &self.by_ordinal };
        segments.lock().insert(segment.ordinal, segment);
        self.changed();
    }

    pub(super) fn update(&self, ordinal: Ordinal, change: impl FnOnce(&mut Segment)) {
        if let Some(segment) = self.by_ordinal.lock().get_mut(&ordinal) {
            change(segment);
        }
        self.changed();
    }

    /// An open segment without events is no more.
    pub(super) fn discard(&self, ordinal: Ordinal) {
        self.by_ordinal.lock().remove(&ordinal);
        self.changed();
    }

    /// A segment is in ClickHouse. Returns whether nobody else needs it, so that it has been
    /// forgotten; else it is kept, with its bytes there.
    pub(super) fn store(&self, ordinal: Ordinal, kept_as: Arc<dyn SegmentSource>) -> bool {
        // Both at once: whoever releases it meanwhile finds it in the one or in the other.
        let (mut segments, mut retained) = (self.by_ordinal.lock(), self.retained.lock());
        let is_free = segments.remove(&ordinal).is_none_or(|segment| {
            if segment.held_by == Holders::NONE {
                return true;
            }
            retained.insert(ordinal, Segment { state: SegmentState::Stored, source: kept_as, ..segment });
            false
        });
        drop((segments, retained));
        self.changed();
        is_free
    }

    /// A holder does not need a segment any more. Returns it when its file may go.
    pub(super) fn release(&self, ordinal: Ordinal, holder: Holders) -> Option<Segment> {
        let (mut segments, mut retained) = (self.by_ordinal.lock(), self.retained.lock());
        if let Some(segment) = segments.get_mut(&ordinal) {
            segment.held_by = segment.held_by.without(holder);
        }
        let segment = retained.get_mut(&ordinal)?;
        segment.held_by = segment.held_by.without(holder);
        if segment.held_by == Holders::NONE { retained.remove(&ordinal) } else { None }
    }

    /// A copy of those that are in ClickHouse and whose files somebody needs, oldest first.
    pub fn retained(&self) -> Vec<Segment> {
        self.retained.lock().values().cloned().collect()
    }

    /// Whether one of those is damaged.
    pub fn retain_damaged(&self) -> bool {
        self.retained.lock().values().any(|segment| segment.salvage.is_some())
    }

    /// Bytes of those on disk.
    pub fn retained_bytes(&self) -> u64 {
        self.retained.lock().values().map(|segment| segment.bytes).sum()
    }

    /// The ids of all segments that have a file.
    pub fn ids(&self) -> HashSet<Uuid> {
        let (segments, retained) = (self.by_ordinal.lock(), self.retained.lock());
        segments.values().chain(retained.values()).map(|segment| segment.id).collect()
    }

    /// The segment with this ordinal, stored or not, while it has a file.
    pub fn find_any(&self, ordinal: Ordinal) -> Option<Segment> {
        let (segments, retained) = (self.by_ordinal.lock(), self.retained.lock());
        segments.get(&ordinal).or_else(|| retained.get(&ordinal)).cloned()
    }

    /// Takes the oldest segment of a lane that waits for its turn.
    pub(super) fn take_sealed(&self, lane: Lane) -> Option<Segment> {
        let mut segments = self.by_ordinal.lock();
        let waits = |segment: &&mut Segment| segment.state == SegmentState::Sealed && segment.lane.waits_in() == lane;
        let segment = segments.values_mut().find(waits)?;
        segment.state = SegmentState::Inserting;
        Some(segment.clone())
    }

    /// A copy of all, oldest first.
    pub fn list(&self) -> Vec<Segment> {
        self.by_ordinal.lock().values().cloned().collect()
    }

    /// The segment with this ordinal; none once it is stored.
    pub fn find(&self, ordinal: Ordinal) -> Option<Segment> {
        self.by_ordinal.lock().get(&ordinal).cloned()
    }

    /// How many are frozen and neither parked nor stored.
    pub fn backlog(&self) -> usize {
        self.by_ordinal.lock().values().filter(|segment| segment.waits()).count()
    }

    /// The same of one lane.
    pub(super) fn backlog_of(&self, lane: Lane) -> usize {
        let waits = |segment: &&Segment| segment.waits() && segment.lane.waits_in() == lane;
        self.by_ordinal.lock().values().filter(waits).count()
    }

    /// How many are parked.
    pub fn parked(&self) -> usize {
        self.by_ordinal.lock().values().filter(|segment| segment.state == SegmentState::Parked).count()
    }

    /// Bytes on disk of those that are not in ClickHouse.
    pub fn bytes(&self) -> u64 {
        self.by_ordinal.lock().values().map(|segment| segment.bytes).sum()
    }

    /// Events that are not in ClickHouse.
    pub fn rows(&self) -> u64 {
        self.by_ordinal.lock().values().map(|segment| segment.rows).sum()
    }

    /// Everything acknowledged at or before this moment is in ClickHouse.
    ///
    /// `now` must have been read before the call. An event acknowledged by
    /// then is in a segment that either has gone to ClickHouse or is seen
    /// here, with rows, and opened before the acknowledgement. The clock may have been put right since it was
    /// opened: then the time that went by since says when that was.
    pub fn watermark(&self, now: Timestamp) -> Timestamp {
        let segments = self.by_ordinal.lock();
        let acknowledged = segments.values().filter(|segment| segment.rows > 0);
        let opened = acknowledged.flat_map(|segment| {
            let noted = i64::try_from(segment.opened_at_micros / 1_000).unwrap_or(i64::MAX);
            let age = i64::try_from(segment.opened.elapsed().as_millis()).unwrap_or(i64::MAX);
            [noted, now.plus_millis(-age).millis()]
        });
        opened.min().map_or(now, |millis| now.min(Timestamp::from_millis(millis).plus_millis(-1)))
    }
}
