//! What every log must do: a suite that each implementation of [`EventLog`] runs.
//!
//! An implementation comes with a [`LogFactory`] that opens it, opens it again, and lets power fail beneath it.

mod lanes;
mod model;
mod readers;

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::proptest;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tallyhouse_disk::{Disk, SimulatedDisk};
use tempfile::TempDir;
use uuid::Uuid;

use super::disk_log::Recovered;
use super::memory::MemoryStorage;
use super::spare::Spares;
use super::writer_handle::WriterHandle;
use super::*;

/// Most rows of a segment in the suite.
const SEGMENT_ROWS_MAX: u32 = 6;

/// What a log of the suite is opened with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    /// Who needs stored segments.
    pub(super) holders: Holders,
    /// New segments have higher ids.
    pub(super) ids_above: u128,
    /// How much is held for readers.
    pub(super) reader_bounds: ReaderBounds,
    /// Time between two segments, where they are sealed by time.
    pub(super) segment_linger: Duration,
}

impl Options {
    const PLAIN: Self = Self {
        holders: Holders::NONE,
        ids_above: 0,
        reader_bounds: ReaderBounds { bounded_bytes_max: u64::MAX },
        segment_linger: Duration::from_secs(3_600),
    };

    fn settings(self, dir: &Path) -> LogSettings {
        LogSettings {
            dir: dir.to_owned(),
            bytes_max: 1 << 30,
            free_bytes_min: 0,
            kept_bytes_max: 1 << 20,
            segment_rows_max: SEGMENT_ROWS_MAX,
            segment_bytes_max: 1 << 20,
            segment_linger: self.segment_linger,
            inserts_in_flight_max: 2,
            holders: self.holders,
            ids_above: self.ids_above,
            reader_bounds: self.reader_bounds,
        }
    }
}

/// Opens logs of one implementation, one after the other, on what the last one left.
pub(super) trait LogFactory {
    /// The implementation.
    type Log: EventLog;

    /// On nothing.
    fn new() -> Self;

    /// Opens the log. The last one has been dropped.
    fn open(&self, options: Options) -> Self::Log;

    /// Power fails while a log works, of which it is known up to where each open segment is durable. The seed chooses
    /// what is left.
    fn fail_power(&mut self, log: Self::Log, durable: &HashMap<Uuid, u64>, seed: u64);

    /// Files of segments that nobody needs any more, where they can be counted.
    fn left_behind(&self) -> usize {
        0
    }
}

/// The log on the real disk.
pub(super) struct InDirectory(TempDir);

impl LogFactory for InDirectory {
    type Log = DiskLog;

    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn open(&self, options: Options) -> DiskLog {
        DiskLog::open(options.settings(self.0.path()), Arc::default(), Arc::default()).unwrap()
    }

    /// What was written is there, as after a kill, and behind the last durable byte may be anything.
    fn fail_power(&mut self, log: DiskLog, durable: &HashMap<Uuid, u64>, seed: u64) {
        let copy = loop {
            if let Ok(copy) = snapshot(self.0.path()) {
                break copy;
            }
        };
        drop(log);
        self.0 = copy;
        damage_tails(self.0.path(), durable, &mut StdRng::seed_from_u64(seed));
    }

    fn left_behind(&self) -> usize {
        std::fs::read_dir(self.0.path().join("held")).map_or(0, Iterator::count)
    }
}

/// Spoils what lies behind the last durable byte of each open segment.
fn damage_tails(dir: &Path, durable: &HashMap<Uuid, u64>, random: &mut StdRng) {
    let files = std::fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path());
    let mut open: Vec<_> = files.filter(|path| path.extension().is_some_and(|found| found == "open")).collect();
    open.sort();
    for path in open {
        let id = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        let safe = durable.get(&id).map_or(0, |bytes| usize::try_from(*bytes).unwrap());
        damage_tail(&path, safe, random);
    }
}

fn damage_tail(path: &Path, safe: usize, random: &mut StdRng) {
    let mut bytes = std::fs::read(path).unwrap();
    assert!(safe <= bytes.len(), "what is acknowledged is in the file");
    match random.random_range(0..4) {
        0 => {}
        1 => bytes.truncate(random.random_range(safe..=bytes.len())),
        2 if safe == bytes.len() => {}
        2 => {
            let at = random.random_range(safe..bytes.len());
            bytes[at] ^= 0x10;
        }
        _ => bytes.extend((0..random.random_range(1..40)).map(|_| random.random::<u8>())),
    }
    std::fs::write(path, bytes).unwrap();
}

/// A copy of a directory's files as they are at one moment: fails when any of
/// them changes meanwhile.
fn snapshot(dir: &Path) -> io::Result<TempDir> {
    let copy = tempfile::tempdir()?;
    let files = sizes(dir)?;
    for name in files.keys() {
        std::fs::copy(dir.join(name), copy.path().join(name))?;
    }
    if sizes(dir)? == files { Ok(copy) } else { Err(io::Error::other("it has changed")) }
}

/// The sizes of a directory's files. (What readers hold is in a directory of its own; there are none here.)
fn sizes(dir: &Path) -> io::Result<BTreeMap<OsString, u64>> {
    let mut sizes = BTreeMap::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_file() {
            sizes.insert(entry.file_name(), metadata.len());
        }
    }
    Ok(sizes)
}

/// The same log, with its threads, on a simulated disk.
pub(super) struct OnSimulatedDisk(SimulatedDisk);

impl LogFactory for OnSimulatedDisk {
    type Log = DiskLog;

    fn new() -> Self {
        Self(SimulatedDisk::new())
    }

    fn open(&self, options: Options) -> DiskLog {
        let (disk, dir): (Arc<dyn Disk>, _) = (Arc::new(self.0.clone()), Path::new("/log"));
        disk.create_dir(dir).unwrap();
        let recovered = Recovered::open(Arc::clone(&disk), options.settings(dir)).unwrap();
        let spares = Spares::start(disk, dir.to_owned(), recovered.ids_above).unwrap();
        recovered.start(Arc::default(), Arc::default(), spares, WriterHandle::start, None).unwrap()
    }

    fn fail_power(&mut self, log: DiskLog, _: &HashMap<Uuid, u64>, seed: u64) {
        let left = self.0.after_power_failure(seed);
        drop(log);
        self.0 = left;
    }

    fn left_behind(&self) -> usize {
        self.0.list(Path::new("/log/held")).map_or(0, |files| files.len())
    }
}

/// The log in memory.
pub(super) struct InMemory(MemoryStorage);

impl LogFactory for InMemory {
    type Log = MemoryLog;

    fn new() -> Self {
        Self(MemoryStorage::default())
    }

    fn open(&self, options: Options) -> MemoryLog {
        let Options { holders, ids_above, .. } = options;
        MemoryLog::open(&self.0, SEGMENT_ROWS_MAX.into(), holders, ids_above, Default::default())
    }

    fn fail_power(&mut self, log: MemoryLog, _: &HashMap<Uuid, u64>, _: u64) {
        drop(log); // Whatever it has is durable.
    }
}

/// Days of events that a segment of the lane has room for, when it is new.
fn days_of(lane: Lane) -> Vec<DayNumber> {
    if lane == Lane::Scattered { (0..100).collect() } else { vec![0] }
}

macro_rules! suite {
    ($name:ident, $factory:ty) => {
        mod $name {
            use super::*;

            proptest! {
                #[test]
                fn nothing_acknowledged_is_lost_doubled_reordered_or_changed(steps in model::steps()) {
                    model::nothing_acknowledged_is_lost_doubled_reordered_or_changed::<$factory>(&steps);
                }
            }

            #[test]
            fn whatever_lies_behind_the_last_acknowledged_byte_costs_nothing() {
                model::whatever_lies_behind_the_last_acknowledged_byte_costs_nothing::<$factory>();
            }

            #[test]
            fn what_was_decided_about_a_segment_survives_a_restart() {
                model::what_was_decided_about_a_segment_survives_a_restart(&<$factory>::new());
            }

            #[test]
            fn a_shut_log_has_sealed_and_takes_nothing() {
                model::a_shut_log_has_sealed_and_takes_nothing(&<$factory>::new());
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn every_reader_reads_every_row_once_and_in_order() {
                readers::every_reader_reads_every_row_once_and_in_order::<$factory>().await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn every_row_is_read_once_while_both_lanes_are_written() {
                readers::every_row_is_read_once_while_both_lanes_are_written::<$factory>().await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn a_row_within_a_frame_can_be_read_from() {
                readers::a_row_within_a_frame_can_be_read_from(&<$factory>::new()).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn ids_rise_whatever_the_clock_says_and_readers_hold_what_they_need() {
                readers::ids_rise_whatever_the_clock_says_and_readers_hold_what_they_need(&<$factory>::new()).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn a_reader_for_everything_and_one_from_the_end_meet() {
                readers::a_reader_for_everything_and_one_from_the_end_meet(&<$factory>::new()).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn nothing_is_missed_behind_the_end_of_either_lane() {
                readers::nothing_is_missed_behind_the_end_of_either_lane::<$factory>().await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn the_end_is_behind_what_was_stored_before_an_older_segment() {
                readers::the_end_is_behind_what_was_stored_before_an_older_segment(&<$factory>::new()).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn readers_get_past_an_open_segment_of_either_lane() {
                lanes::readers_get_past_an_open_segment_of_either_lane(&<$factory>::new()).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn frames_of_many_days_have_segments_of_their_own() {
                lanes::frames_of_many_days_have_segments_of_their_own(&<$factory>::new()).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn what_a_former_run_left_is_of_the_main_lane_until_it_is_moved() {
                lanes::what_a_former_run_left_is_of_the_main_lane_until_it_is_moved(&<$factory>::new()).await;
            }
        }
    };
}

/// Memory does not bound what readers keep, nor what waits for the forwarder.
#[tokio::test(flavor = "multi_thread")]
async fn a_bounded_reader_misses_the_oldest_and_holds_up_nobody() {
    readers::a_bounded_reader_misses_the_oldest_and_holds_up_nobody::<InDirectory>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bounded_reader_reads_or_misses_what_is_stored_after_younger_segments() {
    readers::a_bounded_reader_reads_or_misses_what_is_stored_after_younger_segments(&InDirectory::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scattered_insert_under_way_stops_no_other() {
    lanes::a_scattered_insert_under_way_stops_no_other(&InDirectory::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_waits_at_the_oldest_open_segment() {
    lanes::a_reader_waits_at_the_oldest_open_segment(&InDirectory::new()).await;
}

suite!(disk_log, InDirectory);
suite!(disk_log_on_a_simulated_disk, OnSimulatedDisk);
suite!(memory_log, InMemory);
