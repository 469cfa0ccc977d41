//! The log: where an event is durable before ClickHouse has it.
//!
//! An append-only log of segments on the local disk. A segment is written to,
//! then sealed, then inserted into ClickHouse as one block under its id as the
//! token, then deleted. Its bytes never change once it is sealed, and its id
//! never names other bytes: that is what makes repeating an insert safe.
//!
//! The log knows rows as bytes. It knows neither ClickHouse nor deduplication.

mod capacity;
pub mod dedup_window;
mod frame;
mod frames;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod holders;
mod kept;
#[cfg(test)]
mod model;
mod readers;
#[cfg(test)]
mod readers_tests;
mod recovery;
mod salvage;
mod segment;
mod spare;
mod tag;
mod tokenless;
mod writer;

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use uuid::Uuid;

pub use frame::{Frame, FrameError};
pub use frames::SegmentFrames;
pub use holders::Holders;
pub use kept::Kept;
pub use readers::{LogPosition, LogReader, LogReaders, LogRows};
pub use recovery::distrust_tokens;
pub use salvage::Salvage;
pub use segment::{ClosedSegment, Ordinal, Segment, SegmentState, Segments};
pub use tag::{SegmentTag, SegmentTags};

use crate::clock::ArrivalClock;
use crate::data_dir::make_durably;
use crate::log::dedup_window::CurrentDedupWindow;
use crate::private_files;
use capacity::Capacity;
use kept::KeptFiles;
use spare::Spares;
use writer::{Command, Writer, sync_dir};

/// The log's bounds. See the settings of the same names in
/// [`crate::config::Config`].
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// The directory of the segments.
    pub dir: PathBuf,
    /// Largest size on disk, in bytes.
    pub bytes_max: u64,
    /// Free space to leave on the disk, in bytes.
    pub free_bytes_min: u64,
    /// Most bytes of what is kept beside the log: what was cut off, and damaged segments.
    pub kept_bytes_max: u64,
    /// Most rows of a segment.
    pub segment_rows_max: u32,
    /// Largest segment, in bytes.
    pub segment_bytes_max: u64,
    /// Time between two segments when the forwarder keeps up.
    pub segment_linger: Duration,
    /// How many segments the forwarder inserts at a time.
    pub inserts_in_flight_max: usize,
    /// Who needs the files of segments that are in ClickHouse. Each calls [`Log::release`].
    pub holders: Holders,
    /// New segments have higher ids than this: no reader may take them for what it has read.
    pub ids_above: u128,
}

/// Why rows were not taken into the log. They are not in it, and will not be
/// found in it later.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The log has reached its bound.
    #[error("the log holds {bytes_max} bytes that ClickHouse has not taken yet, its bound (log_bytes_max)")]
    Full {
        /// The bound.
        bytes_max: u64,
    },
    /// The disk has no room above the reserve.
    #[error(
        "the disk of the log has {free_bytes} bytes free, of which the setting log_free_bytes_min keeps {reserve_bytes}"
    )]
    DiskReserve {
        /// Free space, in bytes.
        free_bytes: u64,
        /// The reserve, in bytes.
        reserve_bytes: u64,
    },
    /// The disk has no room.
    #[error("the disk of the log is full")]
    DiskFull,
    /// The disk failed.
    #[error("the log cannot be written: {0}")]
    Io(String),
    /// The log is shut.
    #[error("the log is shut")]
    Shut,
}

impl AppendError {
    fn io(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::Io(error.to_string()),
        }
    }
}

/// Why the log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process works with it.
    #[error(
        "the log in {dir} is in use: its lock file is held by {holder}; stop that process, or use another data_dir"
    )]
    InUse {
        /// The log's directory.
        dir: PathBuf,
        /// Who holds its lock, as far as can be told.
        holder: String,
    },
    /// The disk failed.
    #[error("the log in {dir} cannot be opened: {source}")]
    Io {
        /// The log's directory.
        dir: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The log. Dropping it seals the open segment and ends its thread.
pub struct Log {
    segments: Arc<Segments>,
    readers: Arc<LogReaders>,
    settings: LogSettings,
    kept: KeptFiles,
    capacity: Arc<Capacity>,
    commands: Mutex<Option<mpsc::Sender<Command>>>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    /// Held as long as the log is open: the directory has one owner.
    _lock: File,
}

impl Log {
    /// Opens the log, cutting off a torn end. Every segment that a former run
    /// left is sealed or parked.
    pub fn open(
        settings: LogSettings,
        clock: Arc<ArrivalClock>,
        dedup_window: Arc<CurrentDedupWindow>,
    ) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Io { dir: settings.dir.clone(), source };
        make_durably(&settings.dir).map_err(failed)?;
        private_files::create_dir(&settings.dir).map_err(failed)?;
        // In a directory that others cannot enter: whoever can open it could lock it.
        let lock_path = settings.dir.join("lock");
        private_files::close_to_others(&lock_path).map_err(failed)?;
        let lock = private_files::create(&lock_path).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                let holder = private_files::lock_holder(&lock_path);
                let holder = holder.unwrap_or_else(|| "another process, which cannot be seen from here".to_owned());
                return Err(OpenError::InUse { dir: settings.dir.clone(), holder });
            }
            Err(std::fs::TryLockError::Error(error)) => return Err(failed(error)),
        }
        let segments = Arc::new(Segments::default());
        let kept = KeptFiles::new(settings.dir.clone(), settings.kept_bytes_max);
        let recovered = recovery::recover(&settings.dir, &kept).map_err(failed)?;
        kept.make_room(0);
        let next_ordinal = recovered.len() as Ordinal;
        for segment in recovered {
            segments.put(Segment { held_by: settings.holders, ..segment });
        }
        let readers = LogReaders::open(&settings.dir, Arc::clone(&segments)).map_err(failed)?;
        let last_id = segments.list().iter().map(|segment| segment.id.as_u128()).max().unwrap_or_default();
        let ids_above = settings.ids_above.max(readers.last_id()).max(last_id);
        let (commands, received) = mpsc::channel();
        let spares = Spares::start(settings.dir.clone(), ids_above).map_err(failed)?;
        let capacity = Arc::new(Capacity::new(settings.clone(), Arc::clone(&segments), Arc::clone(&readers)));
        let writer = Writer::new(Arc::clone(&capacity), clock, dedup_window, next_ordinal, received, spares);
        let thread =
            std::thread::Builder::new().name("log-writer".to_owned()).spawn(move || writer.run()).map_err(failed)?;
        Ok(Self {
            segments,
            readers,
            settings,
            kept,
            capacity,
            commands: Mutex::new(Some(commands)),
            thread: Mutex::new(Some(thread)),
            _lock: lock,
        })
    }

    /// The segments that are not in ClickHouse yet.
    pub const fn segments(&self) -> &Arc<Segments> {
        &self.segments
    }

    /// Who reads the log beside the forwarder.
    pub const fn readers(&self) -> &Arc<LogReaders> {
        &self.readers
    }

    /// Why the log would refuse what has been asked of it last, as the disk and ClickHouse are now; none when
    /// it would take it. Looks at the disk, and after a failed write writes a small file there: it may block.
    pub fn refusal(&self) -> Option<AppendError> {
        self.capacity.refusal()
    }

    /// Puts a frame in line. Frames are written in the order of the calls. The
    /// answer comes once the frame is on disk, with its segment, or was
    /// refused; an answer that never comes means the log was shut.
    pub fn append(&self, mut frame: Frame) -> oneshot::Receiver<Result<Ordinal, AppendError>> {
        frame.note_call();
        let (done, answer) = oneshot::channel();
        if let Some(Command::Append(_, done)) = self.command(Command::Append(frame, done)) {
            let _ = done.send(Err(AppendError::Shut));
        }
        answer
    }

    /// Sends a command, or gives it back when the log is shut.
    fn command(&self, command: Command) -> Option<Command> {
        match &*self.commands.lock() {
            Some(commands) => commands.send(command).err().map(|error| error.0),
            None => Some(command),
        }
    }

    /// Seals the open segment without waiting for its time.
    pub async fn seal(&self) {
        let (done, sealed) = oneshot::channel();
        self.command(Command::Seal(done));
        let _ = sealed.await; // A shut log has sealed already.
    }

    /// Takes the oldest sealed segment, to insert it. Give it back with one of
    /// [`Log::stored`], [`Log::failed`] and [`Log::park`].
    pub fn take_sealed(&self) -> Option<Segment> {
        self.segments.take_sealed()
    }

    /// What is kept beside the log. Reads the directory.
    pub fn kept(&self) -> Kept {
        self.kept.kept()
    }

    /// A segment could not be read as it was written: searches its file for what is good, to be stored without
    /// its token. Says whether there is something, that was not known before. Blocks.
    pub fn salvage(&self, segment: &Segment) -> io::Result<Option<Segment>> {
        let found = Salvage::of_file(&segment.path, segment.id)?.map(Arc::new);
        let Some(salvage) = found.filter(|found| segment.salvage.as_ref() != Some(found)) else { return Ok(None) };
        let error = recovery::tell_salvage(segment.id, &salvage);
        self.segments.update(segment.ordinal, |segment| {
            segment.rows = salvage.rows;
            segment.salvage = Some(salvage);
            segment.last_error = Some(error);
        });
        Ok(self.segments.find(segment.ordinal))
    }

    /// A segment is in ClickHouse. Its file goes, or is kept until its holders have released it. Blocks on the disk.
    pub fn stored(&self, segment: &Segment) {
        if let Err(error) = self.readers.hold(segment) {
            // Without a second name its readers would lose it. The next start stores it again, which changes nothing.
            tracing::error!(%error, segment = %segment.id, "a segment cannot be held for its readers; it stays in the log");
            self.failed(segment, error.to_string());
            return;
        }
        let kept_as = segment::segment_path(&self.settings.dir, segment.id, SegmentState::Stored);
        // Were the new name lost in a power failure, the segment would be settled once more, which
        // changes nothing.
        let kept_as = match std::fs::rename(&segment.path, &kept_as) {
            Ok(()) => kept_as,
            Err(error) => {
                tracing::warn!(%error, segment = %segment.id, "a stored segment keeps its old name");
                segment.path.clone()
            }
        };
        if self.segments.store(segment.ordinal, kept_as.clone()) {
            self.remove(&Segment { path: kept_as, ..segment.clone() });
        } else {
            self.forget_distrust(segment.id);
        }
        self.command(Command::Look);
    }

    /// A holder does not need these segments any more: the files of those that are stored, and that nobody else
    /// needs, go. Blocks on the disk.
    pub fn release(&self, segments: impl IntoIterator<Item = Ordinal>, holder: Holders) {
        let free = segments.into_iter().filter_map(|ordinal| self.segments.release(ordinal, holder));
        free.for_each(|segment| self.remove(&segment));
    }

    /// The file of a segment that nobody needs goes. (A damaged one is kept beside.)
    fn remove(&self, segment: &Segment) {
        let gone = match &segment.salvage {
            None => std::fs::remove_file(&segment.path),
            Some(_) => self.kept.keep_damaged(segment.id, &segment.path),
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
        let is_noted = tokenless::is_noted(&self.settings.dir, segment);
        match is_noted
            .and_then(|is_noted| if is_noted { sync_dir(&self.settings.dir).map(|()| true) } else { Ok(false) })
        {
            Ok(true) => tokenless::forget(&self.settings.dir, segment),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, %segment, "a note beside the log could not be deleted"),
        }
    }

    /// Notes durably that a segment's token must not be relied on any more: its events are about to be inserted
    /// without it. Blocks on the disk.
    ///
    /// # Errors
    /// The disk's. Nothing may be inserted without the token then.
    pub fn distrust_token(&self, segment: &Segment) -> io::Result<()> {
        tokenless::note(&self.settings.dir, segment.id)
    }

    /// Whether [`Log::distrust_token`] was called for a segment, in this run or a former one.
    ///
    /// # Errors
    /// The disk's.
    pub fn is_token_distrusted(&self, segment: &Segment) -> io::Result<bool> {
        tokenless::is_noted(&self.settings.dir, segment.id)
    }

    /// An insert failed and is worth repeating.
    pub fn failed(&self, segment: &Segment, error: String) {
        self.segments.update(segment.ordinal, |segment| segment.last_error = Some(error));
    }

    /// An insert failed in a way that waiting does not mend.
    pub fn park(&self, segment: &Segment, error: String) {
        self.change_state(segment, SegmentState::Parked, Some(error));
        self.command(Command::Look);
    }

    /// Puts the parked segments back in line, and returns how many they are.
    pub fn retry_parked(&self) -> usize {
        let is_parked = |segment: &Segment| segment.state == SegmentState::Parked;
        let parked: Vec<Segment> = self.segments.list().into_iter().filter(is_parked).collect();
        for segment in &parked {
            self.change_state(segment, SegmentState::Sealed, segment.last_error.clone());
        }
        parked.len()
    }

    fn change_state(&self, segment: &Segment, state: SegmentState, last_error: Option<String>) {
        let path = segment::segment_path(&self.settings.dir, segment.id, state);
        let renamed = std::fs::rename(&segment.path, &path).and_then(|()| sync_dir(&self.settings.dir));
        if let Err(error) = &renamed {
            tracing::warn!(%error, segment = %segment.id, "a segment keeps its old name");
        }
        self.segments.update(segment.ordinal, |segment| {
            segment.state = state;
            segment.last_error = last_error;
            if renamed.is_ok() {
                segment.path = path;
            }
        });
    }

    /// Takes no more appends, and returns once all that came before are on
    /// disk and sealed.
    pub async fn shut(&self) {
        drop(self.commands.lock().take());
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        drop(self.commands.lock().take());
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}
