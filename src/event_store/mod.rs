//! The port to the tables of events: inserts, readings and look-ups.

pub mod insert_gate;

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::domain::{OrgId, Timestamp};
use crate::hour_versions::TouchedHours;
use crate::log::dedup_window::DedupWindow;
use crate::trace::Calls;

/// The events of a look-up: rows of [`crate::event_row::PAYLOAD_COLUMNS`].
pub type PayloadRows = Vec<u8>;

/// One sealed segment, as one insert.
pub struct SegmentInsert {
    /// The insert's token: an insert repeated under its token changes nothing.
    pub token: Uuid,
    /// The columns of the rows, comma-separated.
    pub columns: String,
    /// The rows. An error in between means that the insert must not be
    /// completed.
    pub chunks: mpsc::Receiver<Result<Bytes, crate::log::FrameError>>,
    /// The calls that its events came with, as far as they are sampled.
    pub calls: Calls,
}

/// Which event of an organization to look for: the rest of its sorting key.
#[derive(Clone, Copy, Debug)]
pub struct EventKey<'a> {
    /// Its id.
    pub event_id: &'a str,
    /// Its time, in milliseconds since 1970.
    pub occurred_at_millis: i64,
}

/// A reading of events, in pieces of bytes that may end within a row: rows of
/// [`crate::event_row::PAYLOAD_COLUMNS`].
pub type EventReading = mpsc::Receiver<Result<Bytes, StoreError>>;

/// Which events to read, by the minutes they occurred in.
#[derive(Clone, Debug)]
pub enum MinuteSet {
    /// All.
    All,
    /// These: their first moments.
    These(Vec<Timestamp>),
}

/// Why the database did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It may do it later. It may also have done it.
    #[error("{0}")]
    Retry(String),
    /// It will not, until something is mended. It has not done it.
    #[error("{0}")]
    Refused(String),
}

/// Which database it is, and how much is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseState {
    /// Tells its table of events from every other that there was or will be.
    pub id: String,
    /// Rows in that table; repetitions that ClickHouse has not merged away yet count as well.
    pub events: u64,
}

/// The database, as ingest sees it. Implemented by ClickHouse, and by a double
/// that fails on purpose.
pub trait EventStore: Send + Sync + 'static {
    /// Inserts a segment as one block under its token. When it returns, every
    /// query sees the segment's events, in the raw table and in the rollups.
    fn insert(&self, segment: SegmentInsert) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Which database it is.
    fn state(&self) -> BoxFuture<'_, Result<DatabaseState, StoreError>>;

    /// Where in the deduplication window a token is that is given out now.
    fn dedup_window(&self) -> BoxFuture<'_, Result<DedupWindow, StoreError>>;

    /// How many blocks a table remembers tokens for, at least.
    fn token_blocks_max(&self) -> u64;

    /// For how long a table remembers a token, at least.
    fn token_age_max(&self) -> Duration;

    /// Whether an audit has begun to repair one of these hours since a moment
    /// (in microseconds since 1970): what was inserted in part before may have
    /// been completed by that.
    fn repaired_since<'a>(&'a self, hours: &'a TouchedHours, micros: u64) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// Returns once no insert that is running now runs any more, of this service or of another.
    fn inserts_ended(&self) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Inserts those events of a segment that are not stored, without relying
    /// on its token. The rollups may still lack events that the raw table had
    /// before: the audit must look at the segment's hours.
    fn settle(&self, segment: SegmentInsert) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Reads all events of these minutes.
    fn read<'a>(&'a self, minutes: &'a MinuteSet) -> BoxFuture<'a, Result<EventReading, StoreError>>;

    /// Finds those of these events of an organization that are stored.
    fn look_up<'a>(
        &'a self,
        org_id: &'a OrgId,
        keys: &'a [EventKey<'a>],
    ) -> BoxFuture<'a, Result<PayloadRows, StoreError>>;
}
