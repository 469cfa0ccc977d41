//! The store on a disk that loses power, judged by an oracle.
//!
//! From a seed: calls begin, finish and are forgotten, in groups that share a transaction; the process is killed
//! before any operation of the disk and started again, or power fails. What was answered must be found, and of the
//! group that was under way all or nothing.

use std::path::Path;
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use redb::ReadableDatabase as _;
use tallyhouse_disk::{CrashPoint, Seeds, SimulatedDisk};

use super::*;

const DIR: &str = "/data";
const BOUNDS: KeyBounds = KeyBounds { keys_max: 1_000, bytes_max: 1 << 20, share_percent: 100 };
/// Most processes of one life, and most groups of one process.
const PROCESSES_MAX: u32 = 4;
const GROUPS_MAX: u32 = 8;
/// Keys that calls share.
const KEYS: u32 = 12;

/// Time, print and answer of each key.
type Keys = BTreeMap<Vec<u8>, (u64, BodyHash, Vec<u8>)>;

/// One change of one key.
#[derive(Clone, Debug)]
enum Change {
    Begin { key: Vec<u8>, print: BodyHash, now: u64 },
    Finish { key: Vec<u8>, at: u64, answer: Vec<u8> },
    Forget { key: Vec<u8>, at: u64 },
}

impl Change {
    fn any(random: &mut SmallRng, keys: &Keys, now: u64) -> Self {
        let key = format!("org{}\0key {}", random.random_range(0..3), random.random_range(0..KEYS)).into_bytes();
        let at = keys.get(&key).map_or(now, |(at, ..)| *at);
        match random.random_range(0..4) {
            0 | 1 => Self::Begin { key, print: [random.random_range(0..2); 32], now },
            2 => Self::Finish { key, at, answer: vec![7; random.random_range(1..3_000)] },
            _ => Self::Forget { key, at },
        }
    }

    fn apply(&self, keys: &mut Keys) {
        match self.clone() {
            Self::Begin { key, print, now } => _ = keys.entry(key).or_insert((now, print, Vec::new())),
            Self::Finish { key, at, answer } => {
                if let Some(record) = keys.get_mut(&key).filter(|(begun, ..)| *begun == at) {
                    record.2 = answer;
                }
            }
            Self::Forget { key, at } => {
                if keys.get(&key).is_some_and(|(begun, ..)| *begun == at) {
                    keys.remove(&key);
                }
            }
        }
    }

    fn request(&self) -> Request {
        match self.clone() {
            Self::Begin { key, print, now } => Request::Begin { key, print, now, reply: oneshot::channel().0 },
            Self::Finish { key, at, answer } => Request::Finish { key, at, answer, reply: oneshot::channel().0 },
            Self::Forget { key, at } => Request::Forget { key, at, reply: oneshot::channel().0 },
        }
    }
}

struct Simulation {
    random: SmallRng,
    disk: SimulatedDisk,
    keys: Keys,
    /// The keys when the group that was under way is committed.
    undecided: Option<Keys>,
    now: u64,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let random = SmallRng::seed_from_u64(seed);
        Self { random, disk: SimulatedDisk::new(), keys: Keys::new(), undecided: None, now: 0 }
    }

    fn thread(&self) -> Result<StoreThread, KeyStoreError> {
        let (disk, path): (Arc<dyn Disk>, _) = (Arc::new(self.disk.clone()), Path::new(DIR).join("keys.redb"));
        disk.create_dir(Path::new(DIR))?;
        Ok(StoreThread { database: Some(open(&*disk, &path)?), disk, path, bounds: BOUNDS })
    }

    /// Opens the store and works until the disk fails, or long enough.
    fn work(&mut self) -> Result<(), KeyStoreError> {
        let mut thread = self.thread()?;
        let disk = self.disk.clone();
        disk.observe(|| self.judge(&thread));
        for _ in 0..self.random.random_range(0..GROUPS_MAX) {
            self.now += 1;
            let mut after = self.keys.clone();
            let mut changes = Vec::new();
            for _ in 0..self.random.random_range(1..5) {
                let change = Change::any(&mut self.random, &after, self.now);
                change.apply(&mut after);
                changes.push(change);
            }
            self.undecided = Some(after);
            thread.transact(changes.iter().map(Change::request).collect(), &mut Vec::new())?;
            self.keys = self.undecided.take().unwrap_or_default();
        }
        disk.observe(|| self.judge(&thread));
        Ok(())
    }

    /// Compares what is stored with what must be, and decides what was undecided.
    fn judge(&mut self, thread: &StoreThread) {
        let transaction = thread.database.as_ref().unwrap().begin_read().unwrap();
        let records = transaction.open_table(RECORDS).unwrap();
        let mut found = Keys::new();
        for entry in records.iter().unwrap() {
            let (key, record) = entry.unwrap();
            let Record { at, print, answer } = Record::read(record.value()).unwrap();
            found.insert(key.value().to_vec(), (at, print, answer.to_vec()));
        }
        let undecided = self.undecided.take();
        assert!(
            found == self.keys || undecided.as_ref() == Some(&found),
            "what was answered is not there, or not whole"
        );
        self.keys = found;
        let times = transaction.open_table(TIMES).unwrap();
        assert_eq!(times.len().unwrap(), self.keys.len() as u64);
    }
}

/// One life of a store. Returns whether the disk has failed.
fn live(seed: u64) -> bool {
    let mut simulation = Simulation::new(seed);
    let mut has_failed = false;
    for _ in 0..simulation.random.random_range(1..=PROCESSES_MAX) {
        let left = simulation.random.random_range(0..150);
        simulation.disk.crash_at(CrashPoint(simulation.disk.operations() + left));
        let worked = simulation.work();
        assert!(worked.is_ok() || simulation.disk.has_crashed(), "{worked:?}");
        has_failed |= worked.is_err();
        if simulation.random.random_bool(0.5) {
            simulation.disk.restart();
        } else {
            simulation.disk = simulation.disk.after_power_failure(simulation.random.random());
        }
    }
    simulation.disk = simulation.disk.after_power_failure(seed);
    let thread = simulation.thread().unwrap();
    simulation.judge(&thread);
    has_failed
}

#[test]
fn what_was_answered_is_found_whole_wherever_power_fails() {
    let (failures, seeds) = Seeds { name: "KEYS", count: 100 }.run(live);
    let failures = failures.len() as u64;
    assert!(seeds < 100 || failures > seeds / 3, "the disk failed in {failures} of {seeds} lives only");
}

#[test]
fn a_file_that_was_not_finished_when_power_failed_is_made_again() {
    for point in 0.. {
        let mut simulation = Simulation::new(0);
        simulation.disk.crash_at(CrashPoint(point));
        let is_made = simulation.thread().is_ok();
        let disk = simulation.disk.clone();
        for seed in 0..10 {
            simulation.disk = disk.after_power_failure(seed);
            assert!(simulation.thread().is_ok(), "power failed at {point}, seed {seed}");
        }
        if is_made {
            return;
        }
    }
}

#[test]
fn what_a_start_has_answered_from_survives_a_power_failure() {
    let mut unsynced = 0;
    for left in 0..60 {
        let mut simulation = Simulation::new(0);
        let mut thread = simulation.thread().unwrap();
        let begin = Change::Begin { key: b"org\0key".to_vec(), print: [1; 32], now: 7 };
        let mut after = Keys::new();
        begin.apply(&mut after);
        simulation.disk.crash_at(CrashPoint(simulation.disk.operations() + left));
        let begun = thread.transact(vec![begin.request()], &mut Vec::new());
        drop(thread);
        simulation.disk.restart();
        simulation.undecided = Some(after);
        let thread = simulation.thread().unwrap();
        simulation.judge(&thread);
        unsynced += usize::from(begun.is_err() && !simulation.keys.is_empty());
        let disk = simulation.disk.clone();
        for seed in 0..5 {
            simulation.disk = disk.after_power_failure(seed);
            let thread = simulation.thread().unwrap();
            simulation.judge(&thread);
        }
    }
    assert!(unsynced > 0);
}
