//! What a run finds in its directory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tallyhouse_disk::{Disk, RealDisk};
use uuid::Uuid;

use super::written;
use crate::log::frame::SegmentReader;
use crate::log::kept::KeptFiles;
use crate::log::recovery::recover;
use crate::log::{Segment, SegmentFrames, SegmentState};

/// The rows of all frames of a file up to the first bad one.
fn rows(bytes: &[u8]) -> Vec<u8> {
    let mut rows = Vec::new();
    if let Ok(mut reader) = SegmentReader::new(bytes) {
        while let Ok(Some(_)) = reader.next_frame(&mut rows) {}
    }
    rows
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).expect("a directory").flatten();
    entries
        .map(|entry| (entry.file_name().into_string().expect("a name"), std::fs::read(entry.path()).expect("a file")))
        .collect()
}

/// A file of any bytes in any state, beside a good one: the good one is there,
/// no row is lost or made up, and a second start changes nothing.
pub(crate) fn run(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let (good, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let good_bytes = written(good, &[b"good"]);
    let extension = ["open", "sealed", "parked"][usize::from(kind % 3)];
    std::fs::write(dir.path().join(format!("{good}.sealed")), &good_bytes).expect("written");
    std::fs::write(dir.path().join(format!("{other}.{extension}")), bytes).expect("written");
    std::fs::write(dir.path().join("lost+found"), bytes).expect("written");

    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let kept_files = KeptFiles::new(Arc::clone(&disk), dir.path().to_owned(), 1 << 30);
    let segments = recover(&disk, dir.path(), &kept_files).expect("recovered");
    let first: &Segment = segments.first().expect("the good one");
    assert_eq!((first.id, first.state, first.rows, first.ordinal), (good, SegmentState::Sealed, 1, 0));
    assert_eq!(std::fs::read(first.path()).ok(), Some(good_bytes));
    let kept = segments.get(1).map(|segment| std::fs::read(segment.path()).expect("its file")).unwrap_or_default();
    if let Some(segment) = segments.get(1) {
        assert_eq!((segment.id, segment.ordinal), (other, 1));
        if segment.state != SegmentState::Parked {
            assert_eq!(segment.bytes, kept.len() as u64);
            let stored = frames(segment);
            assert!(stored.starts_with(&rows(bytes)), "what was good before the first bad frame is stored");
            assert!(segment.salvage.is_some() || stored == rows(bytes), "and nothing is made up");
        }
    }
    let beside = |extension: &str| std::fs::read(dir.path().join(format!("{other}.{extension}"))).unwrap_or_default();
    let (cut, damaged) = (beside("cut"), beside("damaged"));
    let is_whole = kept == bytes || damaged == bytes || cut == bytes || [kept.clone(), cut].concat() == bytes;
    assert!(is_whole || rows(bytes).is_empty(), "what is not stored is kept beside");

    let before = files(dir.path());
    let again = recover(&disk, dir.path(), &kept_files).expect("recovered again");
    assert_eq!(files(dir.path()), before);
    let names = |segments: &[Segment]| segments.iter().map(|s| (s.id, s.state, s.rows)).collect::<Vec<_>>();
    assert_eq!(names(&again), names(&segments));
}

/// All rows that would be stored of a segment.
fn frames(segment: &Segment) -> Vec<u8> {
    let (mut frames, mut rows) = (SegmentFrames::open(segment).expect("opened"), Vec::new());
    while frames.next_frame(&mut rows).expect("read").is_some() {}
    rows
}

/// Files in each state.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for kind in 0..3 {
        for segment in super::segment::seeds() {
            seeds.push([vec![kind], segment].concat());
        }
    }
    seeds
}
