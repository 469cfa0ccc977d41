//! Files that are kept beside the log for a person to look at: what was cut off behind the last good frame
//! (`.cut`), and segments that were damaged, once their good frames are stored (`.damaged`).
//!
//! They are evidence, not part of the log: they are bounded in number and bytes, the oldest go first, and no
//! start fails because one cannot be written.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use uuid::Uuid;

use crate::private_files;

/// Most files that are kept.
const KEPT_FILES_MAX: usize = 64;
const CUT: &str = "cut";
const DAMAGED: &str = "damaged";

/// The files beside the log that are kept for inspection, within `log_kept_bytes_max` and 64 files.
#[derive(Clone, Debug)]
pub(super) struct KeptFiles {
    dir: PathBuf,
    bytes_max: u64,
}

/// What is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Bytes of all files.
    pub bytes: u64,
    /// Damaged segments.
    pub damaged: usize,
}

struct KeptFile {
    path: PathBuf,
    bytes: u64,
    changed_at: SystemTime,
}

impl KeptFiles {
    /// At most so many bytes of files in this directory.
    pub(super) const fn new(dir: PathBuf, bytes_max: u64) -> Self {
        Self { dir, bytes_max }
    }

    fn path(&self, id: Uuid, extension: &str) -> PathBuf {
        self.dir.join(format!("{id}.{extension}"))
    }

    /// Keeps a copy of what is cut off a segment, unless it is larger than the bound or cannot be written.
    pub(super) fn keep_cut(&self, id: Uuid, bytes: u64, cut: &mut impl Read) {
        let path = self.path(id, CUT);
        if bytes > self.bytes_max {
            tracing::warn!(segment = %id, bytes, "what is cut off is larger than log_kept_bytes_max and is not kept");
            return;
        }
        self.make_room(bytes);
        let copied = private_files::create(&path).and_then(|mut file| {
            io::copy(cut, &mut file)?;
            file.sync_all()
        });
        match copied {
            Ok(()) => tracing::warn!(segment = %id, bytes, kept = %path.display(), "what is cut off is kept"),
            Err(error) => {
                tracing::warn!(%error, segment = %id, bytes, "what is cut off cannot be kept");
                let _ = std::fs::remove_file(&path); // An empty rest of it says nothing.
            }
        }
    }

    /// Keeps a damaged segment's file, whose good frames are stored.
    pub(super) fn keep_damaged(&self, id: Uuid, file: &Path) -> io::Result<()> {
        let path = self.path(id, DAMAGED);
        std::fs::rename(file, &path)?;
        tracing::warn!(segment = %id, kept = %path.display(), "the file of a damaged segment is kept");
        self.make_room(0);
        Ok(())
    }

    /// Whether this segment's file was found damaged before. One that is there now was put back from a copy.
    pub(super) fn has_damaged(&self, id: Uuid) -> bool {
        self.path(id, DAMAGED).exists()
    }

    /// What is kept now.
    pub(super) fn kept(&self) -> Kept {
        let is_damaged = |file: &&KeptFile| file.path.extension().is_some_and(|extension| extension == DAMAGED);
        let files = self.files();
        Kept { bytes: files.iter().map(|file| file.bytes).sum(), damaged: files.iter().filter(is_damaged).count() }
    }

    /// Takes the oldest files away until there is room for one more of so many bytes.
    pub(super) fn make_room(&self, bytes: u64) {
        let mut files = self.files();
        files.sort_by_key(|file| std::cmp::Reverse(file.changed_at));
        let more = usize::from(bytes > 0);
        while let Some(oldest) = files.last() {
            let held: u64 = files.iter().map(|file| file.bytes).sum();
            if files.len() + more <= KEPT_FILES_MAX && held.saturating_add(bytes) <= self.bytes_max {
                return;
            }
            let path = oldest.path.display();
            match std::fs::remove_file(&oldest.path) {
                Ok(()) => tracing::warn!(%path, "a kept file goes: log_kept_bytes_max, or 64 files, are reached"),
                Err(error) => tracing::warn!(%error, %path, "a kept file cannot be removed"),
            }
            files.pop();
        }
    }

    fn files(&self) -> Vec<KeptFile> {
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return Vec::new() };
        let kept = |entry: io::Result<std::fs::DirEntry>| {
            let path = entry.ok()?.path();
            path.extension().filter(|extension| *extension == CUT || *extension == DAMAGED)?;
            let metadata = path.metadata().ok()?;
            let changed_at = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            Some(KeptFile { path, bytes: metadata.len(), changed_at })
        };
        entries.filter_map(kept).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_bounded_in_number_and_bytes_and_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let kept = KeptFiles::new(dir.path().to_owned(), 100);
        let id = |n: u128| Uuid::from_u128(n);
        kept.keep_cut(id(1), 101, &mut &[0; 101][..]);
        assert_eq!(kept.kept(), Kept::default(), "too large");
        for n in 2..6 {
            kept.keep_cut(id(n), 40, &mut &[0; 40][..]);
            let age = std::time::Duration::from_secs(1_000 - u64::try_from(n).unwrap());
            let file = std::fs::File::options().append(true).open(kept.path(id(n), CUT)).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
        }
        assert_eq!(kept.kept().bytes, 80);
        assert!(kept.path(id(4), CUT).exists() && kept.path(id(5), CUT).exists());
        for n in 0..2 * KEPT_FILES_MAX as u128 {
            kept.keep_cut(id(100 + n), 1, &mut &[0][..]);
        }
        assert!(std::fs::read_dir(dir.path()).unwrap().count() <= KEPT_FILES_MAX);
    }
}
