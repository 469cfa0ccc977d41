//! Writes a run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tallyhouse_disk::{Disk, DiskFile};
use uuid::Uuid;

use super::entry::{Day, Entry};
use super::error::LedgerError;
use super::filter::FiltersBuilder;
use super::id_time::IdTimes;
use super::page::{self, PAGE_ENTRIES};
use super::run::{KeyCheck, Run, Tail, run_path, tag_of};

/// Bytes that are written at a time.
const WRITE_BYTES: usize = 512 << 10;

/// A file that is being written: unless it is finished, it is removed, so that what was begun on a full disk takes no room.
struct Unfinished {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    is_finished: bool,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.is_finished {
            let _ = self.disk.remove(&self.path); // No manifest names it: else the next start removes it.
        }
    }
}

/// Writes entries in ascending order into a new file, which is removed unless [`RunWriter::finish`] succeeds.
pub(crate) struct RunWriter {
    id: Uuid,
    path: PathBuf,
    unfinished: Unfinished,
    file: Arc<dyn DiskFile>,
    key_check: KeyCheck,
    page: Vec<Entry>,
    buffer: Vec<u8>,
    written_bytes: u64,
    last: Option<Entry>,
    entries: u64,
    fences: Vec<u64>,
    filters: FiltersBuilder,
    days: BTreeMap<Day, u64>,
}

impl RunWriter {
    /// For about so many entries.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn create(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        expected_entries: u64,
        key_check: KeyCheck,
    ) -> Result<Self, LedgerError> {
        let id = Uuid::now_v7();
        let path = run_path(dir, id);
        let file = disk.create(&path).map_err(LedgerError::io(&path))?;
        let unfinished = Unfinished { disk: Arc::clone(disk), path: path.clone(), is_finished: false };
        Ok(Self {
            id,
            path,
            unfinished,
            file,
            key_check,
            page: Vec::with_capacity(PAGE_ENTRIES),
            buffer: Vec::with_capacity(WRITE_BYTES),
            written_bytes: 0,
            last: None,
            entries: 0,
            fences: Vec::new(),
            filters: FiltersBuilder::new(expected_entries),
            days: BTreeMap::new(),
        })
    }

    /// Adds an entry. Of entries with the same id the first stays.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn push(&mut self, entry: Entry) -> Result<(), LedgerError> {
        if let Some(last) = self.last {
            debug_assert!(last.id <= entry.id, "entries come in ascending order");
            if last.id == entry.id {
                return Ok(());
            }
        }
        self.last = Some(entry);
        if self.page.len() == PAGE_ENTRIES {
            self.finish_page()?;
        }
        self.filters.add(entry.id, &self.path)?;
        *self.days.entry(entry.day).or_default() += 1;
        self.entries += 1;
        self.page.push(entry);
        Ok(())
    }

    #[allow(clippy::cast_possible_truncation, reason = "a run of 2^32 pages would be 17 TB")]
    fn finish_page(&mut self) -> Result<(), LedgerError> {
        let Some(first) = self.page.first() else { return Ok(()) };
        let number = self.fences.len() as u32;
        self.fences.push(first.id.high);
        page::encode(&self.page, number, tag_of(self.id), &mut self.buffer);
        self.page.clear();
        if self.buffer.len() >= WRITE_BYTES { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), LedgerError> {
        self.file.write_all_at(&self.buffer, self.written_bytes).map_err(LedgerError::io(&self.path))?;
        self.written_bytes += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Writes the rest, and makes the file and its name durable: a manifest that names it may outlive
    /// a power failure that the name does not.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn finish(mut self, dir: &Path, id_times: IdTimes, has_untimed: bool) -> Result<Run, LedgerError> {
        self.finish_page()?;
        let filters = self.filters.finish(&self.path)?;
        let (entries, fences, days) = (self.entries, std::mem::take(&mut self.fences), std::mem::take(&mut self.days));
        let tail = Tail { entries, fences, filters, days, id_times, has_untimed };
        let encoded = tail.encode(tag_of(self.id), self.key_check);
        let offset = self.written_bytes + self.buffer.len() as u64;
        let trailer = Tail::trailer(offset, encoded.len() as u64);
        let disk_bytes = offset + (encoded.len() + trailer.len()) as u64;
        let end: Vec<u8> = [std::mem::take(&mut self.buffer), encoded, trailer].concat();
        self.file
            .write_all_at(&end, self.written_bytes)
            .and_then(|()| self.file.sync())
            .map_err(LedgerError::io(&self.path))?;
        self.unfinished.disk.sync_dir(dir).map_err(LedgerError::io(dir))?;
        self.unfinished.is_finished = true;
        Ok(Run::written(self.id, self.path, self.file, tail, disk_bytes))
    }
}
