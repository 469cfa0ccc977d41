//! The log: where an event is durable before ClickHouse has it.
//!
//! A log is cut into segments. A segment is written to, then sealed, then inserted into ClickHouse as one block under
//! its id as the token, then deleted. Its bytes never change once it is sealed, and its id never names other bytes:
//! that is what makes repeating an insert safe.
//!
//! [`EventLog`] says what the rest of the service needs of a log; [`DiskLog`] is the one on the local disk.
//!
//! A log knows rows as bytes. It knows neither ClickHouse nor deduplication.

mod capacity;
mod claim;
#[cfg(test)]
mod conformance;
pub mod dedup_window;
mod disk_log;
mod frame;
mod frames;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod holders;
mod kept;
mod lanes;
#[cfg(test)]
mod memory;
mod open_segment;
mod port;
mod readers;
mod recovery;
mod salvage;
mod segment;
mod segment_file;
mod segment_opener;
#[cfg(test)]
mod simulation;
mod spare;
mod tag;
mod tokenless;
mod writer;
mod writer_handle;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub use disk_log::DiskLog;
pub use frame::{Frame, FrameError};
pub use frames::SegmentFrames;
pub use holders::Holders;
pub use kept::Kept;
pub use lanes::{DayNumber, Lane, OldDays, SCATTERED_INSERTS_MAX};
#[cfg(test)]
pub(crate) use memory::{MemoryLog, MemoryStorage};
pub use port::{Appended, EventLog, LogReader, SegmentBytes, SegmentSource};
pub use readers::{LogPosition, LogRows, ReaderBounds};
pub use recovery::distrust_tokens;
pub use salvage::Salvage;
pub use segment::{ClosedSegment, Ordinal, Segment, SegmentState, Segments};
pub use tag::{SegmentTag, SegmentTags};

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
    /// Who needs the files of segments that are in ClickHouse. Each calls [`EventLog::release`].
    pub holders: Holders,
    /// New segments have higher ids than this: no reader may take them for what it has read.
    pub ids_above: u128,
    /// How much is held for readers.
    pub reader_bounds: ReaderBounds,
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
