//! The log on a disk that loses power, judged by an oracle.
//!
//! From a seed: processes append to both lanes, seal, store, park and read; each is shut, or killed before any operation of the
//! disk, or power fails; the next one recovers what is left. The oracle knows what producers, ClickHouse and readers
//! have been told, and what must therefore be found. The writers and the maker of spare files work when the simulation
//! tells them to, so a seed always means the same.

mod failed_write;
mod oracle;
mod regressions;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tallyhouse_disk::{CrashPoint, Seeds, SimulatedDisk};
use tokio::sync::oneshot::error::TryRecvError;

use super::writer::Writer;
use super::*;
use oracle::{Fate, Oracle, frame, frames_of, lane_of, numbers_of, padding};

const DIR: &str = "/log";
/// Most processes of one life, and most steps of one process.
const PROCESSES_MAX: u32 = 5;
const STEPS_MAX: u32 = 25;

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Shut,
    Kill,
    PowerFailure,
}

struct Simulation {
    random: SmallRng,
    disk: SimulatedDisk,
    oracle: Oracle,
    next_frame: u32,
    /// Nothing, in half of the lives: segments are sealed as soon as the forwarder is free or the reader waits.
    segment_linger: Duration,
}

/// Longer than any life.
const LONG: Duration = Duration::from_secs(3_600);

/// One process, from its start to its end.
struct Process<'a> {
    simulation: &'a mut Simulation,
    log: DiskLog,
    reader: Arc<dyn LogReader>,
    waiting: Vec<(u32, Appended)>,
    taken: Vec<Segment>,
}

fn settings(segment_linger: Duration) -> LogSettings {
    LogSettings {
        dir: DIR.into(),
        bytes_max: 1 << 30,
        free_bytes_min: 0,
        kept_bytes_max: 1 << 20,
        segment_rows_max: 6,
        segment_bytes_max: 1 << 20,
        segment_linger,
        inserts_in_flight_max: 2,
        holders: Holders::LEDGER,
        ids_above: 0,
        reader_bounds: Default::default(),
    }
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let random = SmallRng::seed_from_u64(seed);
        let segment_linger = if seed.is_multiple_of(2) { Duration::ZERO } else { LONG };
        Self { random, disk: SimulatedDisk::new(), oracle: Oracle::default(), next_frame: 0, segment_linger }
    }

    fn lane(&mut self) -> Lane {
        Lane::WRITTEN[self.random.random_range(0..2)]
    }

    fn open(&self) -> io::Result<DiskLog> {
        DiskLog::open_stepped(Arc::new(self.disk.clone()), settings(self.segment_linger))
    }

    /// Lives through one process.
    fn live(&mut self) -> End {
        let end = [End::Shut, End::Kill, End::PowerFailure, End::PowerFailure][self.random.random_range(0..4)];
        if end != End::Shut {
            let left = self.random.random_range(0..120);
            self.disk.crash_at(CrashPoint(self.disk.operations() + left));
        }
        match self.open() {
            Ok(log) => Process::begin(self, log).work(end),
            Err(error) => assert!(self.disk.has_crashed(), "{error}"),
        }
        match end {
            End::Shut => assert!(!self.disk.has_crashed()),
            End::Kill => self.disk.restart(),
            End::PowerFailure => self.disk = self.disk.after_power_failure(self.random.random()),
        }
        end
    }

    /// What is left is stored and read.
    fn drain(&mut self) {
        let log = self.open().unwrap();
        let mut process = Process::begin(self, log);
        process.log.retry_parked();
        for lane in Lane::WRITTEN {
            while let Some(segment) = process.log.take_sealed(lane) {
                if lane_of_segment(&segment) == lane {
                    process.store(&segment);
                } else {
                    process.log.move_to_scattered(&segment);
                }
            }
        }
        assert!(process.log.segments().list().is_empty());
        while process.read(u64::MAX) {}
        drop(process);
        self.oracle.judge_reader();
    }
}

impl<'a> Process<'a> {
    fn begin(simulation: &'a mut Simulation, log: DiskLog) -> Self {
        simulation.disk.observe(|| simulation.oracle.judge(&log));
        let reader = log.add_reader(simulation.oracle.position.segment);
        log.readers_added();
        Self { simulation, log, reader, waiting: Vec::new(), taken: Vec::new() }
    }

    fn has_crashed(&self) -> bool {
        self.simulation.disk.has_crashed()
    }

    fn work(mut self, end: End) {
        for _ in 0..self.simulation.random.random_range(0..STEPS_MAX) {
            if self.has_crashed() {
                return;
            }
            self.step();
            self.take_answers();
        }
        if end == End::Shut {
            Lane::WRITTEN.into_iter().for_each(|lane| self.log.step(lane, Writer::finish));
            self.take_answers();
            self.log.shut_stepped();
        }
    }

    fn step(&mut self) {
        match self.simulation.random.random_range(0..20) {
            0..6 => {
                for _ in 0..self.simulation.random.random_range(1..4) {
                    self.append();
                }
            }
            6..10 => self.log.step(self.simulation.lane(), Writer::turn),
            10 => self.log.step(self.simulation.lane(), Writer::finish),
            11 => self.log.step(Lane::Main, |writer| writer.opener.make_ahead()),
            12..14 => self.take_sealed(),
            14 | 15 => {
                if let Some(segment) = self.give_back() {
                    self.store(&segment);
                }
            }
            16 => self.park_or_distrust(),
            17 => {
                if self.log.retry_parked() > 0 {
                    self.simulation.oracle.parked.clear();
                }
            }
            18 => self.release(),
            _ => {
                let rows_max = self.simulation.random.random_range(1..9);
                self.read(rows_max);
            }
        }
    }

    fn take_sealed(&mut self) {
        let lane = self.simulation.lane();
        let Some(segment) = self.log.take_sealed(lane) else { return };
        let of_frames = self.simulation.disk.observe(|| lane_of_segment(&segment));
        match segment.lane {
            // The forwarder may have looked into it, or not.
            Lane::Unknown if of_frames == Lane::Scattered && self.simulation.random.random_bool(0.5) => {
                self.log.move_to_scattered(&segment);
            }
            Lane::Unknown => self.taken.push(segment),
            lane => {
                assert_eq!(lane, of_frames);
                self.taken.push(segment);
            }
        }
    }

    fn append(&mut self) {
        let number = self.simulation.next_frame;
        self.simulation.next_frame += 1;
        self.simulation.oracle.frames.insert(number, Fate::Unanswered);
        self.waiting.push((number, self.log.append(frame(number))));
    }

    /// An acknowledgement was sent, whatever came after it. A refusal may have been on its way when the machine went.
    fn take_answers(&mut self) {
        let has_crashed = self.has_crashed();
        let frames = &mut self.simulation.oracle.frames;
        self.waiting.retain_mut(|(number, answer)| match answer.try_recv() {
            Ok(Ok(_)) => frames.insert(*number, Fate::Known).is_none(),
            Ok(Err(_)) if has_crashed => false,
            Ok(Err(_)) => frames.insert(*number, Fate::Absent).is_none(),
            Err(TryRecvError::Empty) => true,
            Err(TryRecvError::Closed) => false,
        });
    }

    fn give_back(&mut self) -> Option<Segment> {
        let count = self.taken.len();
        (count > 0).then(|| self.taken.remove(self.simulation.random.random_range(0..count)))
    }

    /// ClickHouse has a segment, and the log is told.
    fn store(&mut self, segment: &Segment) {
        self.see(segment);
        self.log.stored(segment);
        let oracle = &mut self.simulation.oracle;
        oracle.stored.insert(segment.id);
        oracle.parked.remove(&segment.id);
        if self.log.segments().retained().iter().any(|retained| retained.id == segment.id) {
            oracle.held.insert(segment.id);
        }
    }

    /// Notes what a closed segment holds.
    fn see(&mut self, segment: &Segment) {
        let frames = self.simulation.disk.observe(|| frames_of(segment));
        let before = self.simulation.oracle.closed.entry(segment.id).or_insert_with(|| frames.clone());
        assert_eq!(*before, frames, "a segment has changed");
    }

    fn park_or_distrust(&mut self) {
        if self.simulation.random.random_bool(0.5) {
            let Some(segment) = self.give_back() else { return };
            self.log.park(&segment, "refused".to_owned());
            if !self.has_crashed() {
                self.simulation.oracle.parked.insert(segment.id);
            }
        } else if let Some(segment) = self.taken.first()
            && self.log.distrust_token(segment).is_ok()
        {
            self.simulation.oracle.distrusted.insert(segment.id);
        }
    }

    /// The ledger has some of the segments.
    fn release(&mut self) {
        let segments = self.log.segments();
        let all: Vec<Segment> = segments.list().into_iter().chain(segments.retained()).collect();
        let closed = all.into_iter().filter(|segment| segment.state != SegmentState::Open);
        let random = &mut self.simulation.random;
        let some: Vec<Segment> = closed.filter(|_| random.random_bool(0.7)).collect();
        some.iter().for_each(|segment| _ = self.simulation.oracle.held.remove(&segment.id));
        self.log.release(&some.iter().map(|segment| segment.ordinal).collect::<Vec<_>>(), Holders::LEDGER);
    }

    /// Reads on. Returns whether there was something.
    fn read(&mut self, rows_max: u64) -> bool {
        let disk = &self.simulation.disk;
        let oracle = &mut self.simulation.oracle;
        let rows = match self.reader.read(oracle.position, rows_max) {
            Ok(Some(rows)) if !disk.has_crashed() => rows,
            Err(error) if !disk.has_crashed() => panic!("{error}"),
            _ => return false,
        };
        let numbers = numbers_of(&rows.bytes);
        assert_eq!(numbers.len() as u64, rows.count);
        oracle.read.extend(numbers.into_iter().skip(usize::try_from(rows.skip).unwrap()));
        oracle.position = rows.next;
        self.reader.release(rows.next.segment);
        true
    }
}

/// The lane of all of a segment's frames.
fn lane_of_segment(segment: &Segment) -> Lane {
    let mut lanes = frames_of(segment).into_iter().map(lane_of);
    let first = lanes.next().unwrap();
    assert!(lanes.all(|lane| lane == first), "a segment has frames of both lanes");
    first
}

/// One life of a log. Returns whether anything but a shut ended a process.
fn live(seed: u64) -> bool {
    let mut simulation = Simulation::new(seed);
    let mut has_failed = false;
    for _ in 0..simulation.random.random_range(1..=PROCESSES_MAX) {
        has_failed |= simulation.live() != End::Shut;
    }
    simulation.disk.restart();
    simulation.drain();
    // What is stored may come back once more.
    simulation.disk = simulation.disk.after_power_failure(seed);
    simulation.drain();
    has_failed
}

#[test]
fn what_was_acknowledged_is_found_once_and_nothing_else_wherever_power_fails() {
    let (failures, seeds) = Seeds { name: "LOG", count: 2_000 }.run(live);
    let failures = failures.len() as u64;
    assert!(seeds < 100 || failures > seeds / 2, "something failed in {failures} of {seeds} lives only");
}
