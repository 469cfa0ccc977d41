//! Every reader reads every row once and in order, however far the forwarder and others are, and nothing stays for nobody.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;

fn open(dir: &std::path::Path, ids_above: u128) -> Log {
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
        ids_above,
    };
    Log::open(settings, Arc::default(), Arc::default()).unwrap()
}

/// A frame of numbered rows, of four bytes each.
fn frame(numbers: std::ops::Range<u32>) -> Frame {
    let mut buffer = Frame::buffer(0);
    let rows = numbers.end - numbers.start;
    numbers.for_each(|number| buffer.extend_from_slice(&number.to_le_bytes()));
    Frame::seal(buffer, rows)
}

/// What a reader reads on until nothing more is there.
fn read_all(reader: &LogReader, position: &mut LogPosition, rows_max: u64) -> Vec<u32> {
    let mut numbers = Vec::new();
    while let Some(rows) = reader.read(*position, rows_max).unwrap() {
        let all: Vec<u32> = rows.bytes.chunks(4).map(|bytes| u32::from_le_bytes(bytes.try_into().unwrap())).collect();
        assert_eq!(all.len() as u64, rows.count);
        numbers.extend(all.iter().skip(usize::try_from(rows.skip).unwrap()));
        *position = rows.next;
    }
    numbers
}

/// The forwarder stores so many segments.
fn store(log: &Log, count: usize) {
    for _ in 0..count {
        let Some(segment) = log.take_sealed() else { return };
        log.stored(&segment);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reader_reads_every_row_once_and_in_order() {
    for seed in 0..8 {
        let mut rng = StdRng::seed_from_u64(seed);
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path(), 0);
        let mut positions = [LogPosition::default(); 2];
        let mut seen = [Vec::new(), Vec::new()];
        let mut sent = 0;
        for _ in 0..30 {
            let readers = positions.map(|position| log.readers().add(position.segment));
            log.readers().complete();
            for _ in 0..rng.random_range(0..6) {
                let count = rng.random_range(1..5);
                log.append(frame(sent..sent + count)).await.unwrap().unwrap();
                sent += count;
                if rng.random_bool(0.2) {
                    log.seal().await;
                }
                store(&log, rng.random_range(0..3));
                for (number, reader) in readers.iter().enumerate() {
                    if rng.random_bool(0.4) {
                        let rows = read_all(reader, &mut positions[number], rng.random_range(1..9));
                        seen[number].extend(rows);
                        reader.release(positions[number].segment);
                    }
                }
            }
            // What former readers need is held through a restart.
            let last = positions.iter().map(|position| position.segment).max().unwrap();
            drop((readers, log));
            log = open(dir.path(), last);
        }
        let readers = positions.map(|position| log.readers().add(position.segment));
        log.readers().complete();
        log.seal().await;
        store(&log, usize::MAX);
        for (number, reader) in readers.iter().enumerate() {
            seen[number].extend(read_all(reader, &mut positions[number], 100));
            assert_eq!(seen[number], (0..sent).collect::<Vec<u32>>(), "seed {seed}, reader {number}");
        }
        readers.iter().for_each(LogReader::give_up);
        assert_eq!(log.readers().bytes(), 0);
        assert_eq!(std::fs::read_dir(dir.path().join("held")).unwrap().count(), 0, "nothing stays for nobody");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_within_a_frame_can_be_read_from() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 0);
    let reader = log.readers().add(0);
    log.append(frame(0..4)).await.unwrap().unwrap();
    let all = reader.read(LogPosition::default(), 1).unwrap().unwrap();
    assert_eq!((all.count, all.skip), (4, 0), "frames are read whole");
    for row in 0..4 {
        let mut position = LogPosition { row, ..all.first };
        assert_eq!(read_all(&reader, &mut position, 100), (u32::try_from(row).unwrap()..4).collect::<Vec<u32>>());
    }
    assert!(reader.read(all.next, 1).unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn held_segments_count_against_the_bound_and_ids_rise_whatever_the_clock_says() {
    let dir = tempfile::tempdir().unwrap();
    let far = u128::MAX >> 1;
    let log = open(dir.path(), far);
    let reader = log.readers().add(0);
    log.readers().complete();
    log.append(frame(0..6)).await.unwrap().unwrap();
    log.seal().await;
    assert!(log.segments().list()[0].id.as_u128() > far);
    store(&log, 1);
    assert!(log.segments().list().iter().all(|segment| segment.rows == 0) && log.readers().bytes() > 0);
    let mut position = LogPosition::default();
    assert_eq!(read_all(&reader, &mut position, 2), [0, 1, 2, 3, 4, 5]);
    reader.release(position.segment);
    assert_eq!(log.readers().bytes(), 0);
}

#[test]
fn a_bounded_reader_misses_the_oldest_and_holds_up_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 0);
    let readers = log.readers();
    let (slow, unbounded) = (readers.add_bounded(0), readers.add(0));
    readers.complete();
    let append = |numbers: std::ops::Range<u32>| log.append(frame(numbers)).blocking_recv().unwrap().unwrap();
    // Segments of six rows.
    for first in (0..36).step_by(6) {
        append(first..first + 6);
    }
    store(&log, 5);
    let all = readers.bytes();
    assert!(all > 0);
    readers.set_bounds(all / 2, 0);
    store(&log, 1);
    assert_eq!(slow.missed(), 0, "an unbounded reader holds them for all");
    let mut position = LogPosition::default();
    let read = read_all(&unbounded, &mut position, 100);
    assert_eq!(read.first(), Some(&0));
    unbounded.release(position.segment);
    assert!(slow.missed() > 0 && readers.bytes() <= all / 2, "{} segments, {} bytes", slow.missed(), readers.bytes());
    let numbers = read_all(&slow, &mut LogPosition::default(), 100);
    let missed = u32::try_from(slow.missed()).unwrap() * 6;
    assert_eq!(numbers.first(), Some(&missed), "it reads on where something is left");
    slow.release(u128::MAX);
    assert_eq!(readers.bytes(), 0);
    assert_eq!(std::fs::read_dir(dir.path().join("held")).unwrap().count(), 0);
}

#[test]
fn a_reader_finds_the_history_that_was_kept_for_it_and_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 0);
    let readers = log.readers();
    readers.complete();
    readers.set_bounds(0, 1 << 20);
    assert_eq!(readers.end(), LogPosition::default());
    let append = |numbers: std::ops::Range<u32>| log.append(frame(numbers)).blocking_recv().unwrap().unwrap();
    append(0..6);
    append(6..9);
    store(&log, 1);
    let from_end = readers.end();
    let (earliest, now) = (readers.add_bounded(0), readers.add_bounded(from_end.segment));
    assert_eq!(read_all(&earliest, &mut LogPosition::default(), 100), (0..9).collect::<Vec<u32>>());
    append(9..11);
    let mut position = from_end;
    assert_eq!(read_all(&now, &mut position, 100), [9, 10]);
}
