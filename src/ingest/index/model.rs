//! Tests the index and its ledger against a model, on a simulated disk that loses power.
//!
//! Producers claim ids, which then become durable in a segment of the log, or do not. Recent ids are sealed and
//! written, which may fail; runs are merged; power fails, and what is left is opened again, with those segments of the
//! log that the ledger does not cover. The model knows which ids were taken.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use proptest::prelude::*;
use tallyhouse_disk::{CrashPoint, SimulatedDisk};
use tallyhouse_ledger::LedgerSettings;
use uuid::Uuid;

use super::*;
use crate::ingest::fingerprint::Fingerprinter;
use crate::log::{ClosedSegment, SegmentTag};

const IDS_MAX: usize = 60;
const SETTINGS: LedgerSettings = LedgerSettings { run_ids: 10, ids_max: 1_000, key_check: 1 };

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
    /// The open segment takes no more events.
    CloseSegment,
    Seal,
    Write,
    /// Writing fails at one of its operations.
    FailWrite {
        operations: u64,
    },
    Maintain,
    /// The events of some ids of a segment are lost with its file, whether or not the ledger has the ids.
    Lose {
        segment: prop::sample::Index,
        ids: prop::sample::Index,
    },
    /// Power fails, with this choice of what was not synced, and the service starts again.
    Restart {
        seed: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..4_usize, 0..120_u16).prop_map(|(producer, id)| Step::Claim { producer, id }),
        4 => (0..4_usize).prop_map(|producer| Step::Settle { producer }),
        1 => (0..4_usize).prop_map(|producer| Step::Release { producer }),
        2 => Just(Step::CloseSegment),
        2 => Just(Step::Seal),
        2 => Just(Step::Write),
        1 => (0..12_u64).prop_map(|operations| Step::FailWrite { operations }),
        1 => Just(Step::Maintain),
        1 => (any::<prop::sample::Index>(), any::<prop::sample::Index>())
            .prop_map(|(segment, ids)| Step::Lose { segment, ids }),
        1 => any::<u64>().prop_map(|seed| Step::Restart { seed }),
    ]
}

/// Two minutes of each of 13 days.
fn minute(id: u16) -> Minute {
    Minute::of_bits((1 + u32::from(id) % 13) * 1_440 + u32::from(id) % 2)
}

fn taken(fingerprinter: Fingerprinter, id: u16) -> TakenId {
    let time_in_id = id.is_multiple_of(3).then_some(u64::from(id) * 100_000);
    TakenId { id: fingerprinter.id(&id.to_le_bytes()), time_in_id, payload: u32::from(id) * 31, minute: minute(id) }
}

struct Segment {
    id: Uuid,
    ids: Vec<u16>,
    /// As many as were written, before any were lost.
    rows: u64,
    is_closed: bool,
    /// The ledger has its ids. Its file stays until it is stored, some steps later.
    is_covered: bool,
}

struct World {
    runtime: tokio::runtime::Runtime,
    disk: SimulatedDisk,
    index: Index,
    fingerprinter: Fingerprinter,
    completions: [Arc<BatchCompletion>; 4],
    /// Who holds an id that is pending.
    held: BTreeMap<u16, usize>,
    taken: BTreeSet<u16>,
    /// The log: what is durable and has a file.
    segments: BTreeMap<Ordinal, Segment>,
    next_ordinal: Ordinal,
    sealed: Option<Sealed>,
}

fn open(disk: &SimulatedDisk) -> Index {
    let ledger = Ledger::open(Arc::new(disk.clone()), Path::new("/ledger"), SETTINGS).unwrap();
    ledger.mark_complete(true).unwrap();
    Index::new(IDS_MAX, Arc::new(ledger))
}

impl World {
    fn new() -> Self {
        let disk = SimulatedDisk::new();
        Self {
            runtime: tokio::runtime::Builder::new_current_thread().build().unwrap(),
            index: open(&disk),
            disk,
            fingerprinter: Fingerprinter::random(),
            completions: std::array::from_fn(|_| Arc::default()),
            held: BTreeMap::new(),
            taken: BTreeSet::new(),
            segments: BTreeMap::new(),
            next_ordinal: 0,
            sealed: None,
        }
    }

    fn asked(&self, id: u16) -> IdQuery {
        let TakenId { id, time_in_id, .. } = taken(self.fingerprinter, id);
        IdQuery { id, time_in_id, is_wanted: true }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Claim { producer, id } => self.claim(producer, id),
            Step::Settle { producer } => self.settle(producer),
            Step::Release { producer } => {
                for id in self.given_up(producer) {
                    self.index.release(self.asked(id).id);
                }
            }
            Step::CloseSegment => {
                self.segments.values_mut().for_each(|segment| segment.is_closed = true);
                // What was covered before has been stored meanwhile.
                self.segments.retain(|_, segment| !segment.is_covered);
            }
            Step::Seal => self.seal(),
            Step::Write => assert!(self.write(), "nothing is in the way"),
            Step::FailWrite { operations } => {
                self.disk.crash_at(CrashPoint(self.disk.operations() + operations));
                self.write();
                self.disk.crash_at(CrashPoint::NEVER);
            }
            Step::Maintain => while self.index.ledger().maintain().unwrap() {},
            Step::Lose { segment, ids } => self.lose(segment, ids),
            Step::Restart { seed } => self.restart(seed),
        }
        assert!(self.index.ids() <= IDS_MAX, "the bound on memory");
    }

    fn claim(&mut self, producer: usize, id: u16) {
        let asked = self.asked(id);
        let claim = self.index.claim(&[asked], &self.completions[producer]).remove(0);
        match claim {
            Claim::Pending(completion) => {
                let by = self.held[&id];
                assert!(Arc::ptr_eq(&completion, &self.completions[by]), "the completion of the batch that holds it");
            }
            Claim::Full => assert_eq!(self.index.ids(), IDS_MAX),
            Claim::Doubted => panic!("id {id} is in doubt"),
            Claim::Known(first) => {
                assert!(self.taken.contains(&id), "id {id} was not taken");
                assert_eq!(first.payload, u32::from(id) * 31);
            }
            Claim::Unseen => {
                assert!(!self.held.contains_key(&id));
                let answers = self.runtime.block_on(self.index.ask_ledger(&[(asked, minute(id).day())]))[0];
                let first = FirstEvent { payload: u32::from(id) * 31, segment: SegmentTag::NONE };
                let expected = if self.taken.contains(&id) { LedgerAnswer::Known(first) } else { LedgerAnswer::New };
                assert_eq!(answers, expected, "id {id}");
                if answers == LedgerAnswer::New {
                    self.held.insert(id, producer);
                } else {
                    self.index.release(asked.id);
                }
            }
        }
        let known = self.runtime.block_on(self.index.first_of(asked));
        assert_eq!(known.map(|first| first.payload), self.taken.contains(&id).then(|| u32::from(id) * 31));
    }

    /// Takes from the model what a producer holds.
    fn given_up(&mut self, producer: usize) -> Vec<u16> {
        let held: Vec<u16> = self.held.iter().filter(|(_, by)| **by == producer).map(|(id, _)| *id).collect();
        held.iter().for_each(|id| _ = self.held.remove(id));
        held
    }

    fn settle(&mut self, producer: usize) {
        let ids = self.given_up(producer);
        if ids.is_empty() {
            return;
        }
        let next = self.next_ordinal;
        let open = self.segments.iter().find(|(_, segment)| !segment.is_closed).map(|(ordinal, _)| *ordinal);
        let ordinal = open.unwrap_or(next);
        self.next_ordinal = next.max(ordinal + 1);
        let segment = self.segments.entry(ordinal).or_insert_with(|| Segment {
            id: Uuid::now_v7(),
            ids: Vec::new(),
            rows: 0,
            is_closed: false,
            is_covered: false,
        });
        segment.ids.extend(&ids);
        segment.rows += ids.len() as u64;
        let taken: Vec<TakenId> = ids.iter().map(|id| taken(self.fingerprinter, *id)).collect();
        self.index.settle(&taken, ordinal);
        self.taken.extend(ids);
    }

    fn seal(&mut self) {
        if self.sealed.is_some() {
            return;
        }
        let standings: HashMap<Ordinal, SegmentStanding> = self
            .segments
            .iter()
            .map(|(ordinal, segment)| {
                let closed = ClosedSegment { id: segment.id, rows: segment.rows, is_whole: true };
                let standing = if segment.is_closed { SegmentStanding::Closed(closed) } else { SegmentStanding::Open };
                (*ordinal, standing)
            })
            .collect();
        self.sealed = self.index.seal(|ordinal| standings.get(&ordinal).copied().unwrap_or(SegmentStanding::Gone));
    }

    /// Whether it succeeded. Then the segments are covered.
    fn write(&mut self) -> bool {
        let Some(sealed) = self.sealed.take() else { return true };
        if self.index.write(&sealed, |_| true).is_err() {
            self.sealed = Some(sealed);
            return false;
        }
        for (ordinal, _) in sealed.segments() {
            self.segments.entry(*ordinal).and_modify(|segment| segment.is_covered = true);
        }
        true
    }

    /// As [`crate::ingest::lost_ids`] does it: in memory those with the segment's tag, and in the ledger.
    fn lose(&mut self, segment: prop::sample::Index, ids: prop::sample::Index) {
        if self.sealed.is_some() || self.segments.is_empty() {
            return; // Whoever seals holds the right to write until the end.
        }
        let at = segment.index(self.segments.len());
        let Some((ordinal, segment)) = self.segments.iter_mut().nth(at).filter(|(_, segment)| segment.is_closed) else {
            return;
        };
        let lost: Vec<u16> = segment.ids.split_off(ids.index(segment.ids.len() + 1));
        let fingerprinter = lost.iter().map(|id| self.fingerprinter.id(&id.to_le_bytes()).in_ledger()).collect();
        self.index.forget(SegmentTag::of(*ordinal), &fingerprinter);
        self.index.ledger().remove(segment.id, &fingerprinter).unwrap();
        segment.is_covered = false;
        lost.iter().for_each(|id| _ = self.taken.remove(id));
    }

    fn restart(&mut self, seed: u64) {
        self.disk = self.disk.after_power_failure(seed);
        self.index = open(&self.disk);
        (self.sealed, self.held) = (None, BTreeMap::new());
        for (ordinal, segment) in &mut self.segments {
            let taken: Vec<TakenId> = segment.ids.iter().map(|id| taken(self.fingerprinter, *id)).collect();
            (segment.is_closed, segment.rows) = (true, taken.len() as u64);
            segment.is_covered = self.index.ledger().covers(segment.id);
            if !segment.is_covered {
                self.index.restore(&taken, *ordinal);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_id_that_was_taken_is_ever_new_again(steps in prop::collection::vec(step(), 1..150)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        for id in 0..120 {
            world.claim(0, id);
        }
    }
}
