//! The log against a model of it: which frames were acknowledged, and which
//! segments are stored.

use std::collections::{HashMap, HashSet};
use std::io::Read as _;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

/// What callers, the forwarder and chance do.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Frames of this many bytes, of a lane; answered before the next step, or not.
    Append {
        sizes: Vec<usize>,
        lane: Lane,
        wait: bool,
    },
    Seal,
    Take(Lane),
    /// One of those taken is stored, parked, or has failed for now.
    Store(prop::sample::Index),
    Park(prop::sample::Index),
    Fail(prop::sample::Index),
    RetryParked,
    /// Shut well, and opened again.
    Reopen,
    /// A power failure at any moment, and the seed of what it leaves behind the last acknowledged byte.
    Crash(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    let lane = || prop_oneof![3 => Just(Lane::Main), 1 => Just(Lane::Scattered)];
    let sizes = || prop::collection::vec(0..60_usize, 1..5);
    prop_oneof![
        6 => (sizes(), lane(), any::<bool>()).prop_map(|(sizes, lane, wait)| Step::Append { sizes, lane, wait }),
        1 => Just(Step::Seal),
        3 => lane().prop_map(Step::Take),
        2 => index().prop_map(Step::Store),
        1 => index().prop_map(Step::Park),
        1 => index().prop_map(Step::Fail),
        1 => Just(Step::RetryParked),
        1 => Just(Step::Reopen),
        2 => any::<u64>().prop_map(Step::Crash),
    ]
}

struct World<F: LogFactory> {
    runtime: tokio::runtime::Runtime,
    factory: F,
    log: Option<F::Log>,
    next_frame: u64,
    /// Frames that were acknowledged and are not stored, in order.
    acknowledged: Vec<Vec<u8>>,
    /// Frames that wait for their answers, after all of these.
    waiting: Vec<(Vec<u8>, Appended)>,
    taken: Vec<Segment>,
    /// The bytes of each frozen segment when it was first seen.
    frozen: HashMap<Uuid, Vec<u8>>,
    /// Segments that are stored: seen again after a power failure, if at all, and with the same bytes.
    stored: HashSet<Uuid>,
    /// Of this run: what each ordinal stands for.
    ordinals: HashMap<Ordinal, Uuid>,
    /// Acknowledged bytes of the segments that were open when last looked at.
    open: HashMap<Uuid, u64>,
}

/// The frames of a segment, which may just be being sealed.
fn frames(log: &impl EventLog, segment: &Segment) -> Vec<Vec<u8>> {
    let mut segment = segment.clone();
    let mut reader = loop {
        match SegmentFrames::open(&segment) {
            Ok(reader) => break reader,
            Err(FrameError::Io(error)) if error.kind() == io::ErrorKind::NotFound => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
        segment = log.segments().find_any(segment.ordinal).unwrap();
    };
    let mut frames = Vec::new();
    loop {
        let mut frame = Vec::new();
        if reader.next_frame(&mut frame).unwrap().is_none() {
            return frames;
        }
        frames.push(frame);
    }
}

fn bytes(segment: &Segment) -> Vec<u8> {
    let mut bytes = Vec::new();
    segment.source.open().unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

fn frame(rows: &[u8]) -> Frame {
    let mut buffer = Frame::buffer(rows.len());
    buffer.extend_from_slice(rows);
    Frame::seal(buffer, 1)
}

/// The frames of each lane.
fn by_lane(frames: &[Vec<u8>]) -> [Vec<&Vec<u8>>; 2] {
    [false, true].map(|is_scattered| frames.iter().filter(|frame| is_of_scattered(frame) == is_scattered).collect())
}

fn is_of_scattered(frame: &[u8]) -> bool {
    frame[size_of::<u64>()] == 1
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

impl<F: LogFactory> World<F> {
    fn new() -> Self {
        let factory = F::new();
        Self {
            runtime: runtime(),
            log: Some(factory.open(Options::PLAIN)),
            factory,
            next_frame: 0,
            acknowledged: Vec::new(),
            waiting: Vec::new(),
            taken: Vec::new(),
            frozen: HashMap::new(),
            stored: HashSet::new(),
            ordinals: HashMap::new(),
            open: HashMap::new(),
        }
    }

    fn log(&self) -> &F::Log {
        self.log.as_ref().unwrap()
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Append { sizes, lane, wait } => {
                sizes.iter().for_each(|size| self.append(*size, *lane));
                if *wait {
                    self.answered();
                }
            }
            Step::Seal => self.runtime.block_on(self.log().seal()),
            Step::Take(lane) => self.take(*lane),
            Step::Store(index) => self.store(*index),
            Step::Park(index) => {
                if let Some(segment) = self.give_back(*index) {
                    self.log().park(&segment, "refused".to_owned());
                }
            }
            Step::Fail(index) if !self.taken.is_empty() => {
                self.log().failed(&self.taken[index.index(self.taken.len())], "later".to_owned());
            }
            Step::Fail(_) => {}
            Step::RetryParked => _ = self.log().retry_parked(),
            Step::Reopen => {
                self.answered();
                self.check();
                drop(self.log.take());
                self.start();
            }
            Step::Crash(seed) => self.crash(*seed),
        }
    }

    fn append(&mut self, size: usize, lane: Lane) {
        let is_scattered = lane == Lane::Scattered;
        let mut rows = self.next_frame.to_le_bytes().to_vec();
        rows.push(is_scattered.into());
        rows.resize(rows.len() + size, 7);
        self.next_frame += 1;
        let answer = self.log().append(frame(&rows).on_days(days_of(lane)));
        self.waiting.push((rows, answer));
    }

    /// A segment of a former run is found to be of one lane or the other, as the forwarder does.
    fn take(&mut self, lane: Lane) {
        let Some(segment) = self.log().take_sealed(lane) else { return };
        if segment.lane == Lane::Unknown && is_of_scattered(&frames(self.log(), &segment)[0]) {
            self.log().move_to_scattered(&segment);
        } else {
            self.taken.push(segment);
        }
    }

    /// Waits for every answer.
    fn answered(&mut self) {
        for (rows, answer) in std::mem::take(&mut self.waiting) {
            answer.blocking_recv().unwrap().unwrap();
            self.acknowledged.push(rows);
        }
        let open = self.log().segments().list().into_iter().filter(|segment| segment.state == SegmentState::Open);
        self.open = open.map(|segment| (segment.id, segment.bytes)).collect();
    }

    fn give_back(&mut self, index: prop::sample::Index) -> Option<Segment> {
        (!self.taken.is_empty()).then(|| self.taken.remove(index.index(self.taken.len())))
    }

    fn store(&mut self, index: prop::sample::Index) {
        self.answered();
        let Some(segment) = self.give_back(index) else { return };
        for frame in frames(self.log(), &segment) {
            let at = self.acknowledged.iter().position(|acknowledged| *acknowledged == frame);
            self.acknowledged.remove(at.expect("a frame that was acknowledged and not stored yet"));
        }
        self.log().stored(&segment);
        assert!(segment.source.open().is_err(), "its bytes have gone");
        self.stored.insert(segment.id);
    }

    /// With all answers in: exactly the acknowledged frames are there, once
    /// and in the order of their lane, and what was frozen is as it was.
    fn check(&mut self) {
        assert!(self.waiting.is_empty());
        let segments = self.log().segments().list();
        let found: Vec<Vec<u8>> = segments.iter().flat_map(|segment| frames(self.log(), segment)).collect();
        assert_eq!(by_lane(&found), by_lane(&self.acknowledged));
        for segment in segments.iter().filter(|segment| segment.lane != Lane::Unknown) {
            let is_scattered = segment.lane == Lane::Scattered;
            assert!(frames(self.log(), segment).iter().all(|frame| is_of_scattered(frame) == is_scattered));
        }
        for segment in segments {
            assert!(!self.stored.contains(&segment.id), "an id is used once");
            let before = self.ordinals.insert(segment.ordinal, segment.id);
            assert!(before.is_none_or(|id| id == segment.id), "an ordinal is used once in a run");
            if segment.state != SegmentState::Open {
                let bytes = bytes(&segment);
                let before = self.frozen.entry(segment.id).or_insert_with(|| bytes.clone());
                assert_eq!(*before, bytes, "a frozen segment has changed");
            }
        }
    }

    /// Opens the log as a new run.
    fn start(&mut self) {
        self.taken.clear();
        self.ordinals.clear();
        self.log = Some(self.factory.open(Options::PLAIN));
        let is_frozen = |segment: &Segment| matches!(segment.state, SegmentState::Sealed | SegmentState::Parked);
        assert!(self.log().segments().list().iter().all(is_frozen), "nothing is written to again");
        self.answered();
        self.check();
    }

    fn crash(&mut self, seed: u64) {
        let unanswered: Vec<Vec<u8>> = std::mem::take(&mut self.waiting).into_iter().map(|(rows, _)| rows).collect();
        self.factory.fail_power(self.log.take().unwrap(), &self.open, seed);
        let log = self.factory.open(Options::PLAIN);
        // That a stored segment was deleted may be forgotten. `check` says whether its bytes are the same.
        let segments = log.segments().list();
        let (back, others): (Vec<_>, Vec<_>) = segments.iter().partition(|segment| self.stored.contains(&segment.id));
        let found: Vec<Vec<u8>> = others.into_iter().flat_map(|segment| frames(&log, segment)).collect();
        // What nobody was told of may be there or not, but in order: behind a damaged frame may be good ones.
        let of_lanes = by_lane(&found).into_iter().zip(by_lane(&self.acknowledged)).zip(by_lane(&unanswered));
        for ((found, acknowledged), unanswered) in of_lanes {
            assert!(found.starts_with(&acknowledged), "nothing acknowledged is lost");
            let mut unanswered = unanswered.iter();
            let survived = &found[acknowledged.len()..];
            assert!(survived.iter().all(|frame| unanswered.any(|sent| sent == frame)), "and nothing is made up");
        }
        back.iter().for_each(|segment| _ = self.stored.remove(&segment.id));
        self.acknowledged = segments.iter().flat_map(|segment| frames(&log, segment)).collect();
        drop(log);
        self.start();
    }
}

/// What happens to one log.
pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..40)
}

pub(super) fn nothing_acknowledged_is_lost_doubled_reordered_or_changed<F: LogFactory>(steps: &[Step]) {
    let mut world = World::<F>::new();
    for step in steps {
        world.step(step);
        if world.waiting.is_empty() {
            world.answered();
            world.check();
        }
    }
    world.answered();
    world.check();
}

pub(super) fn whatever_lies_behind_the_last_acknowledged_byte_costs_nothing<F: LogFactory>() {
    for seed in 0..40 {
        let append = |sizes: &[usize], lane, wait| Step::Append { sizes: sizes.to_vec(), lane, wait };
        let steps = [
            append(&[14, 58], Lane::Main, true),
            append(&[7], Lane::Scattered, true),
            Step::Seal,
            append(&[3, 40], Lane::Scattered, true),
            append(&[1, 5, 41], Lane::Main, true),
            append(&[9], Lane::Main, false),
            append(&[2], Lane::Scattered, false),
        ];
        nothing_acknowledged_is_lost_doubled_reordered_or_changed::<F>(&[&steps[..], &[Step::Crash(seed)]].concat());
    }
}

/// Opens a log, puts a frame into a segment of its own, and seals it.
fn log_with_segment<F: LogFactory>(factory: &F, holders: Holders) -> (F::Log, Segment) {
    let log = factory.open(Options { holders, ..Options::PLAIN });
    let append = log.append(frame(b"rows"));
    runtime().block_on(async {
        append.await.unwrap().unwrap();
        log.seal().await;
    });
    let segment = log.take_sealed(Lane::Main).unwrap();
    (log, segment)
}

pub(super) fn what_was_decided_about_a_segment_survives_a_restart<F: LogFactory>(factory: &F) {
    let (log, segment) = log_with_segment(factory, Holders::LEDGER);
    assert!(!log.is_token_distrusted(&segment).unwrap());
    log.distrust_token(&segment).unwrap();
    log.park(&segment, "refused".to_owned());
    drop(log);

    let log = factory.open(Options { holders: Holders::LEDGER, ..Options::PLAIN });
    let parked = log.segments().list().remove(0);
    assert_eq!((parked.id, parked.state, parked.rows), (segment.id, SegmentState::Parked, 1));
    assert!(log.is_token_distrusted(&parked).unwrap());
    assert!(log.take_sealed(Lane::Main).is_none(), "it waits for a command");
    assert_eq!(log.retry_parked(), 1);
    let segment = log.take_sealed(Lane::Main).unwrap();
    log.stored(&segment);
    assert!(log.segments().list().is_empty());
    drop(log);

    let log = factory.open(Options { holders: Holders::LEDGER, ..Options::PLAIN });
    let retained = log.segments().retained().remove(0);
    assert_eq!((retained.id, retained.state), (segment.id, SegmentState::Stored));
    assert_eq!(frames(&log, &retained), [b"rows"]);
    log.release(&[retained.ordinal], Holders::LEDGER);
    assert!(retained.source.open().is_err(), "nobody needs it");
    drop(log);

    let log = factory.open(Options::PLAIN);
    assert!(log.segments().list().is_empty() && log.segments().retained().is_empty());
    assert!(!log.is_token_distrusted(&retained).unwrap());
}

pub(super) fn a_shut_log_has_sealed_and_takes_nothing<F: LogFactory>(factory: &F) {
    let log = factory.open(Options::PLAIN);
    assert!(log.refusal().is_none());
    runtime().block_on(async {
        let (first, second) = (log.append(frame(b"one")), log.append(frame(b"two")));
        log.shut().await;
        assert!(first.await.unwrap().is_ok() && second.await.unwrap().is_ok());
        assert_eq!(log.append(frame(b"three")).await.unwrap(), Err(AppendError::Shut));
        log.seal().await;
    });
    let states: Vec<_> = log.segments().list().iter().map(|segment| (segment.state, segment.rows)).collect();
    assert_eq!(states.iter().map(|(_, rows)| rows).sum::<u64>(), 2);
    assert!(states.iter().all(|(state, _)| *state == SegmentState::Sealed));
}
