//! Opens the segments of all lanes, one at a time.
//!
//! Their ids, their ordinals and their places in the list are in one order: whoever sees a segment in the list also sees
//! every one with a lower id that was opened before it. So a reader that goes from id to id passes none by.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::segment::Ordinal;
use super::spare::{SpareFile, Spares};

/// Shared by the writers of all lanes.
pub(super) struct SegmentOpener {
    spares: Mutex<Spares>,
    next_ordinal: AtomicU64,
}

impl SegmentOpener {
    /// The first segment gets this ordinal.
    pub(super) fn new(spares: Spares, next_ordinal: Ordinal) -> Self {
        Self { spares: Mutex::new(spares), next_ordinal: AtomicU64::new(next_ordinal) }
    }

    /// Takes a file and an ordinal for a segment, and lists it.
    ///
    /// # Errors
    /// When there is no file for it. Nothing is listed then.
    pub(super) fn open<T>(&self, list: impl FnOnce(SpareFile, Ordinal) -> T) -> io::Result<T> {
        let mut spares = self.spares.lock();
        let spare = spares.take()?;
        Ok(list(spare, self.next_ordinal.fetch_add(1, Ordering::Relaxed)))
    }

    /// Whether another segment has been opened since the one with this ordinal.
    pub(super) fn has_opened_since(&self, ordinal: Ordinal) -> bool {
        self.next_ordinal.load(Ordering::Relaxed) > ordinal + 1
    }
}

#[cfg(test)]
impl SegmentOpener {
    /// Makes the next file ahead, where that is done when it is told to.
    pub(super) fn make_ahead(&self) {
        if let Spares::Stepped(spares) = &mut *self.spares.lock() {
            spares.make();
        }
    }

    /// The file that was made ahead goes, as when the thread ends that makes them.
    pub(super) fn end(self) {
        if let Spares::Stepped(spares) = self.spares.into_inner() {
            spares.end();
        }
    }
}
