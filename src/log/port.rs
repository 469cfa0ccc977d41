//! The port: what ingest, the forwarder and readers need of a log.
//!
//! [`DiskLog`](super::DiskLog) is the log of this service. Another one, such as a partition of Kafka, is another
//! implementation of [`EventLog`], wired in `server`. Whatever passes the suite in `conformance` will do. It keeps
//! its segments in [`Segments`], where each of them is on its way to ClickHouse, and hands out their bytes through
//! [`SegmentSource`].

use std::fmt::Debug;
use std::io::{self, Read, Seek};
use std::path::Path;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::{oneshot, watch};

use super::frame::Frame;
use super::holders::Holders;
use super::kept::Kept;
use super::lanes::Lane;
use super::readers::{LogPosition, LogRows};
use super::segment::{Ordinal, Segment, Segments};
use super::{AppendError, SegmentState};

/// What becomes of an append: the segment that its frame is durable in, or why it was refused. An answer that never
/// comes means that the log was shut.
pub type Appended = oneshot::Receiver<Result<Ordinal, AppendError>>;

/// A log of frames, cut into segments, each of one [`Lane`].
///
/// - Frames of a lane are in the log in the order of the appends. A frame is durable when its append is answered, and then it
///   is found once, whatever happens to the process and the machine, until its segment is stored.
/// - A frame that was refused is never found. One whose append was not answered is found once or not at all; the next
///   start decides, and it stays so.
/// - Each lane may have an open segment. Segments are listed in the order of their ids, before anything is written to
///   them.
/// - A segment that takes no more frames never changes, and its id never names other bytes. After a failure a
///   segment may come back that was stored; it has the same id and the same bytes then.
pub trait EventLog: Send + Sync + 'static {
    /// Puts a frame in line. Its days decide on its lane. Frames of a lane are written in the order of the calls.
    fn append(&self, frame: Frame) -> Appended;

    /// The segments that are not in ClickHouse yet.
    fn segments(&self) -> &Arc<Segments>;

    /// Why the log would refuse what has been asked of it last; none when it would take it. May block.
    fn refusal(&self) -> Option<AppendError>;

    /// Seals the open segments without waiting for their time.
    fn seal(&self) -> BoxFuture<'_, ()>;

    /// Takes no more appends, and returns once all that came before are durable and sealed.
    fn shut(&self) -> BoxFuture<'_, ()>;

    /// Takes the oldest sealed segment of a lane, to insert it. Give it back with one of [`EventLog::stored`],
    /// [`EventLog::failed`], [`EventLog::park`] and [`EventLog::move_to_scattered`].
    fn take_sealed(&self, lane: Lane) -> Option<Segment> {
        self.segments().take_sealed(lane)
    }

    /// A segment that a former run has left turns out to have events of many days: it waits in the other lane from now
    /// on.
    fn move_to_scattered(&self, segment: &Segment) {
        self.segments().update(segment.ordinal, |segment| {
            segment.lane = Lane::Scattered;
            segment.state = SegmentState::Sealed;
        });
    }

    /// A segment is in ClickHouse. Its bytes go, or are kept until its holders have released it and its readers have
    /// passed it. Blocks.
    fn stored(&self, segment: &Segment);

    /// An insert failed and is worth repeating.
    fn failed(&self, segment: &Segment, error: String) {
        self.segments().update(segment.ordinal, |segment| segment.last_error = Some(error));
    }

    /// An insert failed in a way that waiting does not mend. Durable. Blocks.
    fn park(&self, segment: &Segment, error: String);

    /// Puts the parked segments back in line, and returns how many they are. Blocks.
    fn retry_parked(&self) -> usize;

    /// A holder does not need these segments any more: those that are stored, and that nobody else needs, go. Blocks.
    fn release(&self, segments: &[Ordinal], holder: Holders);

    /// A segment could not be read as it was written: searches it for what is good, which may be nothing, to be stored without
    /// its token. None when that was known before. Blocks.
    ///
    /// # Errors
    /// When it cannot be read at all.
    fn salvage(&self, segment: &Segment) -> io::Result<Option<Segment>>;

    /// Notes durably that a segment's token must not be relied on any more: its events are about to be inserted
    /// without it. Blocks.
    ///
    /// # Errors
    /// Nothing may be inserted without the token then.
    fn distrust_token(&self, segment: &Segment) -> io::Result<()>;

    /// Whether [`EventLog::distrust_token`] was called for a segment, in this run or a former one.
    ///
    /// # Errors
    /// When it cannot be told.
    fn is_token_distrusted(&self, segment: &Segment) -> io::Result<bool>;

    /// Adds a reader that needs everything from this segment on.
    fn add_reader(&self, from: u128) -> Arc<dyn LogReader>;

    /// Adds a *bounded* reader that needs everything from this segment on: what is kept for it is bounded, and it
    /// misses the oldest segments beyond that. So a reader that is slow or gone keeps nobody from appending.
    fn add_bounded_reader(&self, from: u128) -> Arc<dyn LogReader>;

    /// The position behind the last row that is there now: every row whose append was answered before the call is before
    /// it, and every row that is appended after the answer is behind it. So an open segment that is older than that
    /// position is sealed first. While it cannot be sealed, because a write has failed, the position is the one in that
    /// segment, and rows of younger segments that are there already are behind it.
    fn end(&self) -> BoxFuture<'_, LogPosition>;

    /// All readers of a former run have been added: what nobody needs goes now. Blocks.
    fn readers_added(&self);

    /// Bytes of segments that are stored and kept for readers.
    fn held_bytes(&self) -> u64;

    /// What is kept beside the log for a person to look at. Blocks.
    fn kept(&self) -> Kept;
}

/// A reader of a log beside the forwarder: it reads all rows from positions of its own, segment by segment in the order of
/// their ids, so those of each lane in the order of arrival. What it has not read is held also after it is dropped: the
/// next run reads on.
///
/// It does not read beyond an open segment, to which rows may still be appended. So that it need not wait long, a log that
/// has readers seals an open segment soon after a younger one was opened, whether the forwarder is free or not.
pub trait LogReader: Send + Sync {
    /// Reads about `rows_max` rows at or after a position; none when there are none yet. Blocks.
    ///
    /// # Errors
    /// When a segment cannot be read.
    fn read(&self, from: LogPosition, rows_max: u64) -> io::Result<Option<LogRows>>;

    /// Tells of changes of the log from now on: there may be something to read.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Nothing before this segment is read again. Blocks.
    fn release(&self, segment: u128);

    /// Segments that were deleted before it had read them. Only a bounded reader misses any.
    fn missed(&self) -> u64;

    /// Nothing is held for it any more. Blocks.
    fn give_up(&self);
}

/// Where the bytes of a segment are.
pub trait SegmentSource: Debug + Send + Sync {
    /// Opens the bytes, in the format of a segment (see `frame`).
    ///
    /// # Errors
    /// When they cannot be had.
    fn open(&self) -> io::Result<Box<dyn SegmentBytes>>;

    /// Their file, or what else names them in messages.
    fn path(&self) -> &Path;
}

/// The bytes of a segment.
pub trait SegmentBytes: Read + Seek + Send {}

impl<T: Read + Seek + Send> SegmentBytes for T {}

/// The parked segments of a log.
pub(super) fn parked(segments: &Segments) -> Vec<Segment> {
    let is_parked = |segment: &Segment| segment.state == SegmentState::Parked;
    segments.list().into_iter().filter(is_parked).collect()
}
