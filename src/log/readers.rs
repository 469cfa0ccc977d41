//! Readers of the log beside the forwarder: each reads all rows in the order of the segments, from a position of
//! its own. That is the order of arrival within each lane.
//!
//! A segment that is stored in ClickHouse stays for the readers that have not passed it: its file gets a second name in the
//! folder `held`, which is deleted once every reader has passed it. Held files count against `log_bytes_max`.
//!
//! A *bounded* reader holds segments only up to a number of bytes: when there are more, the oldest segments go, and it
//! misses them. So nobody who reads slowly or not at all keeps others from writing.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tallyhouse_disk::{Disk, DiskFile, DiskReader};
use uuid::Uuid;

use super::frame::{FrameError, SegmentHeader, read_frame};
use super::frames::SegmentFrames;
use super::port::LogReader;
use super::salvage::Salvage;
use super::segment::{Segment, SegmentState, Segments};
use super::segment_file::SegmentFile;

/// The folder of held segments.
const FOLDER: &str = "held";
/// The extension of their files.
const EXTENSION: &str = "held";
/// Bytes that are read at a time, unless a frame is longer.
const CHUNK_BYTES: u64 = 1 << 20;

/// How often a segment's file is looked for: it may have got another name since its name was looked up.
const OPEN_ATTEMPTS: u32 = 5;

/// A place in the log: a segment, by its id, and a row in it, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPosition {
    /// The segment's id, as a number.
    pub segment: u128,
    /// The row.
    pub row: u64,
}

impl LogPosition {
    /// Behind the last row of a segment that there is.
    pub(super) fn behind(segment: &Segment) -> Self {
        match segment.state {
            SegmentState::Open => Self { segment: segment.id.as_u128(), row: segment.rows },
            _ => Self::behind_segment(segment.id.as_u128()),
        }
    }

    /// Behind everything of the segment with this id; the beginning for 0.
    pub(super) const fn behind_segment(id: u128) -> Self {
        match id {
            0 => Self { segment: 0, row: 0 },
            id => Self { segment: id.saturating_add(1), row: 0 },
        }
    }
}

/// Some rows in a row.
#[derive(Debug, Default)]
pub struct LogRows {
    /// Where the first is.
    pub first: LogPosition,
    /// The rows, in the columns of `columns`.
    pub bytes: Vec<u8>,
    /// Rows of the first frame that come before the first position: they are in `bytes`, and not meant.
    pub skip: u64,
    /// How many rows there are in `bytes`.
    pub count: u64,
    /// The columns, comma-separated.
    pub columns: String,
    /// Where to read on.
    pub next: LogPosition,
}

/// How much of what is stored in ClickHouse is held for readers. All of it counts against the log's bound.
#[derive(Clone, Copy, Debug)]
pub struct ReaderBounds {
    /// Most bytes that are held for bounded readers.
    pub bounded_bytes_max: u64,
}

impl Default for ReaderBounds {
    /// Bounded readers are not bounded.
    fn default() -> Self {
        Self { bounded_bytes_max: u64::MAX }
    }
}

/// Who reads, and what is held for them.
pub(super) struct LogReaders {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segments: Arc<Segments>,
    state: Mutex<State>,
    bytes: AtomicU64,
    bounds: ReaderBounds,
}

/// What a reader needs.
struct Need {
    /// The first segment.
    from: u128,
    is_bounded: bool,
    /// Segments that it missed.
    missed: u64,
}

#[derive(Default)]
struct State {
    /// What each reader needs, by its name.
    needs: HashMap<u64, Need>,
    next_reader: u64,
    /// Held files and their sizes.
    held: BTreeMap<u128, u64>,
    /// All readers of a former run are there again: from now on what nobody needs goes.
    is_complete: bool,
}

impl State {
    /// Whether a reader needs a segment: a bounded one, or another.
    fn is_needed(&self, id: u128, by_bounded: bool) -> bool {
        self.needs.values().any(|need| need.is_bounded == by_bounded && need.from <= id)
    }

    /// A segment goes that bounded readers have not read. Those before it may be in the log still, and are read.
    fn miss(&mut self, id: u128) {
        self.needs.values_mut().filter(|need| need.from <= id).for_each(|need| need.missed += 1);
    }
}

impl LogReaders {
    /// With what a former run held. Nothing is deleted before [`LogReaders::complete`].
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        log_dir: &Path,
        segments: Arc<Segments>,
        bounds: ReaderBounds,
    ) -> io::Result<Arc<Self>> {
        let dir = log_dir.join(FOLDER);
        disk.create_dir(&dir)?;
        let mut held = BTreeMap::new();
        for file in disk.list(&dir)? {
            let id = file.name.rsplit_once('.').filter(|(_, extension)| *extension == EXTENSION);
            if let Some(id) = id.and_then(|(stem, _)| Uuid::parse_str(stem).ok()) {
                held.insert(id.as_u128(), file.bytes);
            }
        }
        let bytes = AtomicU64::new(held.values().sum());
        let state = Mutex::new(State { held, ..State::default() });
        Ok(Arc::new(Self { disk, dir, segments, state, bytes, bounds }))
    }

    /// The place behind the last row that is there now. Rows that are appended to an older segment than its own, if one
    /// is open, are before it.
    pub(super) fn end(&self) -> LogPosition {
        // In this order: what leaves the list meanwhile is held before it does.
        let last = self.segments.list().last().map(LogPosition::behind);
        LogPosition::behind_segment(self.last_id()).max(last.unwrap_or_default())
    }

    /// The highest id of a held segment.
    pub(super) fn last_id(&self) -> u128 {
        self.state.lock().held.keys().next_back().copied().unwrap_or_default()
    }

    /// Adds a reader that needs everything from this segment on.
    pub(super) fn add(self: &Arc<Self>, from: u128, is_bounded: bool) -> DiskLogReader {
        let mut state = self.state.lock();
        let name = state.next_reader;
        state.next_reader += 1;
        state.needs.insert(name, Need { from, is_bounded, missed: 0 });
        drop(state);
        DiskLogReader { readers: Arc::clone(self), name, open: Mutex::new(None) }
    }

    /// All readers of a former run have been added: what nobody needs goes now.
    pub(super) fn complete(&self) {
        self.state.lock().is_complete = true;
        self.delete_passed();
    }

    /// Whether anybody reads.
    pub(super) fn is_read(&self) -> bool {
        !self.state.lock().needs.is_empty()
    }

    /// Bytes of segments that are held and stored.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// A stored segment's file is about to go: it is held, if a reader needs it.
    pub(super) fn hold(&self, segment: &Segment) -> io::Result<()> {
        let id = segment.id.as_u128();
        let mut state = self.state.lock();
        let is_needed = state.needs.values().any(|need| need.from <= id);
        if state.is_complete && !is_needed {
            return Ok(());
        }
        match self.disk.hard_link(segment.path(), &self.path(id)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // Before the segment's own name goes: directories reach the disk in any order.
        self.disk.sync_dir(&self.dir)?;
        if state.held.insert(id, segment.bytes).is_none() {
            self.bytes.fetch_add(segment.bytes, Ordering::Relaxed);
        }
        drop(state);
        self.delete_passed();
        Ok(())
    }

    fn path(&self, id: u128) -> PathBuf {
        self.dir.join(format!("{}.{EXTENSION}", Uuid::from_u128(id)))
    }

    /// Deletes what every reader has passed, and what is beyond the bounds.
    fn delete_passed(&self) {
        let mut state = self.state.lock();
        if !state.is_complete {
            return;
        }
        let ReaderBounds { bounded_bytes_max } = self.bounds;
        while let Some((id, bytes)) = state.held.first_key_value().map(|(id, bytes)| (*id, *bytes)) {
            let (all, is_bounded) = (self.bytes(), state.is_needed(id, true));
            if state.is_needed(id, false) || (is_bounded && all <= bounded_bytes_max) {
                return;
            }
            if let Err(error) = self.disk.remove(&self.path(id))
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(%error, segment = %Uuid::from_u128(id), "a segment that was read could not be deleted");
                return;
            }
            state.held.remove(&id);
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            if is_bounded {
                tracing::warn!(segment = %Uuid::from_u128(id), "a segment goes that a slow reader has not read");
                state.miss(id);
            }
        }
    }

    /// The first segment at or after an id, in the log or held.
    fn segment_from(&self, from: u128) -> Option<Source> {
        // Locked while the log is listed: a segment is held before it leaves the list, so that each is in one of them. Were
        // the list older than what is held, a segment that was opened and held in between would hide an older one.
        let state = self.state.lock();
        let live = self.segments.list().into_iter().filter(|segment| segment.id.as_u128() >= from);
        let live = live.min_by_key(|segment| segment.id);
        let held = state.held.range(from..).next().map(|(id, bytes)| (*id, *bytes));
        drop(state);
        match (live, held) {
            (Some(live), Some((id, bytes))) if id <= live.id.as_u128() => Some(self.held(id, bytes)),
            (Some(live), _) => Some(Source {
                id: live.id.as_u128(),
                is_open: live.state == SegmentState::Open,
                bytes: live.bytes,
                path: live.path().to_owned(),
            }),
            (None, Some((id, bytes))) => Some(self.held(id, bytes)),
            (None, None) => None,
        }
    }

    fn held(&self, id: u128, bytes: u64) -> Source {
        Source { id, is_open: false, bytes, path: self.path(id) }
    }
}

/// A segment to read.
struct Source {
    id: u128,
    is_open: bool,
    /// Up to where its bytes are good.
    bytes: u64,
    path: PathBuf,
}

impl Source {
    /// The frames that are good, when the file is damaged.
    fn salvaged(&self, disk: &Arc<dyn Disk>) -> io::Result<Option<SegmentFrames>> {
        let file = SegmentFile::new(disk, self.path.clone());
        let salvage = Salvage::of(&*file, Uuid::from_u128(self.id))?;
        salvage.map(|salvage| SegmentFrames::of_salvage(&*file, &salvage)).transpose().map_err(to_io)
    }
}

/// A file that is read further and further.
struct OpenFile {
    id: u128,
    file: Arc<dyn DiskFile>,
    columns: String,
    /// Where the next frame begins.
    offset: u64,
    /// Its first row.
    row: u64,
}

impl OpenFile {
    fn open(disk: &dyn Disk, source: &Source) -> Result<Self, FrameError> {
        // It may have been sealed since its name was looked up.
        let sealed = || disk.open(&source.path.with_extension(SegmentState::Sealed.extension()));
        let file = disk.open(&source.path).or_else(|_| sealed())?;
        let (header, offset) = SegmentHeader::decode(&mut DiskReader::new(Arc::clone(&file)))?;
        if header.id.as_u128() != source.id {
            return Err(FrameError::Damaged);
        }
        Ok(Self { id: source.id, file, columns: header.columns, offset, row: 0 })
    }

    /// Reads frames up to the end, or until there are so many rows.
    fn read(&mut self, source: &Source, from_row: u64, rows_max: u64) -> Result<LogRows, FrameError> {
        let mut rows = LogRows { columns: self.columns.clone(), ..LogRows::default() };
        let mut first_row = self.row;
        let mut chunk_bytes = CHUNK_BYTES;
        while self.offset < source.bytes && rows.count.saturating_sub(rows.skip) < rows_max {
            let before = self.offset;
            let wanted = (source.bytes - before).min(chunk_bytes);
            let chunk = self.chunk(wanted)?;
            let mut rest = chunk.as_slice();
            while rows.count.saturating_sub(rows.skip) < rows_max {
                let (count, bytes) = match read_frame(&mut rest, &mut rows.bytes) {
                    Ok(None) => break,
                    Ok(Some((count, bytes))) => (u64::from(count), bytes),
                    // The chunk ends within it.
                    Err(FrameError::Torn) if before + wanted < source.bytes => break,
                    Err(error) => return Err(error),
                };
                self.offset += bytes;
                self.row += count;
                if self.row <= from_row {
                    rows.bytes.clear();
                    (rows.count, first_row) = (0, self.row);
                } else {
                    rows.count += count;
                    rows.skip = from_row.saturating_sub(first_row);
                }
            }
            chunk_bytes = if before == self.offset { chunk_bytes.saturating_mul(4) } else { CHUNK_BYTES };
        }
        rows.first = LogPosition { segment: self.id, row: first_row.max(from_row) };
        Ok(rows)
    }

    /// The bytes from the next frame on.
    fn chunk(&self, bytes: u64) -> Result<Vec<u8>, FrameError> {
        let mut chunk = vec![0; usize::try_from(bytes).map_err(|_| FrameError::Damaged)?];
        let read = self.file.read_at(&mut chunk, self.offset)?;
        if read == chunk.len() { Ok(chunk) } else { Err(FrameError::Torn) }
    }
}

fn to_io(error: FrameError) -> io::Error {
    match error {
        FrameError::Io(error) => error,
        error => io::Error::new(io::ErrorKind::InvalidData, error.to_string()),
    }
}

/// One reader of the log's files.
pub(super) struct DiskLogReader {
    readers: Arc<LogReaders>,
    name: u64,
    open: Mutex<Option<OpenFile>>,
}

impl LogReader for DiskLogReader {
    fn read(&self, from: LogPosition, rows_max: u64) -> io::Result<Option<LogRows>> {
        for _ in 1..OPEN_ATTEMPTS {
            match self.try_read(from, rows_max) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                read => return read,
            }
        }
        self.try_read(from, rows_max)
    }

    fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.readers.segments.changes()
    }

    fn release(&self, segment: u128) {
        if let Some(need) = self.readers.state.lock().needs.get_mut(&self.name) {
            need.from = need.from.max(segment);
        }
        self.readers.delete_passed();
    }

    fn missed(&self) -> u64 {
        self.readers.state.lock().needs.get(&self.name).map_or(0, |need| need.missed)
    }

    fn give_up(&self) {
        self.readers.state.lock().needs.remove(&self.name);
        self.readers.delete_passed();
    }
}

impl DiskLogReader {
    fn try_read(&self, from: LogPosition, rows_max: u64) -> io::Result<Option<LogRows>> {
        let Some(source) = self.readers.segment_from(from.segment) else { return Ok(None) };
        let from_row = if source.id == from.segment { from.row } else { 0 };
        if source.bytes == 0 {
            return Ok(None); // It is open, and has no rows yet.
        }
        let mut open = self.open.lock();
        let disk = &self.readers.disk;
        let read = Self::read_source(&**disk, &mut open, &source, from_row, rows_max);
        let mut rows = match read {
            Ok(rows) => rows,
            Err(FrameError::Io(error)) => {
                *open = None;
                return Err(error);
            }
            Err(FrameError::Torn | FrameError::Damaged) => {
                *open = None;
                return Self::read_salvaged(disk, &source, from_row).map(Some);
            }
        };
        let is_at_end = open.as_ref().is_none_or(|open| open.offset >= source.bytes);
        let row = rows.first.row + rows.count.saturating_sub(rows.skip);
        rows.next = match is_at_end && !source.is_open {
            true => LogPosition { segment: source.id.saturating_add(1), row: 0 },
            false => LogPosition { segment: source.id, row },
        };
        Ok((rows.next > from).then_some(rows))
    }

    fn read_source(
        disk: &dyn Disk,
        open: &mut Option<OpenFile>,
        source: &Source,
        from_row: u64,
        rows_max: u64,
    ) -> Result<LogRows, FrameError> {
        let is_there = open.as_ref().is_some_and(|open| open.id == source.id && open.row <= from_row);
        if !is_there {
            *open = Some(OpenFile::open(disk, source)?);
        }
        let Some(open) = open else { return Err(FrameError::Damaged) };
        open.read(source, from_row, rows_max)
    }

    /// All that is good of a damaged segment at once.
    fn read_salvaged(disk: &Arc<dyn Disk>, source: &Source, from_row: u64) -> io::Result<LogRows> {
        let next = LogPosition { segment: source.id.saturating_add(1), row: 0 };
        let first = LogPosition { segment: source.id, row: from_row };
        let mut rows = LogRows { first, next, ..LogRows::default() };
        let Some(mut frames) = source.salvaged(disk)? else {
            tracing::error!(segment = %Uuid::from_u128(source.id), "a damaged segment cannot be read; it is passed over");
            return Ok(rows);
        };
        frames.columns().clone_into(&mut rows.columns);
        while let Some(count) = frames.next_frame(&mut rows.bytes).map_err(to_io)? {
            rows.count += u64::from(count);
        }
        rows.skip = from_row.min(rows.count);
        Ok(rows)
    }
}
