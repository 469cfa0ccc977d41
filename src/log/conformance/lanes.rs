//! Lanes: segments of many days are written, taken and read apart from the others, and nothing is lost between them.

use super::*;

/// As soon as the forwarder is free, where segments are sealed by time.
const AT_ONCE: Options = Options { segment_linger: Duration::ZERO, ..Options::PLAIN };

/// Appends one row, of events of these days.
async fn append(log: &impl EventLog, row: u8, days: impl IntoIterator<Item = DayNumber>) {
    let mut buffer = Frame::buffer(1);
    buffer.push(row);
    log.append(Frame::seal(buffer, 1).on_days(days.into_iter().collect())).await.unwrap().unwrap();
}

/// The next sealed segment of a lane.
async fn take(log: &impl EventLog, lane: Lane) -> Segment {
    let mut changes = log.segments().changes();
    loop {
        match log.take_sealed(lane) {
            Some(segment) => return segment,
            None => tokio::time::timeout(Duration::from_secs(60), changes.changed()).await.unwrap().unwrap(),
        }
    }
}

/// Rows of all segments of a lane.
fn rows_of(log: &impl EventLog, lane: Lane) -> u64 {
    let segments = log.segments().list().into_iter();
    segments.filter(|segment| segment.lane == lane).map(|segment| segment.rows).sum()
}

/// What a reader reads on now.
fn read_now(reader: &Arc<dyn LogReader>, position: &mut LogPosition) -> Vec<u8> {
    let mut rows = Vec::new();
    while let Some(read) = reader.read(*position, 100).unwrap() {
        rows.extend(&read.bytes[usize::try_from(read.skip).unwrap()..]);
        *position = read.next;
    }
    rows
}

pub(super) async fn frames_of_many_days_have_segments_of_their_own(factory: &impl LogFactory) {
    let log = factory.open(Options::PLAIN);
    for day in 1..=20 {
        append(&log, 0, [day]).await;
        append(&log, 0, []).await;
        append(&log, 0, days_of(Lane::Scattered)).await;
        if day == 10 {
            log.seal().await;
        }
    }
    assert_eq!((rows_of(&log, Lane::Main), rows_of(&log, Lane::Scattered)), (40, 20));
}

pub(super) async fn what_a_former_run_left_is_of_the_main_lane_until_it_is_moved(factory: &impl LogFactory) {
    let log = factory.open(Options::PLAIN);
    append(&log, 1, days_of(Lane::Scattered)).await;
    append(&log, 2, [0]).await;
    log.shut().await;
    drop(log);
    let log = factory.open(Options::PLAIN);
    let (first, second) = (log.take_sealed(Lane::Main).unwrap(), log.take_sealed(Lane::Main).unwrap());
    assert_eq!([first.lane, second.lane], [Lane::Unknown; 2]);
    log.move_to_scattered(&first);
    assert!(log.take_sealed(Lane::Main).is_none());
    assert_eq!(log.take_sealed(Lane::Scattered).unwrap().id, first.id);
}

pub(super) async fn a_scattered_insert_under_way_stops_no_other(factory: &impl LogFactory) {
    let log = factory.open(AT_ONCE);
    append(&log, 1, days_of(Lane::Scattered)).await;
    let scattered = take(&log, Lane::Scattered).await;
    for row in 2..6 {
        append(&log, row, days_of(Lane::Scattered)).await;
        append(&log, row, [0]).await;
        let main = take(&log, Lane::Main).await;
        assert_eq!((main.rows, main.lane), (1, Lane::Main));
        log.stored(&main);
    }
    assert!(log.take_sealed(Lane::Scattered).is_none(), "what comes meanwhile waits");
    log.stored(&scattered);
    assert_eq!(take(&log, Lane::Scattered).await.rows, 4, "and is one segment");
}

/// Neither lane's forwarder is free.
pub(super) async fn readers_get_past_an_open_segment_of_either_lane(factory: &impl LogFactory) {
    let log = factory.open(AT_ONCE);
    let reader = log.add_reader(0);
    log.readers_added();
    // Of each lane, two with a seal after each are more than are inserted at a time.
    for _ in 0..2 {
        append(&log, 0, days_of(Lane::Scattered)).await;
        append(&log, 0, [0]).await;
        log.seal().await;
    }
    for row in (1..20).step_by(2) {
        append(&log, row, days_of(Lane::Scattered)).await;
        append(&log, row + 1, [0]).await;
    }
    let (mut position, mut rows, mut changes) = (LogPosition::default(), Vec::<u8>::new(), reader.changes());
    loop {
        rows.extend(read_now(&reader, &mut position));
        if rows.len() >= 24 {
            break;
        }
        tokio::time::timeout(Duration::from_secs(60), changes.changed()).await.unwrap().unwrap();
    }
    rows.sort_unstable();
    assert_eq!(rows, [0; 4].into_iter().chain(1..21).collect::<Vec<u8>>(), "each once");
}

/// Rows that come to the older segment after some of the younger one are read, and once.
pub(super) async fn a_reader_waits_at_the_oldest_open_segment(factory: &impl LogFactory) {
    let log = factory.open(Options::PLAIN);
    let reader = log.add_reader(0);
    for lanes in [Lane::WRITTEN, [Lane::Scattered, Lane::Main]] {
        // The first of a lane would be sealed at once.
        append(&log, 0, days_of(Lane::Main)).await;
        append(&log, 0, days_of(Lane::Scattered)).await;
        log.seal().await;
        let mut position = log.end().await;
        let [older, younger] = lanes.map(days_of);
        append(&log, 1, older.clone()).await;
        append(&log, 3, younger.clone()).await;
        let open = log.segments().list().into_iter().filter(|segment| segment.state == SegmentState::Open);
        assert_eq!(open.map(|segment| segment.lane).collect::<Vec<_>>(), lanes);
        assert_eq!(read_now(&reader, &mut position), [1]);
        append(&log, 4, younger).await;
        append(&log, 2, older).await;
        assert_eq!(read_now(&reader, &mut position), [2]);
        log.seal().await;
        assert_eq!(read_now(&reader, &mut position), [3, 4]);
    }
}
