//! Which segments' tokens must not be relied on, noted beside the log in empty files (`ID.tokenless`).
//!
//! Whether a token can be relied on is judged by what is known at the time, such as the clock. A segment whose
//! events were once inserted without its token may have left the token unknown to ClickHouse: relied on later, it
//! would let all of them in again. So the judgement is made durable before the first such insert, and stays
//! until the segment goes.

use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::writer::sync_dir;
use crate::private_files;

const EXTENSION: &str = "tokenless";

fn path(dir: &Path, segment: Uuid) -> PathBuf {
    dir.join(format!("{segment}.{EXTENSION}"))
}

/// Notes it, durably.
pub(super) fn note(dir: &Path, segment: Uuid) -> io::Result<()> {
    private_files::create(&path(dir, segment))?.sync_all()?;
    sync_dir(dir)
}

/// Whether it was noted.
pub(super) fn is_noted(dir: &Path, segment: Uuid) -> io::Result<bool> {
    path(dir, segment).try_exists()
}

/// The segment has gone.
pub(super) fn forget(dir: &Path, segment: Uuid) {
    match std::fs::remove_file(path(dir, segment)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, %segment, "a note beside the log could not be deleted");
        }
        Ok(()) | Err(_) => {}
    }
}

/// Forgets notes of segments that have gone: a crash came between.
pub(super) fn forget_others(dir: &Path, is_there: impl Fn(Uuid) -> bool) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let is_note = path.extension().is_some_and(|extension| extension == EXTENSION);
        let segment = path.file_stem().and_then(|stem| Uuid::parse_str(stem.to_str()?).ok());
        if let Some(segment) = segment.filter(|segment| is_note && !is_there(*segment)) {
            forget(dir, segment);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_stays_until_the_segment_goes() {
        let dir = tempfile::tempdir().unwrap();
        let [one, other] = [Uuid::now_v7(), Uuid::now_v7()];
        forget(dir.path(), one);
        note(dir.path(), one).unwrap();
        note(dir.path(), one).unwrap();
        assert!(is_noted(dir.path(), one).unwrap() && !is_noted(dir.path(), other).unwrap());
        forget(dir.path(), one);
        assert!(!is_noted(dir.path(), one).unwrap());
        [one, other].iter().for_each(|segment| note(dir.path(), *segment).unwrap());
        forget_others(dir.path(), |segment| segment == one).unwrap();
        assert!(is_noted(dir.path(), one).unwrap() && !is_noted(dir.path(), other).unwrap());
    }
}
