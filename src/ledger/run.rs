//! Runs: immutable files of entries in ascending order.
//!
//! ```text
//! pages    see `page`
//! tail     what is kept in memory: where pages begin, filters, days, times within ids
//! trailer  u64 offset of the tail, u64 its length, CRC-32C of both
//! ```
//!
//! A run is written once, synced, and only then named by the manifest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tallyhouse_disk::{Disk, DiskFile};
use uuid::Uuid;

use super::codec::{Reader, Writer};
use super::entry::{Asked, Day, Entry, Fingerprint};
use super::error::LedgerError;
use super::filter::Filters;
use super::id_time::IdTimes;
use super::page::{PAGE_BYTES, Page};

const MAGIC: u64 = u64::from_le_bytes(*b"tallyrun");
const FORMAT: u32 = 1;
const TRAILER_BYTES: u64 = 20;
/// Pages that are read at a time when a run is read from end to end.
const PAGES_AT_A_TIME: u64 = 64;

/// Which hash keys made the fingerprints of a ledger: a hash of the key, which does not tell the key.
pub type KeyCheck = u64;

/// What is known of a run without its pages.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) entries: u64,
    /// The high bits of the first id of each page.
    pub(crate) fences: Vec<u64>,
    pub(crate) filters: Filters,
    /// How many entries there are of each day.
    pub(crate) days: BTreeMap<Day, u64>,
    pub(crate) id_times: IdTimes,
    /// Some ids have no time in them.
    pub(crate) has_untimed: bool,
}

impl Tail {
    pub(crate) fn encode(&self, tag: u32, key_check: KeyCheck) -> Vec<u8> {
        let mut to = Writer::default();
        to.u64(MAGIC);
        to.u32(FORMAT);
        to.u32(tag);
        to.u64(key_check);
        to.u64(self.entries);
        to.u64(self.fences.len() as u64);
        self.fences.iter().for_each(|fence| to.u64(*fence));
        to.u64(self.days.len() as u64);
        for (day, entries) in &self.days {
            to.u32(day.0.into());
            to.u64(*entries);
        }
        to.u32(self.has_untimed.into());
        to.u64(self.id_times.ranges().len() as u64);
        for (first, last) in self.id_times.ranges() {
            to.u64(*first);
            to.u64(*last);
        }
        self.filters.encode(&mut to);
        to.into_checked()
    }

    fn decode(bytes: &[u8], tag: u32, key_check: KeyCheck) -> Option<Self> {
        let mut from = Reader::checked(bytes)?;
        let is_ours = from.u64()? == MAGIC && from.u32()? == FORMAT && from.u32()? == tag && from.u64()? == key_check;
        if !is_ours {
            return None;
        }
        let entries = from.u64()?;
        let fences: Option<Vec<u64>> = (0..from.count(8)?).map(|_| from.u64()).collect();
        let mut days = BTreeMap::new();
        for _ in 0..from.count(12)? {
            days.insert(Day(u16::try_from(from.u32()?).ok()?), from.u64()?);
        }
        let has_untimed = from.u32()? != 0;
        let ranges: Option<Vec<(u64, u64)>> = (0..from.count(16)?).map(|_| Some((from.u64()?, from.u64()?))).collect();
        let id_times = IdTimes::of_ranges(ranges?)?;
        let filters = Filters::decode(&mut from)?;
        let tail = Self { entries, fences: fences?, filters, days, id_times, has_untimed };
        (from.is_empty() && tail.fences.is_sorted()).then_some(tail)
    }

    /// The end of a run's file that says where this tail of so many bytes begins.
    pub(crate) fn trailer(offset: u64, bytes: u64) -> Vec<u8> {
        let mut to = Writer::default();
        to.u64(offset);
        to.u64(bytes);
        to.into_checked()
    }
}

/// An open run: its tail in memory and its file for reading pages. Immutable.
pub(crate) struct Run {
    pub(crate) id: Uuid,
    pub(crate) path: PathBuf,
    pub(crate) tail: Tail,
    pub(crate) disk_bytes: u64,
    file: Arc<dyn DiskFile>,
    tag: u32,
    /// A page could not be read as it was written.
    is_damaged: AtomicBool,
}

/// The file of a run.
pub(crate) fn run_path(dir: &Path, id: Uuid) -> PathBuf {
    dir.join(format!("{id}.run"))
}

/// The run that a file is named after.
pub(crate) fn run_of(file_name: &str) -> Option<Uuid> {
    Uuid::parse_str(file_name.strip_suffix(".run")?).ok()
}

/// What every page of a run carries.
pub(crate) fn tag_of(id: Uuid) -> u32 {
    let [.., a, b, c, d] = *id.as_bytes();
    u32::from_le_bytes([a, b, c, d])
}

impl Run {
    /// A run that has just been written.
    pub(crate) fn written(id: Uuid, path: PathBuf, file: Arc<dyn DiskFile>, tail: Tail, disk_bytes: u64) -> Self {
        Self { id, path, tail, disk_bytes, file, tag: tag_of(id), is_damaged: AtomicBool::new(false) }
    }

    /// Reads what is kept in memory.
    ///
    /// # Errors
    /// `Damaged` when the file is missing, or its tail is not what was written.
    pub(crate) fn open(disk: &dyn Disk, dir: &Path, id: Uuid, key_check: KeyCheck) -> Result<Self, LedgerError> {
        let (path, tag) = (run_path(dir, id), tag_of(id));
        let file = disk.open(&path).map_err(LedgerError::read(&path))?;
        let disk_bytes = file.bytes().map_err(LedgerError::read(&path))?;
        let damaged = || LedgerError::damaged(&path, "its tail is not what was written");
        let trailer_offset = disk_bytes.checked_sub(TRAILER_BYTES).ok_or_else(damaged)?;
        let trailer = read(&*file, &path, trailer_offset, TRAILER_BYTES)?;
        let (offset, bytes) = trailer_of(&trailer).ok_or_else(damaged)?;
        if offset.checked_add(bytes) != Some(trailer_offset) {
            return Err(damaged());
        }
        let tail = read(&*file, &path, offset, bytes)?;
        let tail = Tail::decode(&tail, tag, key_check).ok_or_else(damaged)?;
        if tail.fences.len() as u64 * PAGE_BYTES as u64 != offset {
            return Err(damaged());
        }
        Ok(Self { id, path, tail, disk_bytes, file, tag, is_damaged: AtomicBool::new(false) })
    }

    /// False only when the id is not there. Reads memory alone.
    pub(crate) fn may_hold(&self, asked: &Asked) -> bool {
        let is_in_time = match asked.time_in_id {
            Some(millis) => self.tail.id_times.may_hold(millis),
            None => self.tail.has_untimed,
        };
        is_in_time && self.tail.filters.may_hold(asked.id)
    }

    /// Whether a page could not be read as it was written, since this was opened. What is in memory of it is good.
    pub(crate) fn is_damaged(&self) -> bool {
        self.is_damaged.load(Ordering::Relaxed)
    }

    fn note_damage<T>(&self, read: Result<T, LedgerError>) -> Result<T, LedgerError> {
        if read.is_err() {
            self.is_damaged.store(true, Ordering::Relaxed);
        }
        read
    }

    /// The entry of an id, from disk.
    ///
    /// # Errors
    /// `Io`, or `Damaged` when a page is not what was written.
    pub(crate) fn get(&self, id: Fingerprint) -> Result<Option<Entry>, LedgerError> {
        self.note_damage(self.find(id))
    }

    fn find(&self, id: Fingerprint) -> Result<Option<Entry>, LedgerError> {
        let fences = &self.tail.fences;
        // Ids that share their high bits may lie on both sides of where pages meet.
        let first = fences.partition_point(|fence| *fence < id.high).saturating_sub(1);
        let end = fences.partition_point(|fence| *fence <= id.high);
        let mut bytes = [0; PAGE_BYTES];
        for number in first as u64..end as u64 {
            self.file.read_exact_at(&mut bytes, number * PAGE_BYTES as u64).map_err(LedgerError::read(&self.path))?;
            if let Some(entry) = self.page(&bytes, number)?.get(id) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    #[allow(clippy::cast_possible_truncation, reason = "a run of 2^32 pages would be 17 TB")]
    fn page<'a>(&self, bytes: &'a [u8], number: u64) -> Result<Page<'a>, LedgerError> {
        Page::check(bytes, number as u32, self.tag)
            .ok_or_else(|| LedgerError::damaged(&self.path, "a page is not what was written"))
    }

    /// The last day of its entries; none when it has none.
    pub(crate) fn last_day(&self) -> Option<Day> {
        self.tail.days.last_key_value().map(|(day, _)| *day)
    }

    /// How many of its entries are of days before this one.
    pub(crate) fn entries_before(&self, day: Day) -> u64 {
        self.tail.days.range(..day).map(|(_, entries)| entries).sum()
    }

    /// Bytes of memory it takes, about.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let ranges = self.tail.id_times.ranges().len() + self.tail.days.len() * 2;
        self.tail.filters.bytes() + (self.tail.fences.len() * 8 + ranges * 16) as u64
    }

    /// Reads all entries, in order, many pages at a time.
    pub(crate) const fn entries(&self) -> Entries<'_> {
        Entries { run: self, next_page: 0, pages: Vec::new(), read: Vec::new() }
    }
}

fn trailer_of(bytes: &[u8]) -> Option<(u64, u64)> {
    let mut from = Reader::checked(bytes)?;
    Some((from.u64()?, from.u64()?))
}

fn read(file: &dyn DiskFile, path: &Path, offset: u64, bytes: u64) -> Result<Vec<u8>, LedgerError> {
    let bytes = usize::try_from(bytes).map_err(|_| LedgerError::damaged(path, "it is longer than memory"))?;
    let mut content = vec![0; bytes];
    file.read_exact_at(&mut content, offset).map_err(LedgerError::read(path))?;
    Ok(content)
}

/// The entries of a run, in order. Ends after an error.
pub(crate) struct Entries<'a> {
    run: &'a Run,
    next_page: u64,
    pages: Vec<u8>,
    /// Entries that were read, last first.
    read: Vec<Entry>,
}

impl Entries<'_> {
    fn read_pages(&mut self) -> Result<(), LedgerError> {
        let all = self.run.tail.fences.len() as u64;
        let count = PAGES_AT_A_TIME.min(all - self.next_page);
        let (offset, bytes) = (self.next_page * PAGE_BYTES as u64, count * PAGE_BYTES as u64);
        self.pages = read(&*self.run.file, &self.run.path, offset, bytes)?;
        for (page, number) in self.pages.chunks(PAGE_BYTES).zip(self.next_page..) {
            self.read.extend(self.run.page(page, number)?.entries());
        }
        self.read.reverse();
        self.next_page += count;
        Ok(())
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, LedgerError>;

    fn next(&mut self) -> Option<Self::Item> {
        let is_due = self.read.is_empty() && self.next_page < self.run.tail.fences.len() as u64;
        if is_due && let Err(error) = self.run.note_damage(self.read_pages()) {
            self.next_page = u64::MAX;
            self.read.clear();
            return Some(Err(error));
        }
        self.read.pop().map(Ok)
    }
}
