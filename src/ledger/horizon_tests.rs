//! Tests which ids the ledger lets go, and which it keeps.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tallyhouse_disk::SimulatedDisk;
use uuid::Uuid;

use super::model::{DIR, SETTINGS, asked, filled, id, new_run};
use super::{Day, Ledger, LedgerSettings, SegmentNote};

fn bounded(disk: &SimulatedDisk, ids_max: u64) -> Ledger {
    let settings = LedgerSettings { ids_max, ..SETTINGS };
    let ledger = Ledger::open(Arc::new(disk.clone()), Path::new(DIR), settings).unwrap();
    ledger.set_today(Day(6));
    ledger
}

/// Adds these ids, of one day, as a run.
fn add(ledger: &Ledger, numbers: std::ops::Range<u64>, day: Day) {
    let ids: BTreeMap<u64, (u32, Day)> = numbers.map(|n| (n, (9, day))).collect();
    ledger.add_run(new_run(&ids, Uuid::nil()), |_| true).unwrap();
}

fn note(numbers: std::ops::Range<u64>) -> SegmentNote {
    SegmentNote { segment: Uuid::now_v7(), ids: numbers.map(|n| (id(n), 1)).collect() }
}

fn all_found(ledger: &Ledger, numbers: std::ops::Range<u64>) -> bool {
    ledger.find(&numbers.map(asked).collect::<Vec<_>>()).unwrap().iter().all(Option::is_some)
}

#[test]
fn over_its_bound_the_oldest_days_go_and_the_floor_says_so() {
    let disk = SimulatedDisk::new();
    let model = filled(&disk);
    let ledger = bounded(&disk, 2_000);
    while ledger.maintain().unwrap() {}
    let status = ledger.status();
    assert!((1_500..=2_000).contains(&status.ids), "{status:?}");
    assert_eq!(status.oldest_day, Some(status.floor));
    for (n, (_, day)) in &model.ids {
        let found = ledger.find(&[asked(*n)]).unwrap()[0].is_some();
        assert_eq!(found, *day >= status.floor, "an id of day {}", day.0);
    }
}

#[test]
fn the_newest_day_stays_however_many_ids_it_has() {
    let disk = SimulatedDisk::new();
    let model = filled(&disk);
    let ledger = bounded(&disk, 10);
    while ledger.maintain().unwrap() {}
    let newest = model.ids.values().map(|(_, day)| *day).max().unwrap();
    let status = ledger.status();
    assert_eq!((status.floor, status.oldest_day), (newest, Some(newest)));
    assert_eq!(status.ids, model.ids.values().filter(|(_, day)| *day == newest).count() as u64);
}

#[test]
fn ids_of_noted_segments_stay_when_the_floor_rises() {
    let disk = SimulatedDisk::new();
    let model = filled(&disk);
    let ledger = bounded(&disk, 2_000);
    let (oldest, _) = model.ids.iter().min_by_key(|(_, (_, day))| *day).unwrap();
    // As many as there may be ids in all: they stay although that is too many.
    let noted: Vec<u64> = model.ids.keys().copied().filter(|n| *n < 3_000 || n == oldest).collect();
    let note = SegmentNote { segment: Uuid::now_v7(), ids: noted.iter().map(|n| (id(*n), 1)).collect() };
    ledger.note_segment(&note).unwrap();
    while ledger.maintain().unwrap() {}
    assert!(model.ids[oldest].1 < ledger.status().floor);
    for n in &noted {
        assert!(ledger.find(&[asked(*n)]).unwrap()[0].is_some());
    }
    let before = ledger.status();
    ledger.forget_segment(note.segment).unwrap();
    while ledger.maintain().unwrap() {}
    let after = ledger.status();
    let is_dropped = ledger.find(&[asked(*oldest)]).unwrap()[0].is_none();
    assert!(after.ids <= 2_000 && is_dropped == (before.ids > 2_000), "{before:?} {after:?}");
}

#[test]
fn an_event_of_tomorrow_does_not_let_the_ids_of_today_go() {
    let disk = SimulatedDisk::new();
    filled(&disk);
    let ledger = bounded(&disk, 420);
    add(&ledger, 100_000..100_001, Day(7));
    while ledger.maintain().unwrap() {}
    assert_eq!(ledger.status().floor, Day(6));
    assert!(all_found(&ledger, 6_000..6_400) && all_found(&ledger, 100_000..100_001));
}

#[test]
fn a_day_with_more_ids_than_the_bound_stays_until_the_next_has_half_of_it() {
    let disk = SimulatedDisk::new();
    let ledger = bounded(&disk, 1_000);
    add(&ledger, 0..2_000, Day(5));
    for first in (10_000..10_500).step_by(100) {
        while ledger.maintain().unwrap() {}
        assert_eq!(ledger.status().floor, Day(0), "one second after midnight, a second is not all that is known");
        assert!(all_found(&ledger, 0..2_000));
        add(&ledger, first..first + 100, Day(6));
    }
    while ledger.maintain().unwrap() {}
    assert_eq!((ledger.status().floor, ledger.status().ids), (Day(6), 500));
}

#[test]
fn no_day_goes_before_it_is_known_which_day_it_is() {
    let disk = SimulatedDisk::new();
    filled(&disk);
    let ledger = Ledger::open(Arc::new(disk), Path::new(DIR), LedgerSettings { ids_max: 420, ..SETTINGS }).unwrap();
    while ledger.maintain().unwrap() {}
    assert_eq!((ledger.status().floor, ledger.status().ids), (Day(0), 2_800));
    ledger.set_today(Day(3));
    while ledger.maintain().unwrap() {}
    assert_eq!((ledger.status().floor, ledger.status().ids), (Day(3), 1_600));
}

#[test]
fn ids_that_are_in_two_runs_do_not_raise_the_floor() {
    let disk = SimulatedDisk::new();
    let model = filled(&disk);
    let ledger = bounded(&disk, 3_500);
    // As a rebuild adds them again: a few at a time, maintained meanwhile.
    let numbers: Vec<u64> = model.ids.keys().copied().collect();
    for part in numbers.chunks(150) {
        let again = part.iter().map(|n| (*n, model.ids[n])).collect();
        ledger.add_run(new_run(&again, Uuid::nil()), |_| true).unwrap();
        while ledger.maintain().unwrap() {}
        assert_eq!(ledger.status().floor, Day(0), "there is room for all of them");
    }
    model.must_hold(&ledger).unwrap();
}

#[test]
fn ids_of_days_before_the_floor_go_while_a_segment_is_noted() {
    let disk = SimulatedDisk::new();
    filled(&disk);
    let ledger = bounded(&disk, 2_000);
    let noted = note(0..50);
    ledger.note_segment(&noted).unwrap();
    while ledger.maintain().unwrap() {}
    let floor = ledger.status().floor;
    assert!(floor > Day(1));
    // As late events, or a rebuild, bring them.
    for part in 0..40 {
        let first = 200_000 + part * 100;
        add(&ledger, first..first + 100, Day(1));
        while ledger.maintain().unwrap() {}
        assert!(ledger.status().ids <= 2_000 + 200 + 50, "{:?}", ledger.status());
    }
    assert_eq!(ledger.status().floor, floor, "what is below the floor goes first");
    assert!(all_found(&ledger, 0..50), "only the log has their events");
}

#[test]
fn a_note_that_cannot_be_read_keeps_every_id() {
    let disk = SimulatedDisk::new();
    let model = filled(&disk);
    let ledger = bounded(&disk, 2_000);
    let noted = note(0..50);
    ledger.note_segment(&noted).unwrap();
    disk.corrupt(&Path::new(DIR).join(format!("{}.ids", noted.segment)), |bytes| bytes[70] ^= 1).unwrap();
    let mut last = Ok(true);
    while let Ok(true) = last {
        last = ledger.maintain();
    }
    assert!(last.is_err_and(|error| error.is_damage()));
    assert_eq!(ledger.status().floor, Day(0));
    model.must_hold(&ledger).unwrap();
    ledger.forget_segment(noted.segment).unwrap();
    while ledger.maintain().unwrap() {}
    assert!(ledger.status().ids <= 2_000 && ledger.status().floor > Day(0));
}
