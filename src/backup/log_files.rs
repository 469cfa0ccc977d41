//! The files of a log that a service may be writing to.
//!
//! A segment's file is renamed (open, sealed, parked) and deleted once it is
//! stored. So a file that is not found under the name it was listed by is looked
//! for under the others; one that is found under none is stored.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::Path;

use crate::private_files;

/// Names of a segment's file, in the order in which it takes them. A parked one may be sealed again.
const EXTENSIONS: [&str; 4] = ["open", "sealed", "parked", "sealed"];
/// What says that a segment's token is not relied on.
const NOTE: &str = "tokenless";
/// Where segments are held for readers of the log, and the extension of their files.
const HELD_DIR: &str = "held";
const HELD: &str = "held";

/// Segments that ClickHouse does not have yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnstoredSegments {
    /// Ids of those that are open or sealed and hold events.
    pub waiting: BTreeSet<String>,
    /// Ids of those that ClickHouse has refused.
    pub parked: BTreeSet<String>,
}

/// What of a data directory's log ClickHouse does not have, going by the files. A directory without a log has
/// nothing.
///
/// # Errors
/// The disk's.
pub fn unstored_segments(data_dir: &Path) -> io::Result<UnstoredSegments> {
    let mut found = UnstoredSegments::default();
    for (id, extension, bytes) in segment_files(&data_dir.join("log"))? {
        match extension.as_str() {
            "parked" => found.parked.insert(id),
            // A file that was made ahead is empty.
            "open" | "sealed" if bytes > 0 => found.waiting.insert(id),
            _ => continue,
        };
    }
    Ok(found)
}

/// Copies every segment that holds events, with the notes beside them.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for (id, _, bytes) in segment_files(from)? {
        if bytes == 0 {
            continue;
        }
        copy_segment(from, to, &id)?;
        let note = format!("{id}.{NOTE}");
        if from.join(&note).try_exists()? {
            private_files::create(&to.join(&note))?.sync_all()?;
        }
    }
    File::open(to)?.sync_all()
}

/// Copies the segments that are stored and held for subscriptions. One that is deleted meanwhile has been read by all.
pub(super) fn copy_held(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (from.join(HELD_DIR), to.join(HELD_DIR));
    let entries = match std::fs::read_dir(&from) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    private_files::create_dir(&to)?;
    for entry in entries {
        let path = entry?.path();
        let Some(name) = path.file_name().filter(|_| path.extension().is_some_and(|extension| extension == HELD))
        else {
            continue;
        };
        match copy_file(&path, &to.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    File::open(&to)?.sync_all()
}

/// Whether segments are held for subscriptions that have not read them.
///
/// # Errors
/// The disk's.
pub fn has_held_segments(data_dir: &Path) -> io::Result<bool> {
    match std::fs::read_dir(data_dir.join("log").join(HELD_DIR)) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn copy_segment(from: &Path, to: &Path, id: &str) -> io::Result<()> {
    for extension in EXTENSIONS.iter().chain(&EXTENSIONS) {
        let name = format!("{id}.{extension}");
        match copy_file(&from.join(&name), &to.join(&name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
    }
    Ok(()) // It has been stored.
}

/// Copies a file, for the service's user only, and syncs the copy.
pub(super) fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    let mut copy = private_files::create(to)?;
    io::copy(&mut source, &mut copy)?;
    copy.sync_all()
}

/// Id, extension and size of each file of a log's segments.
fn segment_files(dir: &Path) -> io::Result<Vec<(String, String, u64)>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let (Some(id), Some(extension)) = (path.file_stem(), path.extension()) else { continue };
        let (id, extension) = (id.to_string_lossy().into_owned(), extension.to_string_lossy().into_owned());
        if !EXTENSIONS.contains(&extension.as_str()) || uuid::Uuid::parse_str(&id).is_err() {
            continue;
        }
        match path.metadata() {
            Ok(metadata) => files.push((id, extension, metadata.len())),
            // Renamed or stored since it was listed: it is looked for when it is copied.
            Err(error) if error.kind() == io::ErrorKind::NotFound => files.push((id, extension, 1)),
            Err(error) => return Err(error),
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: [&str; 3] = [
        "019a0000-0000-7000-8000-000000000001",
        "019a0000-0000-7000-8000-000000000002",
        "019a0000-0000-7000-8000-000000000003",
    ];

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn segments_and_their_notes_are_copied_and_nothing_else() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let files = [
            format!("{}.open", IDS[0]),
            format!("{}.sealed", IDS[1]),
            format!("{}.tokenless", IDS[1]),
            format!("{}.damaged", IDS[2]),
            "lock".to_owned(),
        ];
        for name in &files {
            std::fs::write(from.path().join(name), name).unwrap();
        }
        std::fs::write(from.path().join(format!("{}.open", IDS[2])), "").unwrap();
        copy(from.path(), to.path()).unwrap();
        assert_eq!(names(to.path()), files[..3]);
        copy_held(from.path(), to.path()).unwrap();
        assert_eq!(names(to.path()), files[..3], "nothing is held");
        std::fs::create_dir(from.path().join("held")).unwrap();
        for name in [format!("{}.held", IDS[2]), "other".to_owned()] {
            std::fs::write(from.path().join("held").join(name), "rows").unwrap();
        }
        copy_held(from.path(), to.path()).unwrap();
        assert_eq!(names(&to.path().join("held")), [format!("{}.held", IDS[2])]);
        assert_eq!(std::fs::read_to_string(to.path().join(&files[0])).unwrap(), files[0]);
    }

    #[test]
    fn a_segment_that_was_renamed_meanwhile_is_found() {
        for extension in ["open", "sealed", "parked"] {
            let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let name = format!("{}.{extension}", IDS[0]);
            std::fs::write(from.path().join(&name), "rows").unwrap();
            copy_segment(from.path(), to.path(), IDS[0]).unwrap();
            assert_eq!(names(to.path()), [name]);
        }
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        copy_segment(from.path(), to.path(), IDS[0]).unwrap();
        assert!(names(to.path()).is_empty(), "it is stored");
    }

    #[test]
    fn what_waits_and_what_is_parked_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(unstored_segments(dir.path()).unwrap(), UnstoredSegments::default());
        let log = dir.path().join("log");
        std::fs::create_dir(&log).unwrap();
        std::fs::write(log.join(format!("{}.open", IDS[0])), "").unwrap();
        std::fs::write(log.join(format!("{}.sealed", IDS[1])), "rows").unwrap();
        std::fs::write(log.join(format!("{}.parked", IDS[2])), "rows").unwrap();
        let found = unstored_segments(dir.path()).unwrap();
        assert_eq!(found.waiting, BTreeSet::from([IDS[1].to_owned()]));
        assert_eq!(found.parked, BTreeSet::from([IDS[2].to_owned()]));
    }
}
