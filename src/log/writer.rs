//! The thread that owns the open segment of a lane.
//!
//! Appends that arrive while a sync is under way form the next group: one
//! write and one fdatasync for all of them. There is no timer, so a lone
//! append waits for nobody, and groups grow with the load.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SendError, Sender};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::oneshot;
use uuid::Uuid;

use super::capacity::Capacity;
use super::frame::{Frame, FrameCall, SegmentHeader};
use super::lanes::{Lane, OldDays, SCATTERED_INSERTS_MAX};
use super::open_segment::OpenSegment;
use super::segment::{Ordinal, Segment, SegmentState, Segments};
use super::segment_file::{SegmentFile, segment_path};
use super::segment_opener::SegmentOpener;
use super::spare::SpareFile;
use super::{AppendError, LogSettings};
use crate::clock::ArrivalClock;
use crate::event_row;
use crate::instruments;
use crate::log::dedup_window::CurrentDedupWindow;
use crate::trace::{self, Calls, KeyValue};

/// Time between two looks whether a reader of the log waits for the open segment to be sealed: `segment_linger`, within
/// these bounds.
const READERS_LOOK_PAUSE_MIN: Duration = Duration::from_millis(10);
const READERS_LOOK_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Most bytes of one write.
const GROUP_BYTES_MAX: usize = 4 << 20;

/// What the writer is asked to do.
pub(super) enum Command {
    /// Make a frame durable, and say in which segment.
    Append(Frame, oneshot::Sender<Result<Ordinal, AppendError>>),
    /// The forwarder has taken a segment or given one back, or the log has a new reader: look again whether the open one
    /// is due.
    Look,
    /// Seal the open segment now. One without events that is older than another lane's is given up.
    Seal(oneshot::Sender<()>),
}

/// Writes the open segment of a lane. Owned by one thread, which receives commands through a channel.
pub(super) struct Writer {
    pub(super) lane: Lane,
    pub(super) settings: LogSettings,
    pub(super) segments: Arc<Segments>,
    capacity: Arc<Capacity>,
    pub(super) clock: Arc<ArrivalClock>,
    pub(super) dedup_window: Arc<CurrentDedupWindow>,
    pub(super) opener: Arc<SegmentOpener>,
    /// Takes the batches with too many days for this lane; none: this lane takes all.
    scattered: Option<Sender<Command>>,
    /// The old days of the open segment, and of what waits.
    old_days: Option<OldDays>,
    open: Option<OpenSegment>,
    last_seal: Option<Instant>,
    /// A write failed and what it left behind could not be cut off yet.
    broken: bool,
    waiting: VecDeque<(Frame, oneshot::Sender<Result<Ordinal, AppendError>>)>,
    group: Vec<u8>,
}

impl Writer {
    pub(super) fn new(
        lane: Lane,
        capacity: Arc<Capacity>,
        clock: Arc<ArrivalClock>,
        dedup_window: Arc<CurrentDedupWindow>,
        opener: Arc<SegmentOpener>,
        scattered: Option<Sender<Command>>,
    ) -> Self {
        Self {
            lane,
            settings: capacity.settings.clone(),
            segments: Arc::clone(&capacity.segments),
            capacity,
            clock,
            dedup_window,
            opener,
            scattered,
            old_days: None,
            open: None,
            last_seal: None,
            broken: false,
            waiting: VecDeque::new(),
            group: Vec::new(),
        }
    }

    /// Works until every sender of commands has gone, then seals.
    pub(super) fn run(mut self, commands: &Receiver<Command>) {
        loop {
            let command = match self.linger_left() {
                _ if !self.waiting.is_empty() => Ok(Command::Look),
                Some(left) => commands.recv_timeout(left),
                None => commands.recv().map_err(RecvTimeoutError::from),
            };
            match command {
                Ok(command) => self.take(command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            while let Ok(command) = commands.try_recv() {
                self.take(command);
            }
            self.turn();
        }
        self.finish();
    }

    /// Makes the next group durable, and seals the open segment when it is due.
    pub(super) fn turn(&mut self) {
        self.commit_group();
        if self.is_due() {
            self.seal();
        }
        if self.open.as_ref().is_some_and(|open| self.holds_up_readers(open)) {
            self.give_up_empty();
        }
    }

    /// Makes all that waits durable, and seals it.
    pub(super) fn finish(&mut self) {
        while !self.waiting.is_empty() {
            self.commit_group();
        }
        self.seal();
    }

    /// Ends as [`Writer::run`] does.
    #[cfg(test)]
    pub(super) fn end(mut self) {
        self.finish();
        if let Some(opener) = Arc::into_inner(self.opener) {
            opener.end();
        }
    }

    pub(super) fn take(&mut self, command: Command) {
        match command {
            Command::Append(frame, done) => self.queue(frame, done),
            Command::Look => {}
            Command::Seal(done) => {
                self.finish();
                self.give_up_empty();
                let _ = done.send(()); // Whoever asked may have gone.
            }
        }
    }

    /// Puts a frame in line, or hands it on to the scattered lane.
    fn queue(&mut self, frame: Frame, done: oneshot::Sender<Result<Ordinal, AppendError>>) {
        let of_segment = || OldDays::of_segment(self.clock.order_micros());
        let is_admitted = self.scattered.is_none() || self.old_days.get_or_insert_with(of_segment).admit(frame.days());
        match &self.scattered {
            Some(scattered) if !is_admitted => {
                if let Err(SendError(Command::Append(_, done))) = scattered.send(Command::Append(frame, done)) {
                    let _ = done.send(Err(AppendError::Shut)); // A caller that went away is not told.
                }
            }
            Some(_) | None => self.waiting.push_back((frame, done)),
        }
    }

    /// How long until the open segment is due; none when only an event, the forwarder or a new reader can make it so.
    fn linger_left(&self) -> Option<Duration> {
        let open = self.open.as_ref()?;
        let left = if open.rows > 0 { self.linger() } else { Duration::ZERO };
        if !left.is_zero() {
            return Some(left);
        }
        // Past its time it waits for the forwarder, which sends `Look`, and for what is opened after it.
        let look_pause = self.settings.segment_linger.clamp(READERS_LOOK_PAUSE_MIN, READERS_LOOK_PAUSE_MAX);
        self.capacity.readers.is_read().then_some(look_pause)
    }

    /// What is left of the time between two segments.
    fn linger(&self) -> Duration {
        let since = self.last_seal.map_or(Duration::MAX, |sealed_at| sealed_at.elapsed());
        self.settings.segment_linger.saturating_sub(since)
    }

    fn is_full(&self) -> bool {
        let full = |open: &OpenSegment| {
            open.rows >= u64::from(self.settings.segment_rows_max)
                || open.durable_bytes >= self.settings.segment_bytes_max
        };
        self.open.as_ref().is_some_and(full)
    }

    /// A segment is sealed when it is full, or when the last one was sealed long
    /// enough ago and the forwarder is free to insert it at once. So a lone
    /// event waits for nothing, and a steady stream makes few segments a
    /// second. While the forwarder is busy the segment rather grows: few large inserts cost ClickHouse less than many small
    /// ones, and it would only stand in line. Readers of the log do not get past an open segment, so it is sealed all the
    /// same when they are there and another one has been opened since.
    fn is_due(&self) -> bool {
        let lingered = |open: &OpenSegment| {
            open.rows > 0 && self.linger().is_zero() && (self.is_forwarder_free() || self.holds_up_readers(open))
        };
        self.is_full() || self.open.as_ref().is_some_and(lingered)
    }

    fn is_forwarder_free(&self) -> bool {
        let inserts_max = match self.lane.waits_in() {
            Lane::Scattered => SCATTERED_INSERTS_MAX,
            Lane::Main | Lane::Unknown => self.settings.inserts_in_flight_max,
        };
        self.segments.backlog_of(self.lane) < inserts_max
    }

    fn holds_up_readers(&self, open: &OpenSegment) -> bool {
        self.opener.has_opened_since(open.ordinal) && self.capacity.readers.is_read()
    }

    /// Makes the next group of waiting frames durable, and answers them.
    fn commit_group(&mut self) {
        let mut answers = Vec::new();
        let mut calls = Vec::new();
        let mut rows = 0;
        self.group.clear();
        let room = self.capacity.room();
        let segment_rows = self.open.as_ref().map_or(0, |open| open.rows);
        while let Some((frame, _)) = self.waiting.front() {
            let bytes = self.group.len() + frame.bytes().len();
            let segment_is_full = segment_rows + rows >= u64::from(self.settings.segment_rows_max);
            if !self.group.is_empty() && (bytes > GROUP_BYTES_MAX || segment_is_full) {
                break;
            }
            let Some((mut frame, done)) = self.waiting.pop_front() else { break };
            let refusal = room.as_ref().map_or_else(|error| Some(error.clone()), |room| room.refuses(bytes as u64));
            if let Some(refusal) = refusal {
                self.capacity.refused(frame.bytes().len() as u64);
                let _ = done.send(Err(refusal)); // A caller that went away is not told.
                continue;
            }
            self.group.extend_from_slice(frame.bytes());
            rows += u64::from(frame.rows());
            calls.extend(frame.take_call());
            answers.push(done);
        }
        if answers.is_empty() {
            return;
        }
        let result = self.write_group(rows, calls);
        if let Err(error) = &result {
            tracing::error!(%error, "the log could not be written; events are refused");
        }
        for done in answers {
            let _ = done.send(result.clone()); // A caller that went away is not told.
        }
        self.group.shrink_to(GROUP_BYTES_MAX);
    }

    #[allow(clippy::vec_box, reason = "as the frames have them")]
    fn write_group(&mut self, rows: u64, calls: Vec<Box<FrameCall>>) -> Result<Ordinal, AppendError> {
        self.mend()?;
        let (begin, begun_at) = (Instant::now(), SystemTime::now());
        let group = std::mem::take(&mut self.group);
        let rows_of_group = rows;
        let written = self.open_segment().and_then(|open| {
            open.append(&group, rows)?;
            Ok((open.ordinal, open.id, open.rows, open.durable_bytes))
        });
        self.group = group;
        match written {
            Ok((ordinal, id, rows, bytes)) => {
                self.capacity.taken();
                instruments::log_synced(rows_of_group, begin.elapsed());
                for call in &calls {
                    note_append(call, id, rows_of_group, begun_at);
                }
                self.segments.update(ordinal, |segment| {
                    segment.rows = rows;
                    segment.rows_written = rows;
                    segment.bytes = bytes;
                    calls.into_iter().for_each(|call| segment.calls.add(call.span));
                });
                Ok(ordinal)
            }
            Err(error) => {
                self.broken = true;
                self.capacity.failed(AppendError::io(&error), self.group.len() as u64);
                // The events of this group are refused, so their bytes must
                // not be found later beside those of their repetition.
                let _ = self.mend(); // It is tried again before the next write.
                Err(AppendError::io(&error))
            }
        }
    }

    /// After a failed write: cuts off what it may have left behind.
    fn mend(&mut self) -> Result<(), AppendError> {
        if !self.broken {
            return Ok(());
        }
        if let Some(open) = &self.open {
            open.cut().map_err(|error| {
                let error = AppendError::io(&error);
                self.capacity.failed(error.clone(), 1);
                error
            })?;
        }
        self.broken = false;
        Ok(())
    }

    /// The open segment, made now if there is none.
    fn open_segment(&mut self) -> io::Result<&mut OpenSegment> {
        if self.open.is_none() {
            let open = self.create_segment()?;
            self.open = Some(open);
        }
        self.open.as_mut().ok_or_else(|| io::Error::other("no open segment"))
    }

    fn create_segment(&self) -> io::Result<OpenSegment> {
        self.opener.open(|spare, ordinal| self.list_segment(spare, ordinal))
    }

    fn list_segment(&self, spare: SpareFile, ordinal: Ordinal) -> OpenSegment {
        let SpareFile { file, id, path } = spare;
        let opened_at_micros = self.clock.order_micros();
        let dedup_window = self.dedup_window.get();
        let header =
            SegmentHeader { id, opened_at_micros, dedup_window, columns: event_row::COLUMNS.to_owned() }.encode();
        self.segments.put(Segment {
            id,
            ordinal,
            state: SegmentState::Open,
            lane: self.lane,
            rows: 0,
            rows_written: 0,
            bytes: 0,
            opened_at_micros,
            opened: Instant::now(),
            dedup_window,
            salvage: None,
            held_by: self.settings.holders,
            last_error: None,
            calls: Calls::default(),
            source: SegmentFile::new(&self.capacity.disk, path),
        });
        OpenSegment { file, id, ordinal, header, rows: 0, durable_bytes: 0 }
    }

    /// Gives up a segment whose first write has failed, when another has been opened since: it is never sealed while
    /// nothing more comes, and readers do not get past it.
    fn give_up_empty(&mut self) {
        let is_in_the_way = |open: &OpenSegment| open.rows == 0 && self.opener.has_opened_since(open.ordinal);
        // What was written must have been cut off, as it is refused.
        if !self.open.as_ref().is_some_and(is_in_the_way) || self.mend().is_err() {
            return;
        }
        if let Some(open) = self.open.take() {
            self.segments.discard(open.ordinal);
            let path = segment_path(&self.settings.dir, open.id, SegmentState::Open);
            let _ = self.capacity.disk.remove(&path); // The next start removes it too.
        }
    }

    /// The old days of what waits, which the next segment will have.
    fn old_days_of_waiting(&self) -> Option<OldDays> {
        if self.waiting.is_empty() {
            return None;
        }
        let mut old_days = OldDays::of_segment(self.clock.order_micros());
        self.waiting.iter().for_each(|(frame, _)| _ = old_days.admit(frame.days()));
        Some(old_days)
    }

    /// Freezes the open segment and hands it to the forwarder.
    fn seal(&mut self) {
        if self.mend().is_err() || self.open.as_ref().is_none_or(|open| open.rows == 0) {
            return; // A segment with a damaged end must not be inserted.
        }
        let Some(open) = self.open.take() else { return };
        self.last_seal = Some(Instant::now());
        self.old_days = self.old_days_of_waiting();
        let from = segment_path(&self.settings.dir, open.id, SegmentState::Open);
        let to = segment_path(&self.settings.dir, open.id, SegmentState::Sealed);
        // Were the new name lost in a power failure, the file would be sealed
        // at the next start, with the same bytes under the same token.
        let path = match self.capacity.disk.rename(&from, &to) {
            Ok(()) => to,
            Err(error) => {
                tracing::warn!(%error, segment = %open.id, "a sealed segment keeps its old name");
                from
            }
        };
        let source = SegmentFile::new(&self.capacity.disk, path);
        self.segments.update(open.ordinal, |segment| {
            segment.state = SegmentState::Sealed;
            segment.source = source;
        });
    }
}

/// Notes in a call's trace how long its rows stood in line, and how long the
/// write and the sync of their group took.
fn note_append(call: &FrameCall, segment: Uuid, events: u64, begun_at: SystemTime) {
    let segment = KeyValue::new("tallyhouse.segment.id", segment.to_string());
    let events = KeyValue::new("tallyhouse.log.group.events", i64::try_from(events).unwrap_or(i64::MAX));
    trace::finished_span(&call.span, "log queue", call.queued_at, begun_at, Vec::new());
    trace::finished_span(&call.span, "log append", begun_at, SystemTime::now(), vec![segment, events]);
}
