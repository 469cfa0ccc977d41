//! Readers of a log in memory.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::MemoryStorage;
use crate::log::frame::SegmentReader;
use crate::log::{LogPosition, LogReader, LogRows, SegmentState, Segments};

#[derive(Default)]
pub(super) struct Readers {
    /// The first segment that each reader needs, by its name.
    pub(super) needs: HashMap<usize, u128>,
    pub(super) added: usize,
    pub(super) is_complete: bool,
}

impl Readers {
    pub(super) fn need(&self, id: u128) -> bool {
        !self.is_complete || self.needs.values().any(|from| *from <= id)
    }

    pub(super) fn delete_passed(&self, storage: &MemoryStorage) {
        storage.0.lock().held.retain(|id, _| self.need(*id));
    }
}

pub(super) struct MemoryReader {
    pub(super) storage: MemoryStorage,
    pub(super) segments: Arc<Segments>,
    pub(super) readers: Arc<Mutex<Readers>>,
    pub(super) name: usize,
}

impl LogReader for MemoryReader {
    fn read(&self, from: LogPosition, rows_max: u64) -> io::Result<Option<LogRows>> {
        // In this order: a segment is held before it leaves the list.
        let contents = self.storage.0.lock();
        let live: BTreeSet<u128> = self.segments.list().iter().map(|segment| segment.id.as_u128()).collect();
        let held = contents.held.range(from.segment..).next().map(|(id, _)| *id);
        let Some(id) = live.range(from.segment..).next().copied().into_iter().chain(held).min() else {
            return Ok(None);
        };
        let (bytes, is_open) = match contents.held.get(&id) {
            Some(bytes) => (bytes, false),
            None => (&contents.segments[&id].bytes, contents.segments[&id].state == SegmentState::Open),
        };
        let from_row = if id == from.segment { from.row } else { 0 };
        let mut reader = SegmentReader::new(bytes.as_slice()).map_err(io::Error::other)?;
        let mut rows = LogRows { columns: reader.header().columns.clone(), ..LogRows::default() };
        let (mut frame, mut first, mut is_at_end) = (Vec::new(), 0, false);
        while rows.count.saturating_sub(rows.skip) < rows_max {
            frame.clear();
            let Some(count) = reader.next_frame(&mut frame).map_err(io::Error::other)? else {
                is_at_end = true;
                break;
            };
            if first + rows.count + u64::from(count) <= from_row {
                first += u64::from(count);
                continue;
            }
            rows.count += u64::from(count);
            rows.skip = from_row.saturating_sub(first);
            rows.bytes.extend_from_slice(&frame);
        }
        rows.first = LogPosition { segment: id, row: first.max(from_row) };
        rows.next = match is_at_end && !is_open {
            true => LogPosition { segment: id + 1, row: 0 },
            false => LogPosition { segment: id, row: first + rows.count },
        };
        Ok((rows.next > from).then_some(rows))
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.segments.changes()
    }

    fn release(&self, segment: u128) {
        self.readers.lock().needs.insert(self.name, segment);
        self.readers.lock().delete_passed(&self.storage);
    }

    fn missed(&self) -> u64 {
        0
    }

    fn give_up(&self) {
        self.readers.lock().needs.remove(&self.name);
        self.readers.lock().delete_passed(&self.storage);
    }
}
