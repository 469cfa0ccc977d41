//! Two open segments, of which the older one has no frame: its first write has failed.

use futures_util::FutureExt as _;
use tallyhouse_disk::Disk as _;

use super::*;

/// Frames of both lanes.
const BEFORE: [u32; 2] = [0, 3];
const MAIN: u32 = 4;
const REFUSED: u32 = 7;
const SCATTERED: u32 = 11;

/// An append that has arrived in its lane.
fn append(log: &DiskLog, number: u32) -> Appended {
    let answer = log.append(frame(number));
    log.step(Lane::Main, |_| {});
    answer
}

/// A log with one sealed segment of each lane, and an open one of the scattered lane whose first write has failed, and
/// then one of the main lane.
fn after_failed_write(disk: &SimulatedDisk) -> DiskLog {
    let log = DiskLog::open_stepped(Arc::new(disk.clone()), settings(LONG)).unwrap();
    let answers = BEFORE.map(|number| append(&log, number));
    Lane::WRITTEN.into_iter().for_each(|lane| log.step(lane, Writer::turn));
    log.step(Lane::Main, |writer| writer.opener.make_ahead());
    let mut refused = append(&log, REFUSED);
    disk.crash_at(CrashPoint(disk.operations()));
    log.step(Lane::Scattered, Writer::turn);
    assert!(refused.try_recv().unwrap().is_err());
    disk.restart();
    let mut main = append(&log, MAIN);
    log.step(Lane::Main, Writer::turn);
    assert!(main.try_recv().unwrap().is_ok());
    let open = log.segments().list().into_iter().filter(|segment| segment.state == SegmentState::Open);
    let open: Vec<(Lane, u64)> = open.map(|segment| (segment.lane, segment.rows)).collect();
    assert_eq!(open, [(Lane::Scattered, 0), (Lane::Main, 1)]);
    drop(answers);
    log
}

fn read_all(reader: &Arc<dyn LogReader>, position: &mut LogPosition) -> Vec<u32> {
    let mut numbers = Vec::new();
    while let Some(rows) = reader.read(*position, 9).unwrap() {
        numbers.extend(numbers_of(&rows.bytes));
        *position = rows.next;
    }
    numbers
}

#[test]
fn it_does_not_hold_up_readers() {
    let disk = SimulatedDisk::new();
    let log = after_failed_write(&disk);
    let (reader, mut position) = (log.add_reader(0), LogPosition::default());
    log.readers_added();
    assert_eq!(read_all(&reader, &mut position), BEFORE);
    log.step(Lane::Scattered, Writer::turn);
    assert_eq!(read_all(&reader, &mut position), [MAIN]);
    drop(append(&log, SCATTERED));
    log.step(Lane::Scattered, Writer::turn);
    Lane::WRITTEN.into_iter().for_each(|lane| log.step(lane, Writer::finish));
    assert_eq!(read_all(&reader, &mut position), [SCATTERED]);
    log.shut_stepped();
    drop(log);
    for seed in 0..20 {
        let log = DiskLog::open_stepped(Arc::new(disk.after_power_failure(seed)), settings(LONG)).unwrap();
        let found: Vec<u32> = log.segments().list().iter().flat_map(frames_of).collect();
        assert_eq!(found, [BEFORE[0], BEFORE[1], MAIN, SCATTERED], "what was refused does not come back");
    }
    assert_eq!(disk.list(DIR.as_ref()).unwrap().iter().filter(|file| file.name.ends_with(".open")).count(), 0);
}

#[test]
fn the_end_is_behind_a_younger_one() {
    let disk = SimulatedDisk::new();
    let log = after_failed_write(&disk);
    let mut end = log.end();
    assert!((&mut end).now_or_never().is_none(), "the older segment goes first");
    log.step(Lane::Scattered, |_| {});
    let mut position = end.now_or_never().unwrap();
    let reader = log.add_reader(position.segment);
    drop([append(&log, SCATTERED), append(&log, MAIN + 1)]);
    Lane::WRITTEN.into_iter().for_each(|lane| log.step(lane, Writer::finish));
    assert_eq!(read_all(&reader, &mut position), [MAIN + 1, SCATTERED]);
}

#[test]
fn the_end_is_in_it_while_it_cannot_be_cut() {
    let disk = SimulatedDisk::new();
    let log = after_failed_write(&disk);
    let older = log.segments().list().into_iter().find(|segment| segment.rows == 0).unwrap();
    disk.crash_at(CrashPoint(disk.operations()));
    let mut end = log.end();
    assert!((&mut end).now_or_never().is_none(), "it is tried");
    log.step(Lane::Scattered, |_| {});
    let mut position = end.now_or_never().unwrap();
    assert_eq!(position, LogPosition { segment: older.id.as_u128(), row: 0 });
    disk.restart();
    let reader = log.add_reader(position.segment);
    drop(append(&log, SCATTERED));
    Lane::WRITTEN.into_iter().for_each(|lane| log.step(lane, Writer::finish));
    assert_eq!(read_all(&reader, &mut position), [SCATTERED, MAIN], "nothing is missed, and one row is older");
}
