//! A log in memory: the smallest implementation of the port, for unit tests.
//!
//! What it keeps survives the log, as files survive a process, in a [`MemoryStorage`] that the next log can be
//! opened on. Frames are durable at once.

mod readers;

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Cursor};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::dedup_window::DedupWindow;
use super::frame::SegmentHeader;
use super::lanes::{Lane, OldDays};
use super::port::{Appended, EventLog, LogReader, SegmentBytes, SegmentSource, parked};
use super::{AppendError, Frame, Holders, Kept, LogPosition, Ordinal, Segment, SegmentState, Segments};
use crate::event_row;
use crate::trace::Calls;
use readers::{MemoryReader, Readers};

/// What survives a log.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryStorage(Arc<Mutex<Contents>>);

#[derive(Debug, Default)]
struct Contents {
    segments: BTreeMap<u128, Content>,
    /// Those that are kept for readers, and gone otherwise.
    held: BTreeMap<u128, Vec<u8>>,
    distrusted: HashSet<Uuid>,
    last_id: u128,
}

#[derive(Debug)]
struct Content {
    bytes: Vec<u8>,
    rows: u64,
    state: SegmentState,
    opened_at_micros: u64,
}

/// See the module.
pub(crate) struct MemoryLog {
    storage: MemoryStorage,
    segments: Arc<Segments>,
    segment_rows_max: u64,
    holders: Holders,
    dedup_window: DedupWindow,
    writer: Mutex<Writer>,
    readers: Arc<Mutex<Readers>>,
}

struct Writer {
    /// The open segments.
    main: Option<OpenSegment>,
    scattered: Option<OpenSegment>,
    /// Those of the open segment of the main lane.
    old_days: OldDays,
    next_ordinal: Ordinal,
    is_shut: bool,
}

#[derive(Clone, Copy)]
struct OpenSegment {
    ordinal: Ordinal,
    id: u128,
}

impl Writer {
    fn open(&mut self, lane: Lane) -> &mut Option<OpenSegment> {
        match lane.waits_in() {
            Lane::Scattered => &mut self.scattered,
            Lane::Main | Lane::Unknown => &mut self.main,
        }
    }
}

impl MemoryLog {
    /// Opens a log on what a former one left. Segments hold so many rows, are needed by these holders once they are
    /// stored, and have ids above this one and this deduplication window.
    pub(crate) fn open(
        storage: &MemoryStorage,
        segment_rows_max: u64,
        holders: Holders,
        ids_above: u128,
        dedup_window: DedupWindow,
    ) -> Self {
        let segments = Arc::new(Segments::default());
        let mut contents = storage.0.lock();
        contents.last_id = contents.last_id.max(ids_above);
        contents.segments.retain(|_, content| content.rows > 0);
        let mut next_ordinal = 0;
        for (id, content) in &mut contents.segments {
            if content.state == SegmentState::Open || content.state == SegmentState::Inserting {
                content.state = SegmentState::Sealed;
            }
            let lane = Lane::Unknown;
            segments.put(segment(storage, *id, content, lane, next_ordinal, holders, dedup_window));
            next_ordinal += 1;
        }
        drop(contents);
        let old_days = OldDays::of_segment(0);
        let writer = Mutex::new(Writer { main: None, scattered: None, old_days, next_ordinal, is_shut: false });
        let storage = storage.clone();
        Self { storage, segments, segment_rows_max, holders, dedup_window, writer, readers: Arc::default() }
    }

    fn write(&self, writer: &mut Writer, frame: &Frame) -> Ordinal {
        let lane = if writer.old_days.admit(frame.days()) { Lane::Main } else { Lane::Scattered };
        let OpenSegment { ordinal, id } = match *writer.open(lane) {
            Some(open) => open,
            None => self.open_segment(writer, lane),
        };
        let mut contents = self.storage.0.lock();
        let content = contents.segments.get_mut(&id).unwrap();
        content.bytes.extend_from_slice(frame.bytes());
        content.rows += u64::from(frame.rows());
        let (rows, bytes) = (content.rows, content.bytes.len() as u64);
        drop(contents);
        self.segments.update(ordinal, |segment| {
            (segment.rows, segment.rows_written, segment.bytes) = (rows, rows, bytes);
        });
        if rows >= self.segment_rows_max {
            self.seal_lane(writer, lane);
        }
        ordinal
    }

    fn open_segment(&self, writer: &mut Writer, lane: Lane) -> OpenSegment {
        let mut contents = self.storage.0.lock();
        let id = Uuid::now_v7().as_u128().max(contents.last_id + 1);
        contents.last_id = id;
        let columns = event_row::COLUMNS.to_owned();
        let (dedup_window, opened_at_micros) = (self.dedup_window, 0);
        let header = SegmentHeader { id: Uuid::from_u128(id), opened_at_micros, dedup_window, columns }.encode();
        let content = Content { bytes: header, rows: 0, state: SegmentState::Open, opened_at_micros };
        let open = OpenSegment { ordinal: writer.next_ordinal, id };
        writer.next_ordinal += 1;
        self.segments.put(segment(&self.storage, id, &content, lane, open.ordinal, self.holders, dedup_window));
        contents.segments.insert(id, content);
        drop(contents);
        if !self.readers.lock().needs.is_empty() {
            self.seal_before(writer, id); // Readers do not get past it.
        }
        *writer.open(lane) = Some(open);
        open
    }

    /// Seals the open segments with lower ids than this one.
    fn seal_before(&self, writer: &mut Writer, id: u128) {
        for lane in Lane::WRITTEN {
            if writer.open(lane).is_some_and(|open| open.id < id) {
                self.seal_lane(writer, lane);
            }
        }
    }

    fn seal_lane(&self, writer: &mut Writer, lane: Lane) {
        if lane == Lane::Main {
            writer.old_days = OldDays::of_segment(0);
        }
        if let Some(OpenSegment { ordinal, id }) = writer.open(lane).take() {
            self.change_state(Uuid::from_u128(id), ordinal, SegmentState::Sealed);
        }
    }

    fn seal_all(&self, writer: &mut Writer) {
        Lane::WRITTEN.into_iter().for_each(|lane| self.seal_lane(writer, lane));
    }

    fn change_state(&self, id: Uuid, ordinal: Ordinal, state: SegmentState) {
        if let Some(content) = self.storage.0.lock().segments.get_mut(&id.as_u128()) {
            content.state = state;
        }
        self.segments.update(ordinal, |segment| segment.state = state);
    }

    fn remove(&self, segment: Uuid) {
        let mut contents = self.storage.0.lock();
        contents.segments.remove(&segment.as_u128());
        contents.distrusted.remove(&segment);
    }
}

fn segment(
    storage: &MemoryStorage,
    id: u128,
    content: &Content,
    lane: Lane,
    ordinal: Ordinal,
    held_by: Holders,
    dedup_window: DedupWindow,
) -> Segment {
    let id = Uuid::from_u128(id);
    Segment {
        id,
        ordinal,
        state: content.state,
        lane,
        rows: content.rows,
        rows_written: content.rows,
        bytes: content.bytes.len() as u64,
        opened_at_micros: content.opened_at_micros,
        opened: Instant::now(),
        dedup_window,
        salvage: None,
        held_by,
        last_error: None,
        calls: Calls::default(),
        source: Arc::new(MemorySource { storage: storage.clone(), id, name: PathBuf::from(format!("memory/{id}")) }),
    }
}

#[derive(Debug)]
struct MemorySource {
    storage: MemoryStorage,
    id: Uuid,
    name: PathBuf,
}

impl SegmentSource for MemorySource {
    fn open(&self) -> io::Result<Box<dyn SegmentBytes>> {
        let contents = self.storage.0.lock();
        let content = contents.segments.get(&self.id.as_u128()).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(Cursor::new(content.bytes.clone())))
    }

    fn path(&self) -> &Path {
        &self.name
    }
}

impl EventLog for MemoryLog {
    fn append(&self, frame: Frame) -> Appended {
        let (done, answer) = oneshot::channel();
        let mut writer = self.writer.lock();
        let result = if writer.is_shut { Err(AppendError::Shut) } else { Ok(self.write(&mut writer, &frame)) };
        let _ = done.send(result); // A caller that went away is not told.
        answer
    }

    fn segments(&self) -> &Arc<Segments> {
        &self.segments
    }

    fn refusal(&self) -> Option<AppendError> {
        None
    }

    fn seal(&self) -> BoxFuture<'_, ()> {
        async { self.seal_all(&mut self.writer.lock()) }.boxed()
    }

    fn shut(&self) -> BoxFuture<'_, ()> {
        async {
            let mut writer = self.writer.lock();
            self.seal_all(&mut writer);
            writer.is_shut = true;
        }
        .boxed()
    }

    fn stored(&self, segment: &Segment) {
        let id = segment.id.as_u128();
        if self.readers.lock().need(id) {
            let mut contents = self.storage.0.lock();
            let bytes = contents.segments[&id].bytes.clone();
            contents.held.insert(id, bytes);
        }
        self.change_state(segment.id, segment.ordinal, SegmentState::Stored);
        if self.segments.store(segment.ordinal, Arc::clone(&segment.source)) {
            self.remove(segment.id);
        }
    }

    fn park(&self, segment: &Segment, error: String) {
        self.change_state(segment.id, segment.ordinal, SegmentState::Parked);
        self.failed(segment, error);
    }

    fn retry_parked(&self) -> usize {
        let parked = parked(&self.segments);
        parked.iter().for_each(|segment| self.change_state(segment.id, segment.ordinal, SegmentState::Sealed));
        parked.len()
    }

    fn release(&self, segments: &[Ordinal], holder: Holders) {
        let free = segments.iter().filter_map(|ordinal| self.segments.release(*ordinal, holder));
        free.for_each(|segment| self.remove(segment.id));
    }

    fn salvage(&self, _: &Segment) -> io::Result<Option<Segment>> {
        Ok(None) // Memory is not damaged.
    }

    fn distrust_token(&self, segment: &Segment) -> io::Result<()> {
        self.storage.0.lock().distrusted.insert(segment.id);
        Ok(())
    }

    fn is_token_distrusted(&self, segment: &Segment) -> io::Result<bool> {
        Ok(self.storage.0.lock().distrusted.contains(&segment.id))
    }

    fn add_reader(&self, from: u128) -> Arc<dyn LogReader> {
        let mut readers = self.readers.lock();
        let name = readers.added;
        readers.added += 1;
        readers.needs.insert(name, from);
        drop(readers);
        let mut writer = self.writer.lock();
        let youngest = writer.main.into_iter().chain(writer.scattered).map(|open| open.id).max();
        self.seal_before(&mut writer, youngest.unwrap_or_default());
        drop(writer);
        let (storage, segments) = (self.storage.clone(), Arc::clone(&self.segments));
        Arc::new(MemoryReader { storage, segments, readers: Arc::clone(&self.readers), name })
    }

    fn add_bounded_reader(&self, from: u128) -> Arc<dyn LogReader> {
        self.add_reader(from) // Memory has room for all of it.
    }

    fn end(&self) -> BoxFuture<'_, LogPosition> {
        async {
            let mut writer = self.writer.lock();
            let last_id = self.storage.0.lock().last_id;
            self.seal_before(&mut writer, last_id);
            let last = self.segments.list().into_iter().find(|segment| segment.id.as_u128() == last_id);
            last.map_or(LogPosition::behind_segment(last_id), |last| LogPosition::behind(&last))
        }
        .boxed()
    }

    fn readers_added(&self) {
        self.readers.lock().is_complete = true;
        self.readers.lock().delete_passed(&self.storage);
    }

    fn held_bytes(&self) -> u64 {
        self.storage.0.lock().held.values().map(|bytes| bytes.len() as u64).sum()
    }

    fn kept(&self) -> Kept {
        Kept::default()
    }
}
