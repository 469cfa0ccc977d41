//! Readers: each reads every row once and in order, however far the forwarder and others are, and nothing stays for nobody.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;

const fn above(ids_above: u128) -> Options {
    Options { ids_above, ..Options::PLAIN }
}

/// A frame of numbered rows, of four bytes each.
fn frame(numbers: std::ops::Range<u32>) -> Frame {
    let mut buffer = Frame::buffer(0);
    let rows = numbers.end - numbers.start;
    numbers.for_each(|number| buffer.extend_from_slice(&number.to_le_bytes()));
    Frame::seal(buffer, rows)
}

/// What a reader reads on until nothing more is there.
fn read_all(reader: &Arc<dyn LogReader>, position: &mut LogPosition, rows_max: u64) -> Vec<u32> {
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
fn store(log: &impl EventLog, count: usize) {
    for _ in 0..count {
        let Some(segment) = log.take_sealed() else { return };
        log.stored(&segment);
    }
}

pub(super) async fn every_reader_reads_every_row_once_and_in_order<F: LogFactory>() {
    for seed in 0..8 {
        let mut rng = StdRng::seed_from_u64(seed);
        let factory = F::new();
        let mut log = factory.open(above(0));
        let mut positions = [LogPosition::default(); 2];
        let mut seen = [Vec::new(), Vec::new()];
        let mut sent = 0;
        for _ in 0..30 {
            let readers = positions.map(|position| log.add_reader(position.segment));
            log.readers_added();
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
            log = factory.open(above(last));
        }
        let readers = positions.map(|position| log.add_reader(position.segment));
        log.readers_added();
        log.seal().await;
        store(&log, usize::MAX);
        for (number, reader) in readers.iter().enumerate() {
            seen[number].extend(read_all(reader, &mut positions[number], 100));
            assert_eq!(seen[number], (0..sent).collect::<Vec<u32>>(), "seed {seed}, reader {number}");
        }
        readers.iter().for_each(|reader| reader.give_up());
        assert_eq!(log.held_bytes(), 0);
        assert_eq!(factory.left_behind(), 0, "nothing stays for nobody");
    }
}

pub(super) async fn a_row_within_a_frame_can_be_read_from(factory: &impl LogFactory) {
    let log = factory.open(above(0));
    let reader = log.add_reader(0);
    log.append(frame(0..4)).await.unwrap().unwrap();
    let all = reader.read(LogPosition::default(), 1).unwrap().unwrap();
    assert_eq!((all.count, all.skip), (4, 0), "frames are read whole");
    for row in 0..4 {
        let mut position = LogPosition { row, ..all.first };
        assert_eq!(read_all(&reader, &mut position, 100), (u32::try_from(row).unwrap()..4).collect::<Vec<u32>>());
    }
    assert!(reader.read(all.next, 1).unwrap().is_none());
}

pub(super) async fn ids_rise_whatever_the_clock_says_and_readers_hold_what_they_need(factory: &impl LogFactory) {
    let far = u128::MAX >> 1;
    let log = factory.open(above(far));
    let reader = log.add_reader(0);
    log.readers_added();
    log.append(frame(0..6)).await.unwrap().unwrap();
    log.seal().await;
    assert!(log.segments().list()[0].id.as_u128() > far);
    store(&log, 1);
    assert!(log.segments().list().iter().all(|segment| segment.rows == 0) && log.held_bytes() > 0);
    let mut position = LogPosition::default();
    assert_eq!(read_all(&reader, &mut position, 2), [0, 1, 2, 3, 4, 5]);
    reader.release(position.segment);
    assert_eq!(log.held_bytes(), 0);
}

pub(super) async fn a_reader_for_everything_and_one_from_the_end_meet(factory: &impl LogFactory) {
    let log = factory.open(Options {
        reader_bounds: ReaderBounds { bounded_bytes_max: 0, history_bytes_max: 1 << 20 },
        ..Options::PLAIN
    });
    log.readers_added();
    assert_eq!(log.end(), LogPosition::default());
    let earliest = log.add_bounded_reader(0);
    log.append(frame(0..6)).await.unwrap().unwrap();
    log.append(frame(6..9)).await.unwrap().unwrap();
    let mut position = log.end();
    let now = log.add_bounded_reader(position.segment);
    assert_eq!(read_all(&earliest, &mut LogPosition::default(), 100), (0..9).collect::<Vec<u32>>());
    log.append(frame(9..11)).await.unwrap().unwrap();
    assert_eq!(read_all(&now, &mut position, 100), [9, 10]);
    assert_eq!(log.end(), position);
}

pub(super) async fn a_bounded_reader_misses_the_oldest_and_holds_up_nobody<F: LogFactory>() {
    let factory = F::new();
    let log = factory.open(Options::PLAIN);
    log.readers_added();
    let held = log.add_reader(0);
    for first in (0..36).step_by(SEGMENT_ROWS_MAX as usize) {
        log.append(frame(first..first + SEGMENT_ROWS_MAX)).await.unwrap().unwrap();
    }
    log.seal().await;
    store(&log, 5);
    let all = log.held_bytes();
    assert!(all > 0);
    drop((held, log));

    let reader_bounds = ReaderBounds { bounded_bytes_max: all / 2, history_bytes_max: 0 };
    let log = factory.open(Options { reader_bounds, ..Options::PLAIN });
    let (slow, unbounded) = (log.add_bounded_reader(0), log.add_reader(0));
    log.readers_added();
    store(&log, 1);
    assert_eq!(slow.missed(), 0, "an unbounded reader holds them for all");
    let mut position = LogPosition::default();
    assert_eq!(read_all(&unbounded, &mut position, 100).first(), Some(&0));
    unbounded.release(position.segment);
    assert!(slow.missed() > 0 && log.held_bytes() <= all / 2, "{} segments, {} bytes", slow.missed(), log.held_bytes());
    let numbers = read_all(&slow, &mut LogPosition::default(), 100);
    let missed = u32::try_from(slow.missed()).unwrap() * SEGMENT_ROWS_MAX;
    assert_eq!(numbers.first(), Some(&missed), "it reads on where something is left");
    slow.release(u128::MAX);
    assert_eq!(log.held_bytes(), 0);
    assert_eq!(factory.left_behind(), 0);
}
