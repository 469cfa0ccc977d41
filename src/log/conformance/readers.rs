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

/// The forwarder stores so many segments of each lane.
fn store(log: &impl EventLog, count: usize) {
    Lane::WRITTEN.into_iter().for_each(|lane| store_of(log, lane, count));
}

fn store_of(log: &impl EventLog, lane: Lane, count: usize) {
    for _ in 0..count {
        let Some(segment) = log.take_sealed(lane) else { return };
        log.stored(&segment);
    }
}

/// The numbers of each lane, of whose rows these first numbers of frames are in the scattered one.
fn by_lane(numbers: &[u32], is_scattered: &[bool]) -> [Vec<u32>; 2] {
    let of = |lane| numbers.iter().copied().filter(|number| is_scattered[*number as usize] == lane).collect();
    [false, true].map(of)
}

/// In the order of its lane.
pub(super) async fn every_reader_reads_every_row_once_and_in_order<F: LogFactory>() {
    for seed in 0..8 {
        let mut rng = StdRng::seed_from_u64(seed);
        let factory = F::new();
        let mut log = factory.open(above(0));
        let mut positions = [LogPosition::default(); 2];
        let mut seen = [Vec::new(), Vec::new()];
        let (mut sent, mut is_scattered) = (0, Vec::new());
        for _ in 0..30 {
            let readers = positions.map(|position| log.add_reader(position.segment));
            log.readers_added();
            for _ in 0..rng.random_range(0..6) {
                let count = rng.random_range(1..5);
                let lane = Lane::WRITTEN[usize::from(rng.random_bool(0.4))];
                log.append(frame(sent..sent + count).on_days(days_of(lane))).await.unwrap().unwrap();
                is_scattered.resize((sent + count) as usize, lane == Lane::Scattered);
                sent += count;
                if rng.random_bool(0.2) {
                    log.seal().await;
                }
                for lane in Lane::WRITTEN {
                    store_of(&log, lane, rng.random_range(0..3));
                }
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
            let all: Vec<u32> = (0..sent).collect();
            let (seen, all) = (by_lane(&seen[number], &is_scattered), by_lane(&all, &is_scattered));
            assert_eq!(seen, all, "seed {seed}, reader {number}");
        }
        readers.iter().for_each(|reader| reader.give_up());
        assert_eq!(log.held_bytes(), 0);
        assert_eq!(factory.left_behind(), 0, "nothing stays for nobody");
    }
}

/// While both lanes open, seal and store segments.
pub(super) async fn every_row_is_read_once_while_both_lanes_are_written<F: LogFactory>() {
    const ROWS: u32 = 120;
    let factory = F::new();
    let log = Arc::new(factory.open(Options { segment_linger: Duration::ZERO, ..Options::PLAIN }));
    let reader = log.add_reader(0);
    log.readers_added();
    let writes = [0, 1].map(|lane| {
        let log = Arc::clone(&log);
        tokio::spawn(async move {
            for number in (lane..2 * ROWS).step_by(2) {
                let lane = Lane::WRITTEN[lane as usize];
                log.append(frame(number..number + 1).on_days(days_of(lane))).await.unwrap().unwrap();
                store_of(&*log, lane, 1);
            }
        })
    });
    let (mut position, mut seen) = (LogPosition::default(), Vec::new());
    while !writes.iter().all(tokio::task::JoinHandle::is_finished) {
        seen.extend(read_all(&reader, &mut position, 3));
        tokio::task::yield_now().await;
    }
    log.seal().await;
    seen.extend(read_all(&reader, &mut position, 3));
    let is_scattered: Vec<bool> = (0..2 * ROWS).map(|number| number % 2 == 1).collect();
    let all: Vec<u32> = (0..2 * ROWS).collect();
    assert_eq!(by_lane(&seen, &is_scattered), by_lane(&all, &is_scattered));
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
    let mut behind = all.next;
    assert!(read_all(&reader, &mut behind, 1).is_empty());
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
    let reader_bounds = ReaderBounds { bounded_bytes_max: 0 };
    let log = factory.open(Options { reader_bounds, ..Options::PLAIN });
    log.readers_added();
    assert_eq!(log.end().await, LogPosition::default());
    let earliest = log.add_bounded_reader(0);
    log.append(frame(0..6)).await.unwrap().unwrap();
    log.append(frame(6..9)).await.unwrap().unwrap();
    let mut position = log.end().await;
    let now = log.add_bounded_reader(position.segment);
    assert_eq!(read_all(&earliest, &mut LogPosition::default(), 100), (0..9).collect::<Vec<u32>>());
    log.append(frame(9..11)).await.unwrap().unwrap();
    assert_eq!(read_all(&now, &mut position, 100), [9, 10]);
    assert_eq!(log.end().await, position);
}

/// Rows come to open segments of both lanes before the end is looked up, and after.
pub(super) async fn nothing_is_missed_behind_the_end_of_either_lane<F: LogFactory>() {
    for seed in 0..30 {
        let mut rng = StdRng::seed_from_u64(seed);
        let factory = F::new();
        let log = factory.open(Options::PLAIN);
        let mut sent = 0;
        for _ in 0..6 {
            let mut send = async |log: &F::Log, count: u32| {
                for _ in 0..count {
                    let lane = Lane::WRITTEN[usize::from(rng.random_bool(0.5))];
                    log.append(frame(sent..sent + 1).on_days(days_of(lane))).await.unwrap().unwrap();
                    sent += 1;
                }
                sent
            };
            let first = send(&log, 5).await;
            let mut position = log.end().await;
            let last = send(&log, 5).await;
            let reader = log.add_reader(position.segment);
            let mut seen = read_all(&reader, &mut position, 3);
            log.seal().await;
            seen.extend(read_all(&reader, &mut position, 3));
            seen.sort_unstable();
            assert_eq!(seen, (first..last).collect::<Vec<u32>>(), "seed {seed}");
            assert_eq!(position, log.end().await);
        }
    }
}

/// A scattered insert takes long, and the main lane goes on.
pub(super) async fn the_end_is_behind_what_was_stored_before_an_older_segment(factory: &impl LogFactory) {
    let log = factory.open(Options::PLAIN);
    let earliest = log.add_reader(0);
    log.readers_added();
    log.append(frame(0..2).on_days(days_of(Lane::Scattered))).await.unwrap().unwrap();
    log.append(frame(2..4)).await.unwrap().unwrap();
    log.seal().await;
    store_of(&log, Lane::Main, 1);
    let mut position = log.end().await;
    let now = log.add_reader(position.segment);
    assert!(read_all(&now, &mut position, 100).is_empty(), "all is older");
    assert_eq!(read_all(&earliest, &mut LogPosition::default(), 100), [0, 1, 2, 3]);
    log.append(frame(4..5)).await.unwrap().unwrap();
    assert_eq!(read_all(&now, &mut position, 100), [4]);
}

/// Younger segments of the main lane are stored, and go, before an older scattered one is.
pub(super) async fn a_bounded_reader_reads_or_misses_what_is_stored_after_younger_segments(factory: &impl LogFactory) {
    let reader_bounds = ReaderBounds { bounded_bytes_max: 0 };
    let log = factory.open(Options { reader_bounds, ..Options::PLAIN });
    let slow = log.add_bounded_reader(0);
    log.readers_added();
    log.append(frame(0..2).on_days(days_of(Lane::Scattered))).await.unwrap().unwrap();
    log.append(frame(2..4)).await.unwrap().unwrap();
    log.seal().await;
    store_of(&log, Lane::Main, 1);
    assert_eq!(slow.missed(), 1);
    assert_eq!(read_all(&slow, &mut LogPosition::default(), 100), [0, 1], "the older one is there");
    store_of(&log, Lane::Scattered, 1);
    assert_eq!(slow.missed(), 2, "it had not released it");
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

    let reader_bounds = ReaderBounds { bounded_bytes_max: all / 2 };
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
