//! Whether the log can take more: its own bound, the reserve on its disk, and the last failed write.
//!
//! The writer asks before every write. A probe asks too, at times when nothing is written: so the answer is
//! worked out anew from the disk and the segments, and does not rest on what was refused before, except for
//! the size that found no room.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tallyhouse_disk::{Disk, create_anew};

use super::readers::LogReaders;
use super::segment::Segments;
use super::{AppendError, LogSettings};

/// How long a reading of the disk's free space is believed.
const FREE_SPACE_FOR: Duration = Duration::from_millis(100);
/// Shortest time between a failed write and a trial of the disk, and between two trials.
const TRIAL_PAUSE: Duration = Duration::from_secs(1);
/// Most bytes of a trial.
const TRIAL_BYTES_MAX: u64 = 64 << 10;
/// Nothing has been refused.
const NONE: u64 = u64::MAX;

/// Decides whether the log can take more bytes, for the writer and for health checks.
pub(super) struct Capacity {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) settings: LogSettings,
    pub(super) segments: Arc<Segments>,
    pub(super) readers: Arc<LogReaders>,
    free_space: Mutex<Option<(Instant, u64)>>,
    /// The smallest number of bytes that were refused since something was taken.
    refused_bytes: AtomicU64,
    failure: Mutex<Option<Failure>>,
}

/// A write has failed, and none has succeeded since.
struct Failure {
    error: AppendError,
    bytes: u64,
    /// When the disk was last tried, by that write or since.
    tried_at: Instant,
}

/// The room for further bytes.
pub(super) struct Room {
    below_bound: u64,
    above_reserve: u64,
    full: AppendError,
    disk: AppendError,
}

impl Room {
    /// Why so many bytes do not fit; none when they do.
    pub(super) fn refuses(&self, bytes: u64) -> Option<AppendError> {
        let bytes = bytes.max(1);
        if bytes > self.above_reserve {
            Some(self.disk.clone())
        } else if bytes > self.below_bound {
            Some(self.full.clone())
        } else {
            None
        }
    }
}

impl Capacity {
    /// Nothing has been refused.
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        settings: LogSettings,
        segments: Arc<Segments>,
        readers: Arc<LogReaders>,
    ) -> Self {
        let (refused_bytes, failure) = (AtomicU64::new(NONE), Mutex::default());
        Self { disk, settings, segments, readers, free_space: Mutex::default(), refused_bytes, failure }
    }

    /// How much may be written now. Each lane asks by itself, so that together they may exceed the bound by a group.
    pub(super) fn room(&self) -> Result<Room, AppendError> {
        let LogSettings { bytes_max, free_bytes_min, .. } = self.settings;
        let free_bytes = self.free_bytes()?;
        let disk = match free_bytes_min {
            0 => AppendError::DiskFull,
            reserve_bytes => AppendError::DiskReserve { free_bytes, reserve_bytes },
        };
        Ok(Room {
            below_bound: bytes_max.saturating_sub(self.segments.bytes() + self.readers.bytes()),
            above_reserve: free_bytes.saturating_sub(free_bytes_min),
            full: AppendError::Full { bytes_max },
            disk,
        })
    }

    fn free_bytes(&self) -> Result<u64, AppendError> {
        let mut last = self.free_space.lock();
        if let Some((_, free)) = last.filter(|(read_at, _)| read_at.elapsed() < FREE_SPACE_FOR) {
            return Ok(free);
        }
        let free = self.disk.free_bytes(&self.settings.dir).map_err(|error| AppendError::io(&error))?;
        *last = Some((Instant::now(), free));
        Ok(free)
    }

    /// So many bytes did not fit.
    pub(super) fn refused(&self, bytes: u64) {
        self.refused_bytes.fetch_min(bytes, Ordering::Relaxed);
    }

    /// Something was written.
    pub(super) fn taken(&self) {
        self.refused_bytes.store(NONE, Ordering::Relaxed);
        *self.failure.lock() = None;
    }

    /// A write of so many bytes failed.
    pub(super) fn failed(&self, error: AppendError, bytes: u64) {
        *self.free_space.lock() = None;
        *self.failure.lock() = Some(Failure { error, bytes, tried_at: Instant::now() });
    }

    /// Why the log would refuse now what was last asked of it; none when it would take it.
    pub(super) fn refusal(&self) -> Option<AppendError> {
        let refused = self.refused_bytes.load(Ordering::Relaxed);
        let wanted = if refused == NONE { 1 } else { refused };
        match self.room() {
            Ok(room) => room.refuses(wanted).or_else(|| self.lasting_failure()),
            Err(error) => Some(error),
        }
    }

    /// The error of the last write, unless the disk takes a trial by now. Without it, a service that nobody
    /// sends events to because it is not ready would never become ready again.
    fn lasting_failure(&self) -> Option<AppendError> {
        let mut failure = self.failure.lock();
        let last = failure.as_mut()?;
        if last.tried_at.elapsed() >= TRIAL_PAUSE {
            last.tried_at = Instant::now();
            match self.try_disk(last.bytes) {
                Ok(()) => *failure = None,
                Err(error) => last.error = AppendError::io(&error),
            }
        }
        failure.as_ref().map(|failure| failure.error.clone())
    }

    /// Writes about so many bytes beside the log, syncs them and takes them away.
    fn try_disk(&self, bytes: u64) -> io::Result<()> {
        let path = self.settings.dir.join("trial");
        let bytes = usize::try_from(bytes.min(TRIAL_BYTES_MAX)).unwrap_or_default();
        let tried = create_anew(&*self.disk, &path).and_then(|file| {
            file.write_all_at(&vec![0; bytes], 0)?;
            file.sync_all()
        });
        let removed = self.disk.remove(&path);
        tried.and(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capacity(bytes_max: u64, free_bytes_min: u64) -> (tempfile::TempDir, Capacity) {
        let dir = tempfile::tempdir().unwrap();
        let settings = LogSettings {
            dir: dir.path().to_owned(),
            bytes_max,
            free_bytes_min,
            kept_bytes_max: 0,
            segment_rows_max: 1,
            segment_bytes_max: 1,
            segment_linger: Duration::ZERO,
            inserts_in_flight_max: 1,
            holders: super::super::Holders::NONE,
            ids_above: 0,
            reader_bounds: Default::default(),
        };
        let segments = Arc::<Segments>::default();
        let other = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(tallyhouse_disk::RealDisk);
        let readers =
            LogReaders::open(Arc::clone(&disk), other.path(), Arc::clone(&segments), Default::default()).unwrap();
        let capacity = Capacity::new(disk, settings, segments, readers);
        (dir, capacity)
    }

    #[test]
    fn the_reserve_is_told_from_the_bound() {
        let (_dir, within) = capacity(1_000, 0);
        assert_eq!(within.refusal(), None);
        assert_eq!(within.room().unwrap().refuses(1_001), Some(AppendError::Full { bytes_max: 1_000 }));
        let (_dir, reserved) = capacity(1_000, u64::MAX);
        let refusal = reserved.refusal().unwrap();
        assert!(matches!(refusal, AppendError::DiskReserve { reserve_bytes: u64::MAX, .. }), "{refusal}");
        assert!(refusal.to_string().contains("log_free_bytes_min"), "{refusal}");
    }

    #[test]
    fn what_found_no_room_is_asked_for_again_until_something_is_taken() {
        let (_dir, capacity) = capacity(1_000, 0);
        capacity.refused(5_000);
        assert_eq!(capacity.refusal(), Some(AppendError::Full { bytes_max: 1_000 }));
        capacity.refused(400);
        assert_eq!(capacity.refusal(), None, "the smaller one fits now");
        capacity.refused(5_000);
        capacity.taken();
        assert_eq!(capacity.refusal(), None);
    }

    #[test]
    fn a_failed_write_is_reported_until_the_disk_takes_a_trial() {
        let (dir, capacity) = capacity(1_000, 0);
        capacity.failed(AppendError::Io("broken".to_owned()), 10);
        assert_eq!(capacity.refusal(), Some(AppendError::Io("broken".to_owned())));
        let long_ago = Instant::now().checked_sub(TRIAL_PAUSE).unwrap();
        capacity.failure.lock().as_mut().unwrap().tried_at = long_ago;
        assert_eq!(capacity.refusal(), None);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the trial leaves nothing");
    }
}
