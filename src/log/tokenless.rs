//! Which segments' tokens must not be relied on, noted beside the log in empty files (`ID.tokenless`).
//!
//! Whether a token can be relied on is judged by what is known at the time, such as the clock. A segment whose
//! events were once inserted without its token may have left the token unknown to ClickHouse: relied on later, it
//! would let all of them in again. So the judgement is made durable before the first such insert, and stays
//! until the segment goes.

use std::io;
use std::path::{Path, PathBuf};

use tallyhouse_disk::{Disk, exists};
use uuid::Uuid;

const EXTENSION: &str = "tokenless";

fn path(dir: &Path, segment: Uuid) -> PathBuf {
    dir.join(format!("{segment}.{EXTENSION}"))
}

/// Notes it, durably.
pub(super) fn note(disk: &dyn Disk, dir: &Path, segment: Uuid) -> io::Result<()> {
    match disk.create(&path(dir, segment)) {
        Ok(file) => file.sync_all()?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    disk.sync_dir(dir)
}

/// Whether it was noted.
pub(super) fn is_noted(disk: &dyn Disk, dir: &Path, segment: Uuid) -> io::Result<bool> {
    exists(disk, &path(dir, segment))
}

/// The segment has gone.
pub(super) fn forget(disk: &dyn Disk, dir: &Path, segment: Uuid) {
    match disk.remove(&path(dir, segment)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, %segment, "a note beside the log could not be deleted");
        }
        Ok(()) | Err(_) => {}
    }
}

/// Forgets notes of segments that have gone: a crash came between.
pub(super) fn forget_others(disk: &dyn Disk, dir: &Path, is_there: impl Fn(Uuid) -> bool) -> io::Result<()> {
    for file in disk.list(dir)? {
        let Some((stem, extension)) = file.name.rsplit_once('.') else { continue };
        let segment = Uuid::parse_str(stem).ok();
        if let Some(segment) = segment.filter(|segment| extension == EXTENSION && !is_there(*segment)) {
            forget(disk, dir, segment);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tallyhouse_disk::RealDisk;

    use super::*;

    #[test]
    fn what_is_noted_stays_until_the_segment_goes() {
        let dir = tempfile::tempdir().unwrap();
        let [one, other] = [Uuid::now_v7(), Uuid::now_v7()];
        forget(&RealDisk, dir.path(), one);
        note(&RealDisk, dir.path(), one).unwrap();
        note(&RealDisk, dir.path(), one).unwrap();
        assert!(is_noted(&RealDisk, dir.path(), one).unwrap() && !is_noted(&RealDisk, dir.path(), other).unwrap());
        forget(&RealDisk, dir.path(), one);
        assert!(!is_noted(&RealDisk, dir.path(), one).unwrap());
        [one, other].iter().for_each(|segment| note(&RealDisk, dir.path(), *segment).unwrap());
        forget_others(&RealDisk, dir.path(), |segment| segment == one).unwrap();
        assert!(is_noted(&RealDisk, dir.path(), one).unwrap() && !is_noted(&RealDisk, dir.path(), other).unwrap());
    }
}
