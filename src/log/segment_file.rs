//! The file of a segment.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tallyhouse_disk::{Disk, DiskReader};
use uuid::Uuid;

use super::port::{SegmentBytes, SegmentSource};
use super::segment::SegmentState;

impl SegmentState {
    /// The file name's extension in this state.
    pub(super) const fn extension(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Sealed | Self::Inserting => "sealed",
            Self::Parked => "parked",
            Self::Stored => "stored",
        }
    }
}

/// The file of a segment in a state.
pub(super) fn segment_path(dir: &Path, id: Uuid, state: SegmentState) -> PathBuf {
    dir.join(format!("{id}.{}", state.extension()))
}

/// A file that holds a segment.
#[derive(Clone)]
pub(super) struct SegmentFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
}

impl SegmentFile {
    /// The file of this name.
    pub(super) fn new(disk: &Arc<dyn Disk>, path: PathBuf) -> Arc<Self> {
        Arc::new(Self { disk: Arc::clone(disk), path })
    }
}

impl fmt::Debug for SegmentFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(formatter)
    }
}

impl SegmentSource for SegmentFile {
    fn open(&self) -> io::Result<Box<dyn SegmentBytes>> {
        Ok(Box::new(DiskReader::new(self.disk.open(&self.path)?)))
    }

    fn path(&self) -> &Path {
        &self.path
    }
}
