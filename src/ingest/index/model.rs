//! The index against a model of it: the ids that were taken, and which
//! segments ClickHouse has.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::sweep::SWEPT_PERCENT;
use super::*;
use crate::ingest::fingerprint::Fingerprinter;

const IDS_MAX: usize = 60;

/// What a producer, the sweeper or the forwarder does.
#[derive(Clone, Debug)]
enum Step {
    /// Asks for an id, and holds it if it may.
    Claim {
        producer: usize,
        id: u16,
    },
    /// All that a producer holds has become durable, in the open segment.
    Settle {
        producer: usize,
    },
    /// Nothing of it has.
    Release {
        producer: usize,
    },
    /// ClickHouse has the oldest segment.
    Store,
    Forget,
    Sweep,
    RaiseFloor {
        minute: u32,
    },
    /// A minute is to be brought back into memory.
    BeginRecall {
        minute: u32,
    },
    /// ClickHouse answers with what it has of it now.
    ReadRecalled,
    EndRecall,
    BreakOffRecall,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..4_usize, 0..120_u16).prop_map(|(producer, id)| Step::Claim { producer, id }),
        3 => (0..4_usize).prop_map(|producer| Step::Settle { producer }),
        1 => (0..4_usize).prop_map(|producer| Step::Release { producer }),
        1 => Just(Step::Store),
        1 => Just(Step::Forget),
        1 => Just(Step::Sweep),
        1 => (1..14_u32).prop_map(|minute| Step::RaiseFloor { minute }),
        2 => (1..14_u32).prop_map(|minute| Step::BeginRecall { minute }),
        2 => Just(Step::ReadRecalled),
        2 => Just(Step::EndRecall),
        1 => Just(Step::BreakOffRecall),
    ]
}

/// The minute of an id's event: it has one, and belongs to its payload.
fn minute(id: u16) -> Minute {
    Minute(1 + u32::from(id % 13))
}

fn payload(id: u16) -> PayloadFingerprint {
    u32::from(id) * 31
}

#[derive(Default)]
struct Model {
    /// The segment of each id that was taken.
    taken: HashMap<u16, u64>,
    /// Who holds an id that is pending.
    held: BTreeMap<u16, usize>,
    /// Segments that ClickHouse does not have yet.
    unstored: BTreeSet<u64>,
    next_segment: u64,
    /// The minute that is being recalled, and what was read of it.
    recalling: Option<(Minute, Option<Vec<u16>>)>,
    /// Minutes that were recalled; some may have been let go since.
    recalled: BTreeSet<Minute>,
}

struct World {
    index: Index,
    prints: Fingerprinter,
    fates: [Arc<Fate>; 4],
    model: Model,
}

impl World {
    fn new() -> Self {
        let fates = std::array::from_fn(|_| Arc::default());
        Self { index: Index::new(IDS_MAX), prints: Fingerprinter::random(), fates, model: Model::default() }
    }

    fn id(&self, id: u16) -> IdFingerprint {
        self.prints.id(&id.to_le_bytes())
    }

    fn tags(&self) -> SegmentTags {
        self.model.unstored.iter().map(|ordinal| SegmentTag::of(*ordinal)).collect()
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Claim { producer, id } => self.claim(producer, id),
            Step::Settle { producer } => self.settle(producer),
            Step::Release { producer } => {
                for id in self.given_up(producer) {
                    self.index.release(self.id(id));
                }
            }
            Step::Store => _ = self.model.unstored.pop_first(),
            Step::Forget => self.index.forget_stored(|| self.tags()),
            Step::Sweep => self.index.sweep(|| self.tags()),
            Step::RaiseFloor { minute } => {
                let before = self.index.floor();
                self.index.raise_floor(Minute(minute));
                assert_eq!(self.index.floor(), before.max(Minute(minute)));
            }
            Step::BeginRecall { minute } => self.begin_recall(Minute(minute)),
            Step::ReadRecalled => self.read_recalled(),
            Step::EndRecall => self.end_recall(),
            Step::BreakOffRecall => {
                if let Some((minute, _)) = self.model.recalling.take() {
                    self.index.break_off_recall(&[minute]);
                }
            }
        }
        self.reclaim_all();
        assert!(self.index.ids() <= IDS_MAX, "the bound on memory");
    }

    fn begin_recall(&mut self, minute: Minute) {
        let is_known = minute >= self.index.floor() || self.model.recalled.contains(&minute);
        if self.model.recalling.is_none() && !is_known {
            self.index.begin_recall(&[minute]);
            self.model.recalling = Some((minute, None));
        }
    }

    fn read_recalled(&mut self) {
        let Model { recalling, taken, unstored, .. } = &mut self.model;
        let Some((recalled, read)) = recalling else { return };
        let is_stored = |(id, segment): &(&u16, &u64)| minute(**id) == *recalled && !unstored.contains(segment);
        read.get_or_insert_with(|| taken.iter().filter(is_stored).map(|(id, _)| *id).collect());
    }

    fn end_recall(&mut self) {
        let Some((recalled, Some(read))) = self.model.recalling.take() else { return };
        if !self.index.has_room_to_recall(read.len()) {
            self.index.break_off_recall(&[recalled]);
            return;
        }
        for id in &read {
            self.index.restore(self.id(*id), payload(*id), recalled, None);
        }
        self.index.recalled(&[recalled], read.len());
        self.model.recalled.insert(recalled);
    }

    /// What somebody holds is never said to be taken.
    fn reclaim_all(&self) {
        for id in self.model.held.keys() {
            match self.index.reclaim(self.id(*id), minute(*id)) {
                Claim::New => assert!(self.may_be_new(*id)),
                said => assert!(matches!(said, Claim::BelowFloor), "id {id}: {said:?}"),
            }
        }
    }

    /// Memory may know of this id's minute.
    fn may_be_new(&self, id: u16) -> bool {
        minute(id) >= self.index.floor() || self.model.recalled.contains(&minute(id))
    }

    /// Takes from the model what a producer holds.
    fn given_up(&mut self, producer: usize) -> Vec<u16> {
        let held: Vec<u16> = self.model.held.iter().filter(|(_, by)| **by == producer).map(|(id, _)| *id).collect();
        held.iter().for_each(|id| _ = self.model.held.remove(id));
        held
    }

    fn settle(&mut self, producer: usize) {
        let ids = self.given_up(producer);
        let segment = self.model.next_segment;
        if ids.is_empty() {
            return;
        }
        self.model.next_segment += 1;
        self.model.unstored.insert(segment);
        for id in ids {
            self.index.settle_one_id(self.id(id), payload(id), minute(id), SegmentTag::of(segment));
            self.model.taken.insert(id, segment);
        }
    }

    fn claim(&mut self, producer: usize, id: u16) {
        let said = self.index.claim_one_id(self.id(id), minute(id), &self.fates[producer]);
        let taken_in = self.model.taken.get(&id).copied();
        let is_below = minute(id) < self.index.floor();
        let is_stored = taken_in.is_some_and(|segment| !self.model.unstored.contains(&segment));
        match said {
            Claim::New => {
                assert!(taken_in.is_none() && self.may_be_new(id), "id {id}: new, and memory knows its minute");
                assert_eq!(self.model.held.insert(id, producer), None, "one holds it");
            }
            Claim::BelowFloor => {
                assert!(is_below && (taken_in.is_none() || is_stored), "id {id}: ClickHouse can tell");
                if taken_in.is_some() {
                    self.index.release(self.id(id)); // ClickHouse knows it.
                } else {
                    assert_eq!(self.model.held.insert(id, producer), None, "one holds it");
                }
            }
            Claim::Known(known, _) => {
                assert!(taken_in.is_some(), "id {id} was released, or never taken");
                assert_eq!(known, payload(id));
            }
            Claim::Pending(fate) => {
                let holder = self.model.held.get(&id).expect("somebody holds it");
                assert!(Arc::ptr_eq(&fate, &self.fates[*holder]));
            }
            Claim::Full => {
                assert!(!self.model.held.contains_key(&id));
                assert!(taken_in.is_none() || is_below, "id {id}: what is known needs no room");
                assert_eq!(self.index.ids(), IDS_MAX);
            }
        }
    }
}

proptest! {
    #[test]
    fn it_never_takes_a_known_id_for_new_and_never_a_released_one_for_known(
        steps in prop::collection::vec(step(), 0..200),
    ) {
        let mut world = World::new();
        steps.iter().for_each(|step| world.step(step));
        // What nobody holds and ClickHouse has can go altogether.
        for producer in 0..4 {
            for id in world.given_up(producer) {
                world.index.release(world.id(id));
            }
        }
        world.index.raise_floor(Minute(100));
        world.model.unstored.clear();
        world.index.forget_stored(SegmentTags::default);
        world.index.sweep(SegmentTags::default);
        let excess = world.index.ids().saturating_sub(IDS_MAX * SWEPT_PERCENT / 100);
        prop_assert_eq!(excess, 0);
    }
}

/// Segments as two threads see them.
struct Shared {
    index: Index,
    prints: Fingerprinter,
    segments: Mutex<BTreeSet<u64>>,
    is_over: AtomicBool,
}

impl Shared {
    fn new(ids_max: usize) -> Arc<Self> {
        Arc::new(Self {
            index: Index::new(ids_max),
            prints: Fingerprinter::random(),
            segments: Mutex::default(),
            is_over: AtomicBool::new(false),
        })
    }

    fn tags(&self) -> SegmentTags {
        self.segments.lock().iter().map(|ordinal| SegmentTag::of(*ordinal)).collect()
    }

    fn id(&self, id: u64) -> IdFingerprint {
        self.prints.id(&id.to_le_bytes())
    }
}

/// Ends the others also when one fails.
struct Over<'a>(&'a Shared);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Release);
    }
}

/// Takes ids in a segment of their own each, and asks for them again while
/// ClickHouse does not have it.
fn take_and_ask_again(shared: &Shared, minute: Minute) {
    let fate = Arc::default();
    for segment in 0..3_000 {
        let ids = (0..8).map(|n| shared.id(segment * 8 + n));
        shared.segments.lock().insert(segment);
        for id in ids.clone() {
            let said = shared.index.claim_one_id(id, minute, &fate);
            assert!(matches!(said, Claim::New | Claim::BelowFloor), "{said:?}");
            shared.index.settle_one_id(id, 7, minute, SegmentTag::of(segment));
        }
        for id in ids {
            let said = shared.index.claim_one_id(id, minute, &fate);
            assert!(matches!(said, Claim::Known(7, _)), "segment {segment} is not stored, and {said:?}");
        }
        shared.segments.lock().remove(&segment);
    }
}

#[test]
fn an_id_is_not_forgotten_while_its_segment_is_begun_as_others_are_stored() {
    let shared = Shared::new(1_000_000);
    shared.index.raise_floor(Minute(50));
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while !shared.is_over.load(Ordering::Acquire) {
                shared.index.forget_stored(|| shared.tags());
            }
        });
        let _over = Over(&shared);
        take_and_ask_again(&shared, Minute(5));
    });
}

#[test]
fn a_sweep_does_not_take_a_segment_begun_meanwhile_for_stored() {
    let shared = Shared::new(400);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while !shared.is_over.load(Ordering::Acquire) {
                shared.index.is_short.store(true, Ordering::Relaxed);
                shared.index.sweep(|| shared.tags());
                shared.index.forget_stored(|| shared.tags());
            }
        });
        let _over = Over(&shared);
        let fate = Arc::default();
        for segment in 0..3_000_u64 {
            // Minutes rise, so that the floor follows, and lie on both sides of it.
            let minute = |n: u64| Minute(1 + u32::try_from(segment / 10 + n % 40).unwrap());
            let ids = (0..40).map(|n| (shared.id(segment * 40 + n), minute(n)));
            shared.segments.lock().insert(segment);
            let mut taken = Vec::new();
            for (id, minute) in ids {
                if matches!(shared.index.claim_one_id(id, minute, &fate), Claim::New | Claim::BelowFloor) {
                    shared.index.settle_one_id(id, 7, minute, SegmentTag::of(segment));
                    taken.push((id, minute));
                }
            }
            for (id, minute) in taken.repeat(4) {
                let said = shared.index.claim_one_id(id, minute, &fate);
                assert!(matches!(said, Claim::Known(7, _)), "segment {segment} is not stored, and {said:?}");
            }
            shared.segments.lock().remove(&segment);
        }
    });
}

#[test]
fn of_many_who_ask_at_once_one_wins_and_the_others_share_its_fate() {
    const THREADS: u64 = 8;
    const IDS: u64 = 2_000;
    let shared = Shared::new(1_000_000);
    let wins: Mutex<HashMap<u64, usize>> = Mutex::default();
    let start = std::sync::Barrier::new(usize::try_from(THREADS).unwrap());
    std::thread::scope(|threads| {
        for thread in 0..THREADS {
            let (shared, wins, start) = (&shared, &wins, &start);
            threads.spawn(move || {
                let fate = Arc::default();
                start.wait();
                for id in 0..IDS {
                    let print = shared.id(id);
                    // Whoever releases must not have won for good.
                    let gives_up = (id + thread) % 3 == 0;
                    loop {
                        match shared.index.claim_one_id(print, Minute(1 + u32::try_from(id).unwrap() % 50), &fate) {
                            Claim::New if gives_up => shared.index.release(print),
                            Claim::New => {
                                *wins.lock().entry(id).or_default() += 1;
                                shared.index.settle_one_id(print, 7, Minute(1), SegmentTag::of(0));
                            }
                            Claim::Known(payload, _) => {
                                assert_eq!(payload, 7);
                                break;
                            }
                            Claim::Pending(_) => std::thread::yield_now(),
                            said @ (Claim::BelowFloor | Claim::Full) => panic!("{said:?}"),
                        }
                        if gives_up {
                            break;
                        }
                    }
                }
            });
        }
    });
    let wins = wins.into_inner();
    assert_eq!(wins.len() as u64, IDS, "{THREADS} threads, of which some never give up");
    assert!(wins.values().all(|wins| *wins == 1));
    assert_eq!(shared.index.ids() as u64, IDS);
}
