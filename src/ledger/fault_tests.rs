//! Tests what the ledger does when single operations of the disk fail.

use std::collections::BTreeMap;
use std::path::Path;

use tallyhouse_disk::{Disk as _, SimulatedDisk};
use uuid::Uuid;

use super::model::{DIR, filled, id, new_run, open};
use super::{Day, SegmentNote};

/// Errors of Linux: a disk that cannot read a sector, a full one, a file that the service may not open.
const EIO: i32 = 5;
const EACCES: i32 = 13;
const ENOSPC: i32 = 28;

fn files(disk: &SimulatedDisk, suffix: &str) -> usize {
    disk.list(Path::new(DIR)).unwrap().iter().filter(|file| file.name.ends_with(suffix)).count()
}

#[test]
fn a_run_that_could_not_be_added_leaves_no_file() {
    let ids: BTreeMap<u64, (u32, Day)> = (0..400).map(|n| (100_000 + n, (9, Day(1)))).collect();
    let mut failures = 0;
    for operation in 0..16 {
        let disk = SimulatedDisk::new();
        let mut model = filled(&disk);
        let ledger = open(&disk).unwrap();
        for _ in 0..5 {
            disk.fail_at(disk.operations() + operation, ENOSPC);
            let added = ledger.add_run(new_run(&ids, Uuid::nil()), |_| true);
            disk.fail_at(u64::MAX, ENOSPC);
            assert!(files(&disk, ".run") <= ledger.status().runs + 1, "after a failure of operation {operation}");
            if added.is_ok() {
                break;
            }
            failures += 1;
            model.must_hold(&ledger).unwrap();
        }
        ledger.add_run(new_run(&ids, Uuid::nil()), |_| true).unwrap();
        assert_eq!(files(&disk, ".run"), ledger.status().runs, "after a failure of operation {operation}");
        model.ids.extend(&ids);
        model.must_hold(&ledger).unwrap();
        model.must_hold(&open(&disk.after_power_failure(operation)).unwrap()).unwrap();
    }
    assert!(failures > 20, "{failures}");
}

#[test]
fn a_merge_that_could_not_be_finished_leaves_no_file() {
    let mut failures = 0;
    for operation in 0..60 {
        let disk = SimulatedDisk::new();
        let mut model = filled(&disk);
        let ledger = open(&disk).unwrap();
        for part in 0..3 {
            let ids = (0..20).map(|n| (200_000 + part * 100 + n, (9, Day(1)))).collect();
            ledger.add_run(new_run(&ids, Uuid::nil()), |_| true).unwrap();
            model.ids.extend(&ids);
        }
        disk.fail_at(disk.operations() + operation, ENOSPC);
        failures += u64::from(ledger.maintain().is_err());
        disk.fail_at(u64::MAX, ENOSPC);
        assert!(files(&disk, ".run") <= ledger.status().runs + 1, "after a failure of operation {operation}");
        while ledger.maintain().unwrap() {}
        let ids = BTreeMap::from([(300_000, (9, Day(1)))]);
        ledger.add_run(new_run(&ids, Uuid::nil()), |_| true).unwrap();
        assert_eq!(files(&disk, ".run"), ledger.status().runs, "after a failure of operation {operation}");
        model.must_hold(&ledger).unwrap();
        model.must_hold(&open(&disk.after_power_failure(operation)).unwrap()).unwrap();
    }
    assert!(failures > 5, "{failures}");
}

#[test]
fn a_merge_that_the_disk_has_no_room_for_is_not_begun() {
    let disk = SimulatedDisk::new();
    let model = filled(&disk);
    let ledger = open(&disk).unwrap();
    for n in 0..3 {
        ledger.add_run(new_run(&BTreeMap::from([(200_000 + n, (9, Day(1)))]), Uuid::nil()), |_| true).unwrap();
    }
    disk.set_free_bytes(4_096);
    let operations = disk.operations();
    assert!(ledger.maintain().is_err_and(|error| !error.is_damage()));
    assert_eq!(disk.operations(), operations);
    disk.set_free_bytes(1 << 30);
    assert!(ledger.maintain().unwrap());
    model.must_hold(&ledger).unwrap();
}

#[test]
fn an_empty_run_leaves_no_file() {
    let disk = SimulatedDisk::new();
    let ledger = open(&disk).unwrap();
    ledger.add_run(new_run(&BTreeMap::new(), Uuid::nil()), |_| true).unwrap();
    assert_eq!((files(&disk, ".run"), ledger.covers(Uuid::nil())), (0, true));
}

#[test]
fn a_note_that_could_not_be_written_leaves_no_file() {
    let disk = SimulatedDisk::new();
    let ledger = open(&disk).unwrap();
    let mut failures = 0;
    for operation in 0..6 {
        let note = SegmentNote { segment: Uuid::now_v7(), ids: (0..9).map(|n| (id(n), 1)).collect() };
        disk.fail_at(disk.operations() + operation, ENOSPC);
        failures += u64::from(ledger.note_segment(&note).is_err());
        disk.fail_at(u64::MAX, ENOSPC);
        assert_eq!(files(&disk, ".new"), 0, "after a failure of operation {operation}");
    }
    assert!(failures > 3, "{failures}");
    disk.create(&Path::new(DIR).join(format!("{}.new", Uuid::now_v7()))).unwrap();
    open(&disk).unwrap();
    assert_eq!(files(&disk, ".new"), 0, "a process was killed while it wrote a note");
}

#[test]
fn a_file_that_the_disk_cannot_read_is_damage_and_one_that_may_not_be_opened_is_not() {
    let disk = SimulatedDisk::new();
    filled(&disk);
    let (mut damaged, mut operation) = (0, 0);
    loop {
        let fails_with = |os_error| {
            let disk = disk.after_power_failure(0);
            disk.fail_at(operation, os_error);
            open(&disk).map(drop)
        };
        assert!(fails_with(EACCES).is_ok_and(|()| true) || fails_with(EACCES).is_err_and(|error| !error.is_damage()));
        match fails_with(EIO) {
            Ok(()) => break,
            Err(error) => damaged += u64::from(error.is_damage()),
        }
        operation += 1;
    }
    // The manifest, and each of the runs: opened, its length asked for, and read.
    assert!(damaged >= 3 + 4, "{damaged} of {operation}");

    let ledger = open(&disk).unwrap();
    let note = SegmentNote { segment: Uuid::now_v7(), ids: vec![(id(1), 1)] };
    ledger.note_segment(&note).unwrap();
    disk.fail_at(disk.operations() + 2, EIO);
    assert!(ledger.segment_note(note.segment).is_err_and(|error| error.is_damage()));
}
