//! The log on the local disk: append-only files, one for each segment.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tallyhouse_disk::{Disk, RealDisk};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::capacity::Capacity;
use super::claim::claim;
use super::dedup_window::CurrentDedupWindow;
use super::kept::KeptFiles;
use super::lanes::Lane;
use super::port::{Appended, EventLog, LogReader, SegmentSource, parked};
use super::readers::{LogPosition, LogReaders};
use super::recovery::{recover, tell_salvage};
use super::segment_file::{SegmentFile, segment_path};
use super::segment_opener::SegmentOpener;
use super::spare::Spares;
use super::tokenless;
use super::writer::{Command, Writer};
use super::writer_handle::{WriterHandle, WriterHandles};
use super::{
    AppendError, Frame, Holders, Kept, LogSettings, OpenError, Ordinal, Salvage, Segment, SegmentState, Segments,
};
use crate::clock::ArrivalClock;

/// The log on the local disk. Dropping it seals the open segments and ends its threads.
pub struct DiskLog {
    disk: Arc<dyn Disk>,
    segments: Arc<Segments>,
    readers: Arc<LogReaders>,
    settings: LogSettings,
    kept: KeptFiles,
    capacity: Arc<Capacity>,
    writers: WriterHandles,
    /// Held as long as the log is open: the directory has one owner.
    _lock: Option<File>,
}

/// A log that has been recovered and is not written to yet.
pub(super) struct Recovered {
    disk: Arc<dyn Disk>,
    segments: Arc<Segments>,
    readers: Arc<LogReaders>,
    settings: LogSettings,
    kept: KeptFiles,
    pub(super) ids_above: u128,
}

impl Recovered {
    /// Cuts off a torn end. Every segment that a former run left is sealed, parked or stored then.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn open(disk: Arc<dyn Disk>, settings: LogSettings) -> io::Result<Self> {
        let dir = &settings.dir;
        let segments = Arc::new(Segments::default());
        let kept = KeptFiles::new(Arc::clone(&disk), dir.clone(), settings.kept_bytes_max);
        let recovered = recover(&disk, dir, &kept)?;
        kept.make_room(0);
        for segment in recovered {
            segments.put(Segment { held_by: settings.holders, ..segment });
        }
        let readers = LogReaders::open(Arc::clone(&disk), dir, Arc::clone(&segments), settings.reader_bounds)?;
        let last_id = segments.list().iter().map(|segment| segment.id.as_u128()).max().unwrap_or_default();
        let ids_above = settings.ids_above.max(readers.last_id()).max(last_id);
        Ok(Self { disk, segments, readers, settings, kept, ids_above })
    }

    /// Begins to take appends, with writers that are run in this way.
    ///
    /// # Errors
    /// When threads cannot be started.
    pub(super) fn start(
        self,
        clock: Arc<ArrivalClock>,
        dedup_window: Arc<CurrentDedupWindow>,
        spares: Spares,
        run: impl Fn(Writer) -> io::Result<WriterHandle>,
        lock: Option<File>,
    ) -> io::Result<DiskLog> {
        let Self { disk, segments, readers, settings, kept, .. } = self;
        let next_ordinal = (segments.list().len() + segments.retained().len()) as Ordinal;
        let capacity =
            Arc::new(Capacity::new(Arc::clone(&disk), settings.clone(), Arc::clone(&segments), Arc::clone(&readers)));
        let opener = Arc::new(SegmentOpener::new(spares, next_ordinal));
        let writers = WriterHandles::start(|lane, scattered| {
            let (clock, dedup_window) = (Arc::clone(&clock), Arc::clone(&dedup_window));
            run(Writer::new(lane, Arc::clone(&capacity), clock, dedup_window, Arc::clone(&opener), scattered))
        })?;
        Ok(DiskLog { disk, segments, readers, settings, kept, capacity, writers, _lock: lock })
    }
}

impl DiskLog {
    /// Opens the log, cutting off a torn end. Every segment that a former run
    /// left is sealed or parked.
    ///
    /// # Errors
    /// When another process works with it, or the disk fails.
    pub fn open(
        settings: LogSettings,
        clock: Arc<ArrivalClock>,
        dedup_window: Arc<CurrentDedupWindow>,
    ) -> Result<Self, OpenError> {
        let lock = claim(&settings.dir)?;
        let dir = settings.dir.clone();
        let open = move || {
            let recovered = Recovered::open(Arc::new(RealDisk), settings)?;
            let (disk, dir) = (Arc::clone(&recovered.disk), recovered.settings.dir.clone());
            let spares = Spares::start(disk, dir, recovered.ids_above)?;
            recovered.start(clock, dedup_window, spares, WriterHandle::start, Some(lock))
        };
        open().map_err(|source| OpenError::Io { dir, source })
    }

    /// The file of a segment that nobody needs goes. (A damaged one is kept beside.)
    fn remove(&self, segment: &Segment) {
        let gone = match &segment.salvage {
            None => self.disk.remove(segment.path()),
            Some(_) => self.kept.keep_damaged(segment.id, segment.path()),
        };
        if let Err(error) = gone {
            // The next start finds it stored.
            tracing::warn!(%error, segment = %segment.id, "a stored segment could not be deleted");
        }
        self.forget_distrust(segment.id);
    }

    /// The segment's file has gone, or has the name of a stored one. That must be durable before its token's note
    /// goes: without the note, the token might be relied on again.
    fn forget_distrust(&self, segment: Uuid) {
        let dir = self.dir();
        let forget = || -> io::Result<()> {
            if tokenless::is_noted(&*self.disk, dir, segment)? {
                self.disk.sync_dir(dir)?;
                tokenless::forget(&*self.disk, dir, segment);
            }
            Ok(())
        };
        if let Err(error) = forget() {
            tracing::warn!(%error, %segment, "a note beside the log could not be deleted");
        }
    }

    fn change_state(&self, segment: &Segment, state: SegmentState, last_error: Option<String>) {
        let path = segment_path(self.dir(), segment.id, state);
        let renamed = self.disk.rename(segment.path(), &path).and_then(|()| self.disk.sync_dir(self.dir()));
        if let Err(error) = &renamed {
            tracing::warn!(%error, segment = %segment.id, "a segment keeps its old name");
        }
        self.segments.update(segment.ordinal, |segment| {
            segment.state = state;
            segment.last_error = last_error;
            if renamed.is_ok() {
                segment.source = self.source(path);
            }
        });
    }

    /// Has the writer of a lane seal its open segment.
    async fn seal_lane(&self, lane: Lane) {
        let (done, sealed) = oneshot::channel();
        self.writers.send(lane, Command::Seal(done));
        let _ = sealed.await; // A shut log has sealed already.
    }

    /// The oldest of the open segments before a position.
    fn open_before(&self, position: LogPosition) -> Option<Segment> {
        let is_before =
            |segment: &Segment| segment.state == SegmentState::Open && segment.id.as_u128() < position.segment;
        self.segments.list().into_iter().find(is_before)
    }

    /// A new reader does not get past an open segment.
    fn look(&self) {
        for lane in Lane::WRITTEN {
            self.writers.send(lane, Command::Look);
        }
    }

    fn source(&self, path: PathBuf) -> Arc<dyn SegmentSource> {
        SegmentFile::new(&self.disk, path)
    }

    fn dir(&self) -> &Path {
        &self.settings.dir
    }
}

impl EventLog for DiskLog {
    fn append(&self, mut frame: Frame) -> Appended {
        frame.note_call();
        let (done, answer) = oneshot::channel();
        // The main lane's writer hands on what is for the other lane.
        if let Some(Command::Append(_, done)) = self.writers.send(Lane::Main, Command::Append(frame, done)) {
            let _ = done.send(Err(AppendError::Shut));
        }
        answer
    }

    fn segments(&self) -> &Arc<Segments> {
        &self.segments
    }

    /// Looks at the disk, and after a failed write writes a small file there.
    fn refusal(&self) -> Option<AppendError> {
        self.capacity.refusal()
    }

    fn seal(&self) -> BoxFuture<'_, ()> {
        async {
            // In this order: what the first hands on comes before the second's command.
            for lane in Lane::WRITTEN {
                self.seal_lane(lane).await;
            }
        }
        .boxed()
    }

    fn shut(&self) -> BoxFuture<'_, ()> {
        let ended = self.writers.end();
        async move {
            let _ = tokio::task::spawn_blocking(ended).await;
        }
        .boxed()
    }

    fn stored(&self, segment: &Segment) {
        if let Err(error) = self.readers.hold(segment) {
            // Without a second name its readers would lose it. The next start stores it again, which changes nothing.
            tracing::error!(%error, segment = %segment.id, "a segment cannot be held for its readers; it stays in the log");
            self.failed(segment, error.to_string());
            return;
        }
        let kept_as = segment_path(self.dir(), segment.id, SegmentState::Stored);
        // Were the new name lost in a power failure, the segment would be settled once more, which
        // changes nothing.
        let kept_as = match self.disk.rename(segment.path(), &kept_as) {
            Ok(()) => self.source(kept_as),
            Err(error) => {
                tracing::warn!(%error, segment = %segment.id, "a stored segment keeps its old name");
                Arc::clone(&segment.source)
            }
        };
        if self.segments.store(segment.ordinal, Arc::clone(&kept_as)) {
            self.remove(&Segment { source: kept_as, ..segment.clone() });
        } else {
            self.forget_distrust(segment.id);
        }
        self.writers.send(segment.lane, Command::Look);
    }

    fn park(&self, segment: &Segment, error: String) {
        self.change_state(segment, SegmentState::Parked, Some(error));
        self.writers.send(segment.lane, Command::Look);
    }

    fn retry_parked(&self) -> usize {
        let parked = parked(&self.segments);
        for segment in &parked {
            self.change_state(segment, SegmentState::Sealed, segment.last_error.clone());
        }
        parked.len()
    }

    fn release(&self, segments: &[Ordinal], holder: Holders) {
        let free = segments.iter().filter_map(|ordinal| self.segments.release(*ordinal, holder));
        free.for_each(|segment| self.remove(&segment));
    }

    fn salvage(&self, segment: &Segment) -> io::Result<Option<Segment>> {
        let found = Salvage::of(&*segment.source, segment.id)?;
        let salvage = Arc::new(found.unwrap_or_else(|| Salvage::nothing(segment.bytes)));
        if segment.salvage.as_ref() == Some(&salvage) {
            return Ok(None);
        }
        let error = tell_salvage(segment.id, &salvage);
        self.segments.update(segment.ordinal, |segment| {
            segment.rows = salvage.rows;
            segment.salvage = Some(salvage);
            segment.last_error = Some(error);
        });
        Ok(self.segments.find(segment.ordinal))
    }

    fn distrust_token(&self, segment: &Segment) -> io::Result<()> {
        tokenless::note(&*self.disk, self.dir(), segment.id)
    }

    fn is_token_distrusted(&self, segment: &Segment) -> io::Result<bool> {
        tokenless::is_noted(&*self.disk, self.dir(), segment.id)
    }

    fn add_reader(&self, from: u128) -> Arc<dyn LogReader> {
        let reader = Arc::new(self.readers.add(from, false));
        self.look();
        reader
    }

    fn add_bounded_reader(&self, from: u128) -> Arc<dyn LogReader> {
        let reader = Arc::new(self.readers.add(from, true));
        self.look();
        reader
    }

    fn end(&self) -> BoxFuture<'_, LogPosition> {
        async {
            let end = self.readers.end();
            // Rows that are appended to an older segment would be before the end.
            for lane in Lane::WRITTEN {
                if self.open_before(end).is_some_and(|open| open.lane == lane) {
                    self.seal_lane(lane).await;
                }
            }
            self.open_before(end).map_or(end, |open| LogPosition::behind(&open))
        }
        .boxed()
    }

    fn readers_added(&self) {
        self.readers.complete();
    }

    fn held_bytes(&self) -> u64 {
        self.readers.bytes()
    }

    fn kept(&self) -> Kept {
        self.kept.kept()
    }
}

#[cfg(test)]
impl DiskLog {
    /// Opens a log whose writers work when they are told to.
    pub(super) fn open_stepped(disk: Arc<dyn Disk>, settings: LogSettings) -> io::Result<Self> {
        disk.create_dir(&settings.dir)?;
        let recovered = Recovered::open(Arc::clone(&disk), settings)?;
        let spares = super::spare::SteppedSpares::new(disk, recovered.settings.dir.clone(), recovered.ids_above);
        recovered.start(Arc::default(), Arc::default(), Spares::Stepped(spares), WriterHandle::stepped, None)
    }

    /// Ends the writers of such a log as a shut does.
    pub(super) fn shut_stepped(&self) {
        self.writers.end()();
    }

    /// Tells the writer of a lane of such a log to work.
    pub(super) fn step(&self, lane: Lane, step: impl FnOnce(&mut Writer)) {
        self.writers.step(lane, step);
    }
}
