//! What the simulation has found, each with the least that shows it.

use std::path::{Path, PathBuf};

use tallyhouse_disk::Disk as _;

use super::*;

fn open(disk: &SimulatedDisk) -> DiskLog {
    DiskLog::open_stepped(Arc::new(disk.clone()), settings(LONG)).unwrap()
}

/// Frames of all segments that are not stored.
fn found(log: &DiskLog) -> Vec<u32> {
    log.segments().list().iter().flat_map(frames_of).collect()
}

fn file_of(segment: &Segment) -> PathBuf {
    segment.path().to_owned()
}

/// A log with these frames in one segment, which is open.
fn with_frames(disk: &SimulatedDisk, numbers: std::ops::Range<u32>) -> DiskLog {
    let log = open(disk);
    let answers: Vec<_> = numbers.map(|number| log.append(frame(number))).collect();
    // The first segment would be sealed at once.
    log.step(Lane::Main, Writer::turn);
    drop(answers);
    log
}

#[test]
fn what_a_start_has_found_after_a_kill_survives_a_power_failure() {
    let mut unsynced = 0;
    for left in 0..20 {
        let disk = SimulatedDisk::new();
        drop(open(&disk));
        let log = open(&disk);
        log.step(Lane::Main, |writer| writer.opener.make_ahead());
        let answers: Vec<_> = (0..3).map(|number| log.append(frame(number))).collect();
        disk.crash_at(CrashPoint(disk.operations() + left));
        log.step(Lane::Main, Writer::turn);
        drop((log, answers));
        disk.restart();
        let known = found(&open(&disk));
        unsynced += known.len();
        for seed in 0..20 {
            assert_eq!(found(&open(&disk.after_power_failure(seed))), known, "killed after {left} operations");
        }
    }
    assert!(unsynced > 0);
}

#[test]
fn a_reader_keeps_a_segment_whose_deletion_outlives_its_second_name() {
    let disk = SimulatedDisk::new();
    let log = with_frames(&disk, 0..3);
    let _reader = log.add_reader(0);
    log.readers_added();
    let segment = log.take_sealed(Lane::Main).unwrap();
    log.stored(&segment);
    log.release(&[segment.ordinal], Holders::LEDGER);
    for seed in 0..100 {
        let log = open(&disk.after_power_failure(seed));
        let reader = log.add_reader(0);
        assert_eq!(reader.read(LogPosition::default(), 9).unwrap().unwrap().count, 3, "seed {seed}");
    }
}

#[test]
fn a_file_with_its_first_and_its_last_name_is_one_segment() {
    let disk = SimulatedDisk::new();
    let log = with_frames(&disk, 0..3);
    let segment = log.take_sealed(Lane::Main).unwrap();
    log.stored(&segment);
    let mut twice = 0;
    for seed in 0..200 {
        let left = disk.after_power_failure(seed);
        let names = left.list(Path::new(DIR)).unwrap().iter().filter(|file| file.bytes > 0).count();
        twice += usize::from(names > 1);
        let log = open(&left);
        let segments = [log.segments().list(), log.segments().retained()].concat();
        assert_eq!(segments.iter().map(|segment| (segment.id, segment.rows)).collect::<Vec<_>>(), [(segment.id, 3)]);
    }
    assert!(twice > 0);
}

#[test]
fn of_two_files_of_one_segment_that_differ_one_is_kept_for_a_person_to_look_at() {
    let disk = SimulatedDisk::new();
    let log = with_frames(&disk, 0..3);
    let sealed = file_of(&log.take_sealed(Lane::Main).unwrap());
    drop(log);
    let bytes = tallyhouse_disk::read_file(&disk, &sealed).unwrap();
    let other = disk.create(&sealed.with_extension("open")).unwrap();
    other.write_all_at(&bytes[..bytes.len() - 20], 0).unwrap();
    let log = open(&disk);
    assert_eq!((found(&log), log.kept().damaged), (vec![0, 1, 2], 1));
}

#[test]
fn a_reader_reads_what_is_good_of_a_damaged_segment_that_is_stored() {
    let disk = SimulatedDisk::new();
    let log = with_frames(&disk, 0..3);
    let sealed = file_of(&log.take_sealed(Lane::Main).unwrap());
    drop(log);
    disk.corrupt(&sealed, |bytes| {
        let end = bytes.len() - frame(2).bytes().len();
        bytes[end - 1] ^= 1;
    })
    .unwrap();
    let log = open(&disk);
    let reader = log.add_reader(0);
    log.readers_added();
    let segment = log.take_sealed(Lane::Main).unwrap();
    assert_eq!(frames_of(&segment), [0, 2]);
    log.stored(&segment);
    log.release(&[segment.ordinal], Holders::LEDGER);
    let rows = reader.read(LogPosition::default(), 9).unwrap().unwrap();
    assert_eq!((rows.count, rows.bytes.len()), (2, 8 + padding(0) + padding(2)));
}
