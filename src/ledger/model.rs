//! Tests the ledger against a model, on a disk that loses power.
//!
//! From a seed: runs are added, merged and expired, segments are noted and forgotten, the floor rises, single operations
//! of the disk fail, the process is killed before any operation of the disk and started again, then power fails, and the
//! remaining files are opened again. The model knows which ids must be there, may be there, and must not be there.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tallyhouse_disk::{CrashPoint, Disk as _, Seeds, SimulatedDisk};
use uuid::Uuid;

use super::{Asked, Day, Entry, Fingerprint, IdTimes, Ledger, LedgerError, LedgerSettings, NewRun, SegmentNote};

pub(super) const DIR: &str = "/ledger";
pub(super) const SETTINGS: LedgerSettings = LedgerSettings { run_ids: 50, ids_max: 1_000_000, key_check: 1 };
/// Bound of the ids in every second life.
const FEW_IDS_MAX: u64 = 400;
/// The disk is full.
const ENOSPC: i32 = 28;
/// Ids that are never added.
const STRANGERS: u64 = 1 << 32;

/// Uniform bits from a small number, as a keyed hash has them.
pub(super) fn id(n: u64) -> Fingerprint {
    let mixed = |n: u64| u128::from((n ^ 0x5851_f42d_4c95_7f2d).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29));
    Fingerprint::of_hash(mixed(n.wrapping_mul(0xbf58_476d_1ce4_e5b9)) << 64 | mixed(n + 1))
}

/// Some ids have a time.
pub(super) fn asked(n: u64) -> Asked {
    Asked { id: id(n), time_in_id: n.is_multiple_of(3).then_some(n * 1_000) }
}

pub(super) fn open(disk: &SimulatedDisk) -> Result<Ledger, LedgerError> {
    open_bounded(disk, SETTINGS.ids_max)
}

fn open_bounded(disk: &SimulatedDisk, ids_max: u64) -> Result<Ledger, LedgerError> {
    Ledger::open(Arc::new(disk.clone()), Path::new(DIR), LedgerSettings { ids_max, ..SETTINGS })
}

pub(super) fn new_run(numbers: &BTreeMap<u64, (u32, Day)>, covered: Uuid) -> NewRun<std::vec::IntoIter<Entry>> {
    let entry = |(n, (payload, day)): (&u64, &(u32, Day))| Entry { id: id(*n), payload: *payload, day: *day };
    let mut entries: Vec<Entry> = numbers.iter().map(entry).collect();
    entries.sort();
    let mut id_times = IdTimes::default();
    numbers.keys().filter_map(|n| asked(*n).time_in_id).for_each(|time| id_times.add(time));
    let has_untimed = numbers.keys().any(|n| asked(*n).time_in_id.is_none());
    NewRun {
        expected: entries.len() as u64,
        entries: entries.into_iter(),
        id_times,
        has_untimed,
        covered: vec![covered],
    }
}

/// What must be found, whatever happened.
#[derive(Clone, Default)]
pub(super) struct Model {
    pub(super) ids: BTreeMap<u64, (u32, Day)>,
    /// Added by a call that failed: there or not, as one.
    uncertain: BTreeMap<u64, (u32, Day)>,
    covered: HashSet<Uuid>,
    keep_from: Day,
    /// By segment. Only the log has the events of these.
    noted: BTreeMap<Uuid, Vec<u64>>,
}

impl Model {
    /// Fails only when the disk does.
    pub(super) fn must_hold(&self, ledger: &Ledger) -> Result<(), LedgerError> {
        let numbers: Vec<u64> = self.ids.keys().copied().chain((0..200).map(|n| STRANGERS + n)).collect();
        let found = ledger.find(&numbers.iter().map(|n| asked(*n)).collect::<Vec<_>>())?;
        let floor = ledger.status().floor;
        let noted: HashSet<u64> = self.noted.values().flatten().copied().collect();
        for (n, found) in numbers.iter().zip(found) {
            let found = found.map(|entry| (entry.payload, entry.day));
            match self.ids.get(n) {
                Some((_, day)) if *day < self.keep_from || *day < floor && !noted.contains(n) => {
                    assert!(found.is_none_or(|found| found == self.ids[n]))
                }
                expected => assert_eq!(found, expected.copied(), "id {n}"),
            }
        }
        assert!(self.covered.iter().all(|segment| ledger.covers(*segment)), "a covered segment was forgotten");
        Ok(())
    }

    /// After all work is done there are few more ids than the bound, and nothing has gone while there was room.
    fn must_be_bounded(&self, ledger: &Ledger, today: Day, ids_max: u64) {
        let status = ledger.status();
        if status.damaged_runs > 0 {
            return; // One could not be read, and waits to be replaced.
        }
        let newest = self.ids.values().map(|(_, day)| *day).max().unwrap_or_default().min(today);
        let staying = self.ids.values().filter(|(_, day)| *day >= newest).count();
        let noted: usize = self.noted.values().map(Vec::len).sum();
        let mut days = BTreeMap::<Day, u64>::new();
        self.ids.values().for_each(|(_, day)| *days.entry(*day).or_default() += 1);
        let largest_day = days.into_values().max().unwrap_or_default();
        let most = ids_max.max(staying as u64).max(ids_max / 2 + largest_day) + noted as u64 + ids_max / 10;
        assert!(status.ids <= most, "{status:?}, {staying} of the newest day, {noted} noted, {ids_max} at most");
        assert!(status.floor <= today.max(self.keep_from));
        assert!(self.ids.len() as u64 > ids_max || status.floor <= self.keep_from, "{status:?}");
    }

    /// Decides what was uncertain by what is there now.
    fn settle(&mut self, ledger: &Ledger, segment: Uuid) -> Result<(), LedgerError> {
        if self.uncertain.is_empty() {
            return Ok(());
        }
        let numbers: Vec<u64> = self.uncertain.keys().copied().collect();
        let found = ledger.find(&numbers.iter().map(|n| asked(*n)).collect::<Vec<_>>())?;
        // One below the floor may have gone when it was added.
        let floor = ledger.status().floor;
        let kept = |day: Day| self.noted.contains_key(&segment) || day >= floor;
        let found: Vec<_> = found.into_iter().zip(&numbers).filter(|(_, n)| kept(self.uncertain[n].1)).collect();
        let (numbers, found): (Vec<&u64>, Vec<Option<Entry>>) = found.into_iter().map(|(found, n)| (n, found)).unzip();
        let there = found.iter().flatten().count();
        assert!(there == 0 || there == numbers.len(), "{there} of the {} ids of a run are there", numbers.len());
        let is_there = ledger.covers(segment);
        assert!(numbers.is_empty() || is_there == (there > 0), "what covers a segment and its ids are one");
        let uncertain = std::mem::take(&mut self.uncertain);
        if is_there {
            self.ids.extend(uncertain);
            self.covered.insert(segment);
        }
        Ok(())
    }
}

/// What a producer of runs does next.
struct Producer {
    random: SmallRng,
    step: u32,
    next: u64,
    segment: Uuid,
    ids_max: u64,
}

/// Most steps of all processes of one life.
const STEPS_MAX: u32 = 40;

impl Producer {
    /// Adds, notes, merges and expires until power fails, or this process has worked long enough.
    fn work(&mut self, disk: &SimulatedDisk, model: &mut Model) -> Result<(), LedgerError> {
        let ledger = open_bounded(disk, self.ids_max)?;
        model.settle(&ledger, self.segment)?;
        while self.step < STEPS_MAX {
            self.step += 1;
            let today = Day(u16::try_from(self.step).unwrap());
            ledger.set_today(today);
            if self.random.random_bool(0.3) {
                disk.fail_at(disk.operations() + self.random.random_range(0..40), ENOSPC);
            }
            match self.random.random_range(0..10) {
                0..6 => self.add(disk, &ledger, model)?,
                6..8 => {
                    until_done(disk, || ledger.maintain(), |is_more| !is_more)?;
                    model.must_be_bounded(&ledger, today, self.ids_max);
                }
                8 => {
                    if let Some((segment, _)) = model.noted.pop_first() {
                        until_done(disk, || ledger.forget_segment(segment), |_| true)?;
                    }
                }
                _ => {
                    model.keep_from = Day(today.0 / 2);
                    until_done(disk, || ledger.expire(model.keep_from), |_| true)?;
                }
            }
            disk.fail_at(u64::MAX, ENOSPC);
            model.must_hold(&ledger)?;
            let files = disk.observe(|| disk.list(Path::new(DIR))).unwrap();
            let files = files.iter().filter(|file| file.name.ends_with(".run")).count();
            assert!(disk.has_crashed() || files <= ledger.status().runs + 1, "files of runs that are in no manifest");
        }
        Ok(())
    }

    fn add(&mut self, disk: &SimulatedDisk, ledger: &Ledger, model: &mut Model) -> Result<(), LedgerError> {
        let step = u16::try_from(self.step).unwrap();
        let count = self.random.random_range(1..120);
        let day = Day(step.saturating_sub(4) + self.random.random_range(0..7));
        let ids = self.next..self.next + count;
        self.next += count;
        self.segment = Uuid::from_u128(u128::from(step) + 2);
        if self.random.random_bool(0.3) {
            let note = SegmentNote { segment: self.segment, ids: ids.clone().map(|n| (id(n), 1)).collect() };
            until_done(disk, || ledger.note_segment(&note), |_| true)?;
            model.noted.insert(self.segment, ids.clone().collect());
        }
        model.uncertain = ids.map(|n| (n, (self.random.random(), day))).collect();
        until_done(disk, || ledger.add_run(new_run(&model.uncertain, self.segment), |_| true), |_| true)?;
        model.ids.extend(std::mem::take(&mut model.uncertain));
        model.covered.insert(self.segment);
        Ok(())
    }
}

/// Repeats what fails while there is power, as the service does, until it says that it is done.
fn until_done<T>(
    disk: &SimulatedDisk,
    mut work: impl FnMut() -> Result<T, LedgerError>,
    is_done: impl Fn(&T) -> bool,
) -> Result<(), LedgerError> {
    loop {
        match work() {
            Ok(done) if is_done(&done) => return Ok(()),
            Err(error) if disk.has_crashed() => return Err(error),
            Ok(_) | Err(_) => {}
        }
    }
}

/// One life of a ledger: processes that are killed one after the other, and then a power failure and the start after
/// it. Returns whether anything failed before the end of the steps.
fn live(seed: u64) -> bool {
    let mut random = SmallRng::seed_from_u64(seed);
    let disk = SimulatedDisk::new();
    let mut model = Model::default();
    let kills = random.random_range(0..3);
    let ids_max = if seed.is_multiple_of(2) { SETTINGS.ids_max } else { FEW_IDS_MAX };
    let mut producer = Producer { random, step: 0, next: 0, segment: Uuid::from_u128(1), ids_max };
    let mut has_failed = false;
    for _ in 0..=kills {
        disk.restart();
        disk.fail_at(u64::MAX, ENOSPC);
        disk.crash_at(CrashPoint(disk.operations() + producer.random.random_range(0..500)));
        let worked = producer.work(&disk, &mut model);
        assert!(worked.is_ok() || disk.has_crashed(), "seed {seed}: {worked:?}");
        has_failed |= worked.is_err();
    }
    // Whether or not power failed within an operation, it does now.
    for left in 0..3 {
        let left = disk.after_power_failure(seed.wrapping_mul(3) + left);
        let opened = match open_bounded(&left, ids_max) {
            Ok(opened) => opened,
            // A failure of the very first start may leave nothing to open but an empty directory.
            Err(error) => panic!("seed {seed}: {error}"),
        };
        let mut model = model.clone();
        model.settle(&opened, producer.segment).unwrap();
        model.must_hold(&opened).unwrap();
        opened.set_today(Day(u16::try_from(producer.step).unwrap()));
        while opened.maintain().unwrap() {}
        model.must_hold(&opened).unwrap();
        opened.verify().unwrap();
        drop(opened);
        model.must_hold(&open_bounded(&left, ids_max).unwrap()).unwrap();
    }
    has_failed
}

#[test]
fn nothing_that_was_confirmed_is_lost_wherever_power_fails() {
    let (failures, seeds) = Seeds { name: "LEDGER", count: 300 }.run(live);
    let failures = failures.len() as u64;
    assert!(seeds < 100 || failures > seeds / 4, "power failed in {failures} of {seeds} lives only");
}

#[test]
fn what_a_start_has_answered_from_survives_a_power_failure() {
    let mut unsynced = 0;
    for left in 0..20 {
        let disk = SimulatedDisk::new();
        let ledger = open(&disk).unwrap();
        let ids = (0..3).map(|n| (n, (9, Day(1)))).collect();
        disk.crash_at(CrashPoint(disk.operations() + left));
        let added = ledger.add_run(new_run(&ids, Uuid::nil()), |_| true);
        drop(ledger);
        disk.restart();
        let known = open(&disk).unwrap().find(&[asked(1)]).unwrap();
        unsynced += usize::from(added.is_err() && known[0].is_some());
        for seed in 0..20 {
            let opened = open(&disk.after_power_failure(seed)).unwrap();
            assert_eq!(opened.find(&[asked(1)]).unwrap(), known, "killed after {left} operations");
        }
    }
    assert!(unsynced > 0);
}

pub(super) fn filled(disk: &SimulatedDisk) -> Model {
    let ledger = open(disk).unwrap();
    let mut model = Model::default();
    for step in 0..7_u16 {
        let first = u64::from(step) * 1_000;
        let ids: BTreeMap<u64, (u32, Day)> = (first..first + 400).map(|n| (n, (9, Day(step)))).collect();
        let segment = Uuid::from_u128(u128::from(step));
        ledger.add_run(new_run(&ids, segment), |_| true).unwrap();
        model.ids.extend(ids);
        model.covered.insert(segment);
        while ledger.maintain().unwrap() {}
    }
    model
}

#[test]
fn a_flipped_bit_is_damage_and_never_a_wrong_answer() {
    let mut random = SmallRng::seed_from_u64(1);
    let (mut refused, mut found_later) = (0, 0);
    let disk = SimulatedDisk::new();
    let model = filled(&disk);
    let asked: Vec<Asked> = model.ids.keys().map(|n| asked(*n)).collect();
    for _ in 0..400 {
        let disk = disk.after_power_failure(0);
        let files = disk.list(Path::new(DIR)).unwrap();
        let file = &files[random.random_range(0..files.len())];
        disk.corrupt(&Path::new(DIR).join(&file.name), |bytes| {
            let bit = random.random_range(0..bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        })
        .unwrap();
        match open(&disk) {
            Err(error) => {
                assert!(error.is_damage(), "{error}");
                refused += 1;
            }
            Ok(ledger) => {
                let found = ledger.find(&asked).map_err(|error| assert!(error.is_damage(), "{error}"));
                assert!(found.is_err(), "every page was read, and none was found to be damaged");
                assert!(ledger.verify().is_err_and(|error| error.is_damage()));
                found_later += 1;
            }
        }
    }
    assert!(refused > 20 && found_later > 20, "{refused} {found_later}");
}

#[test]
fn a_missing_or_shortened_file_is_damage() {
    let disk = SimulatedDisk::new();
    filled(&disk);
    for file in disk.list(Path::new(DIR)).unwrap() {
        let path = Path::new(DIR).join(&file.name);
        let without = disk.after_power_failure(0);
        without.remove(&path).unwrap();
        assert!(open(&without).is_err_and(|error| error.is_damage()), "without {}", file.name);
        let shortened = disk.after_power_failure(0);
        shortened.corrupt(&path, |bytes| bytes.truncate(bytes.len() / 2)).unwrap();
        assert!(open(&shortened).is_err_and(|error| error.is_damage()), "half of {}", file.name);
    }
}

#[test]
fn a_ledger_that_is_replaced_is_empty_and_not_complete() {
    let disk = SimulatedDisk::new();
    filled(&disk);
    open(&disk).unwrap().mark_complete(true).unwrap();
    assert!(open(&disk).unwrap().status().is_complete);
    let replaced = Ledger::replace(Arc::new(disk.clone()), Path::new(DIR), SETTINGS).unwrap();
    assert!(replaced.status().ids == 0 && !replaced.status().is_complete);
    drop(replaced);
    assert!(!open(&disk).unwrap().status().is_complete);
}

#[test]
fn fingerprints_of_another_key_are_not_accepted() {
    let disk = SimulatedDisk::new();
    filled(&disk);
    let settings = LedgerSettings { key_check: 2, ..SETTINGS };
    assert!(Ledger::open(Arc::new(disk), Path::new(DIR), settings).is_err_and(|error| error.is_damage()));
}

#[test]
fn ids_that_are_removed_are_not_found_and_all_others_are() {
    let disk = SimulatedDisk::new();
    let mut model = filled(&disk);
    let ledger = open(&disk).unwrap();
    let segment = *model.covered.iter().next().unwrap();
    let lost: Vec<u64> = model.ids.keys().copied().filter(|n| n % 50 == 7).collect();
    ledger.remove(segment, &lost.iter().map(|n| id(*n)).collect()).unwrap();
    lost.iter().for_each(|n| _ = model.ids.remove(n));
    assert!(model.covered.remove(&segment) && !ledger.covers(segment), "its file may be put back");
    for ledger in [ledger, open(&disk).unwrap()] {
        model.must_hold(&ledger).unwrap();
        let found = ledger.find(&lost.iter().map(|n| asked(*n)).collect::<Vec<_>>()).unwrap();
        assert!(found.iter().all(Option::is_none));
    }
}

#[test]
fn a_damaged_run_answers_what_it_can_until_it_is_replaced() {
    let disk = SimulatedDisk::new();
    let model = filled(&disk);
    let ledger = open(&disk).unwrap();
    let numbers: Vec<u64> = model.ids.keys().copied().chain((0..2_000).map(|n| STRANGERS + n)).collect();
    let all: Vec<Asked> = numbers.iter().map(|n| asked(*n)).collect();
    assert!(ledger.begin_repair().is_none(), "nothing is damaged");
    let run = disk.list(Path::new(DIR)).unwrap().into_iter().find(|file| file.name.ends_with(".run")).unwrap();
    disk.corrupt(&Path::new(DIR).join(run.name), |bytes| bytes[100] ^= 1).unwrap();
    let read = ledger.candidates(&all).read();
    assert!(read.error.unwrap().is_damage());
    assert!(!read.unread.is_empty() && read.unread.len() < all.len() / 2, "{} of {}", read.unread.len(), all.len());
    let found: HashSet<usize> = read.found.iter().map(|(at, _)| *at).collect();
    let unread: HashSet<usize> = read.unread.iter().copied().collect();
    for at in 0..model.ids.len() {
        assert!(found.contains(&at) || unread.contains(&at), "nothing that was taken is new");
    }
    assert_eq!((ledger.status().damaged_runs, ledger.maintain().unwrap()), (1, false));

    let repair = ledger.begin_repair().unwrap();
    let again: BTreeMap<u64, (u32, Day)> =
        model.ids.iter().filter(|(n, _)| repair.may_have_held(&asked(**n))).map(|(n, of)| (*n, *of)).collect();
    assert!(again.len() as u64 >= repair.ids());
    ledger.add_run(new_run(&again, Uuid::now_v7()), |_| true).unwrap();
    ledger.finish_repair(&repair).unwrap();
    model.must_hold(&ledger).unwrap();
    model.must_hold(&open(&disk).unwrap()).unwrap();
    ledger.verify().unwrap();
}

#[test]
fn runs_whose_events_have_expired_go_at_once() {
    let disk = SimulatedDisk::new();
    let mut model = filled(&disk);
    let ledger = open(&disk).unwrap();
    let before = ledger.status();
    model.keep_from = Day(7);
    ledger.expire(model.keep_from).unwrap();
    let after = ledger.status();
    assert!(before.ids > 0 && after.ids == 0 && after.runs == 0, "{after:?}");
    assert_eq!(disk.list(Path::new(DIR)).unwrap().len(), 1, "only the manifest is left");
}

#[test]
fn an_id_keeps_the_payload_it_was_first_taken_with() {
    let disk = SimulatedDisk::new();
    let ledger = open(&disk).unwrap();
    for payload in 0..9 {
        let ids = (0..100).map(|n| (n, (payload, Day(1)))).collect();
        ledger.add_run(new_run(&ids, Uuid::nil()), |_| true).unwrap();
        while ledger.maintain().unwrap() {}
    }
    let runs = ledger.status().runs;
    assert_eq!(ledger.status().ids, runs as u64 * 100, "what was merged is there once");
}

#[test]
fn looking_up_goes_on_while_runs_are_added_and_merged() {
    let disk = SimulatedDisk::new();
    let ledger = open(&disk).unwrap();
    let ids = |step: u64| (step * 1_000..step * 1_000 + 60).map(|n| (n, (9, Day(1)))).collect();
    ledger.add_run(new_run(&ids(0), Uuid::nil()), |_| true).unwrap();
    let first: Vec<Asked> = (0..60).map(asked).collect();
    let ledger = &ledger;
    std::thread::scope(|scope| {
        let adding = scope.spawn(move || {
            for step in 1..100 {
                ledger.add_run(new_run(&ids(step), Uuid::nil()), |_| false).unwrap();
            }
        });
        let merging = scope.spawn(move || {
            let mut merges = 0;
            loop {
                match ledger.maintain().unwrap() {
                    true => merges += 1,
                    false if adding.is_finished() => return merges,
                    false => {}
                }
            }
        });
        while !merging.is_finished() {
            assert!(ledger.find(&first).unwrap().iter().all(Option::is_some));
        }
        assert!(merging.join().unwrap() > 0);
    });
    assert_eq!(ledger.status().ids, 6_000);
}
