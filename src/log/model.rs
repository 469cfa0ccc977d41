//! The log against a model of it: which frames were acknowledged, and which
//! segments are stored.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;
use uuid::Uuid;

use super::*;

/// What callers, the forwarder and chance do.
#[derive(Clone, Debug)]
enum Step {
    /// Frames of this many bytes; answered before the next step, or not.
    Append {
        sizes: Vec<usize>,
        wait: bool,
    },
    Seal,
    Take,
    /// One of those taken is stored, parked, or has failed for now.
    Store(prop::sample::Index),
    Park(prop::sample::Index),
    Fail(prop::sample::Index),
    RetryParked,
    /// Shut well, and opened again.
    Reopen,
    /// A power failure at any moment, and what it leaves behind the last
    /// acknowledged byte.
    Crash(Tail),
}

#[derive(Clone, Debug)]
enum Tail {
    AsItIs,
    Cut(prop::sample::Index),
    Flipped(prop::sample::Index),
    Garbage(Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    let sizes = || prop::collection::vec(0..60_usize, 1..5);
    let tail = prop_oneof![
        Just(Tail::AsItIs),
        index().prop_map(Tail::Cut),
        index().prop_map(Tail::Flipped),
        prop::collection::vec(any::<u8>(), 1..40).prop_map(Tail::Garbage),
    ];
    prop_oneof![
        6 => (sizes(), any::<bool>()).prop_map(|(sizes, wait)| Step::Append { sizes, wait }),
        1 => Just(Step::Seal),
        3 => Just(Step::Take),
        2 => index().prop_map(Step::Store),
        1 => index().prop_map(Step::Park),
        1 => index().prop_map(Step::Fail),
        1 => Just(Step::RetryParked),
        1 => Just(Step::Reopen),
        2 => tail.prop_map(Step::Crash),
    ]
}

/// Of an append.
type Answer = oneshot::Receiver<Result<Ordinal, AppendError>>;

struct World {
    runtime: tokio::runtime::Runtime,
    dir: TempDir,
    log: Option<Log>,
    next_frame: u64,
    /// Frames that were acknowledged and are not stored, in order.
    acknowledged: Vec<Vec<u8>>,
    /// Frames that wait for their answers, after all of these.
    waiting: Vec<(Vec<u8>, Answer)>,
    taken: Vec<Segment>,
    /// The bytes of each frozen segment when it was first seen.
    frozen: HashMap<Uuid, Vec<u8>>,
    /// Segments that are stored: never seen again.
    stored: HashSet<Uuid>,
    /// Of this run: what each ordinal stands for.
    ordinals: HashMap<Ordinal, Uuid>,
    /// Acknowledged bytes of the segment that was open when last looked at.
    open: Option<(Uuid, u64)>,
}

fn open_log(dir: &Path) -> Log {
    let settings = LogSettings {
        dir: dir.to_owned(),
        bytes_max: 1 << 30,
        free_bytes_min: 0,
        kept_bytes_max: 1 << 20,
        segment_rows_max: 6,
        segment_bytes_max: 1 << 20,
        segment_linger: Duration::from_secs(3_600),
        inserts_in_flight_max: 2,
        holders: Holders::NONE,
        ids_above: 0,
    };
    Log::open(settings, Arc::default(), Arc::default()).unwrap()
}

/// The frames of a segment, which may just have been sealed.
fn frames(segment: &Segment) -> Vec<Vec<u8>> {
    let sealed = Segment { path: segment.path.with_extension("sealed"), ..segment.clone() };
    let mut reader = SegmentFrames::open(segment).or_else(|_| SegmentFrames::open(&sealed)).unwrap();
    let mut frames = Vec::new();
    loop {
        let mut frame = Vec::new();
        if reader.next_frame(&mut frame).unwrap().is_none() {
            return frames;
        }
        frames.push(frame);
    }
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            runtime: tokio::runtime::Builder::new_current_thread().build().unwrap(),
            log: Some(open_log(dir.path())),
            dir,
            next_frame: 0,
            acknowledged: Vec::new(),
            waiting: Vec::new(),
            taken: Vec::new(),
            frozen: HashMap::new(),
            stored: HashSet::new(),
            ordinals: HashMap::new(),
            open: None,
        }
    }

    fn log(&self) -> &Log {
        self.log.as_ref().unwrap()
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Append { sizes, wait } => {
                sizes.iter().for_each(|size| self.append(*size));
                if *wait {
                    self.answered();
                }
            }
            Step::Seal => self.runtime.block_on(self.log().seal()),
            Step::Take => self.taken.extend(self.log().take_sealed()),
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
            Step::Crash(tail) => self.crash(tail),
        }
    }

    fn append(&mut self, size: usize) {
        let mut rows = self.next_frame.to_le_bytes().to_vec();
        rows.resize(rows.len() + size, 7);
        self.next_frame += 1;
        let mut buffer = Frame::buffer(rows.len());
        buffer.extend_from_slice(&rows);
        let answer = self.log().append(Frame::seal(buffer, 1));
        self.waiting.push((rows, answer));
    }

    /// Waits for every answer.
    fn answered(&mut self) {
        for (rows, answer) in std::mem::take(&mut self.waiting) {
            answer.blocking_recv().unwrap().unwrap();
            self.acknowledged.push(rows);
        }
        let open = self.log().segments().list().into_iter().find(|segment| segment.state == SegmentState::Open);
        self.open = open.map(|segment| (segment.id, segment.bytes));
    }

    fn give_back(&mut self, index: prop::sample::Index) -> Option<Segment> {
        (!self.taken.is_empty()).then(|| self.taken.remove(index.index(self.taken.len())))
    }

    fn store(&mut self, index: prop::sample::Index) {
        self.answered();
        let Some(segment) = self.give_back(index) else { return };
        for frame in frames(&segment) {
            let at = self.acknowledged.iter().position(|acknowledged| *acknowledged == frame);
            self.acknowledged.remove(at.expect("a frame that was acknowledged and not stored yet"));
        }
        self.log().stored(&segment);
        assert!(!segment.path.exists());
        self.stored.insert(segment.id);
    }

    /// With all answers in: exactly the acknowledged frames are there, once
    /// and in order, and what was frozen is as it was.
    fn check(&mut self) {
        assert!(self.waiting.is_empty());
        let segments = self.log().segments().list();
        let found: Vec<Vec<u8>> = segments.iter().flat_map(frames).collect();
        assert_eq!(found, self.acknowledged);
        for segment in segments {
            assert!(!self.stored.contains(&segment.id), "an id is used once");
            let before = self.ordinals.insert(segment.ordinal, segment.id);
            assert!(before.is_none_or(|id| id == segment.id), "an ordinal is used once in a run");
            if segment.state != SegmentState::Open {
                let bytes = std::fs::read(&segment.path).unwrap();
                let before = self.frozen.entry(segment.id).or_insert_with(|| bytes.clone());
                assert_eq!(*before, bytes, "a frozen segment has changed");
            }
        }
    }

    /// Opens the log as a new run.
    fn start(&mut self) {
        self.taken.clear();
        self.ordinals.clear();
        self.log = Some(open_log(self.dir.path()));
        let is_frozen = |segment: &Segment| matches!(segment.state, SegmentState::Sealed | SegmentState::Parked);
        assert!(self.log().segments().list().iter().all(is_frozen), "nothing is written to again");
        self.answered();
        self.check();
    }

    fn crash(&mut self, tail: &Tail) {
        let unanswered: Vec<Vec<u8>> = std::mem::take(&mut self.waiting).into_iter().map(|(rows, _)| rows).collect();
        let copy = loop {
            if let Ok(copy) = snapshot(self.dir.path()) {
                break copy;
            }
        };
        drop(self.log.take());
        self.dir = copy;
        self.damage(tail);
        let log = open_log(self.dir.path());
        let found: Vec<Vec<u8>> = log.segments().list().iter().flat_map(frames).collect();
        drop(log);
        // What nobody was told of may be there or not, but in order: behind a damaged frame may be good ones.
        assert!(found.starts_with(&self.acknowledged), "nothing acknowledged is lost");
        let survived = &found[self.acknowledged.len()..];
        let mut unanswered = unanswered.iter();
        assert!(survived.iter().all(|frame| unanswered.any(|sent| sent == frame)), "and nothing is made up");
        self.acknowledged = found;
        self.start();
    }

    /// Spoils what lies behind the last acknowledged byte of the open segment.
    fn damage(&self, tail: &Tail) {
        let files = std::fs::read_dir(self.dir.path()).unwrap().flatten().map(|entry| entry.path());
        let mut open: Vec<_> = files.filter(|path| path.extension().is_some_and(|found| found == "open")).collect();
        // Behind the one that is written to may be one that was made ahead.
        open.sort();
        let Some(path) = open.into_iter().next() else { return };
        let mut bytes = std::fs::read(&path).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let safe =
            self.open.filter(|(id, _)| id.to_string() == name).map_or(0, |(_, bytes)| usize::try_from(bytes).unwrap());
        assert!(safe <= bytes.len(), "what is acknowledged is in the file");
        match tail {
            Tail::AsItIs => {}
            Tail::Cut(index) => bytes.truncate(safe + index.index(bytes.len() - safe + 1)),
            Tail::Flipped(_) if safe == bytes.len() => {}
            Tail::Flipped(index) => {
                let at = safe + index.index(bytes.len() - safe);
                bytes[at] ^= 0x10;
            }
            Tail::Garbage(garbage) => bytes.extend_from_slice(garbage),
        }
        std::fs::write(&path, bytes).unwrap();
    }
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

proptest! {
    #[test]
    fn nothing_acknowledged_is_lost_doubled_reordered_or_changed(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            if world.waiting.is_empty() {
                world.answered();
                world.check();
            }
        }
        world.answered();
        world.check();
    }
}
