//! Files that are kept beside the log for a person to look at: what was cut off behind the last good frame
//! (`.cut`), and segments that were damaged, once their good frames are stored (`.damaged`).
//!
//! They are evidence, not part of the log: they are bounded in number and bytes, the oldest go first, and no
//! start fails because one cannot be written.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tallyhouse_disk::{Disk, DiskFile, create_anew, exists};
use uuid::Uuid;

/// Most files that are kept.
const KEPT_FILES_MAX: usize = 64;
/// Bytes that are copied at a time.
const COPIED_BYTES: usize = 256 << 10;
const CUT: &str = "cut";
const DAMAGED: &str = "damaged";

/// The files beside the log that are kept for inspection, within `log_kept_bytes_max` and 64 files.
#[derive(Clone, Debug)]
pub(super) struct KeptFiles {
    disk: Arc<dyn Disk>,
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
}

impl KeptFiles {
    /// At most so many bytes of files in this directory.
    pub(super) const fn new(disk: Arc<dyn Disk>, dir: PathBuf, bytes_max: u64) -> Self {
        Self { disk, dir, bytes_max }
    }

    fn path(&self, id: Uuid, extension: &str) -> PathBuf {
        self.dir.join(format!("{id}.{extension}"))
    }

    /// Keeps a copy of what is cut off a segment's file, so many bytes from an offset, unless they are more than the
    /// bound or cannot be written.
    pub(super) fn keep_cut(&self, id: Uuid, file: &dyn DiskFile, offset: u64, bytes: u64) {
        let path = self.path(id, CUT);
        if bytes > self.bytes_max {
            tracing::warn!(segment = %id, bytes, "what is cut off is larger than log_kept_bytes_max and is not kept");
            return;
        }
        self.make_room(bytes);
        match self.copy(&path, file, offset) {
            Ok(()) => tracing::warn!(segment = %id, bytes, kept = %path.display(), "what is cut off is kept"),
            Err(error) => {
                tracing::warn!(%error, segment = %id, bytes, "what is cut off cannot be kept");
                let _ = self.disk.remove(&path); // An empty rest of it says nothing.
            }
        }
    }

    /// Copies the rest of a file, from an offset on.
    fn copy(&self, path: &Path, from: &dyn DiskFile, mut offset: u64) -> io::Result<()> {
        let (copy, mut copied, mut buffer) = (create_anew(&*self.disk, path)?, 0, vec![0; COPIED_BYTES]);
        loop {
            let read = from.read_at(&mut buffer, offset)?;
            if read == 0 {
                return copy.sync_all();
            }
            copy.write_all_at(&buffer[..read], copied)?;
            (offset, copied) = (offset + read as u64, copied + read as u64);
        }
    }

    /// Keeps a damaged segment's file, whose good frames are stored.
    pub(super) fn keep_damaged(&self, id: Uuid, file: &Path) -> io::Result<()> {
        let path = self.path(id, DAMAGED);
        self.disk.rename(file, &path)?;
        tracing::warn!(segment = %id, kept = %path.display(), "the file of a damaged segment is kept");
        self.make_room(0);
        Ok(())
    }

    /// Whether this segment's file was found damaged before. One that is there now was put back from a copy.
    pub(super) fn has_damaged(&self, id: Uuid) -> bool {
        exists(&*self.disk, &self.path(id, DAMAGED)).unwrap_or_default()
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
        // They are named after segments, whose ids tell in which order they were opened.
        files.sort_by(|one, other| other.path.cmp(&one.path));
        let more = usize::from(bytes > 0);
        while let Some(oldest) = files.last() {
            let held: u64 = files.iter().map(|file| file.bytes).sum();
            if files.len() + more <= KEPT_FILES_MAX && held.saturating_add(bytes) <= self.bytes_max {
                return;
            }
            let path = oldest.path.display();
            match self.disk.remove(&oldest.path) {
                Ok(()) => tracing::warn!(%path, "a kept file goes: log_kept_bytes_max, or 64 files, are reached"),
                Err(error) => tracing::warn!(%error, %path, "a kept file cannot be removed"),
            }
            files.pop();
        }
    }

    fn files(&self) -> Vec<KeptFile> {
        let files = self.disk.list(&self.dir).unwrap_or_default();
        let is_kept = |name: &str| [CUT, DAMAGED].iter().any(|extension| name.ends_with(&format!(".{extension}")));
        let kept = files.into_iter().filter(|file| is_kept(&file.name));
        kept.map(|file| KeptFile { path: self.dir.join(file.name), bytes: file.bytes }).collect()
    }
}

#[cfg(test)]
mod tests {
    use tallyhouse_disk::SimulatedDisk;

    use super::*;

    #[test]
    fn copies_are_bounded_in_number_and_bytes_and_the_oldest_go() {
        let (disk, dir) = (SimulatedDisk::new(), Path::new("/log"));
        disk.create_dir(dir).unwrap();
        disk.create_dir(Path::new("/other")).unwrap();
        let file = |bytes: usize| {
            let file = create_anew(&disk, Path::new("/other/file")).unwrap();
            file.write_all_at(&vec![7; 10 + bytes], 0).unwrap();
            file
        };
        let kept = KeptFiles::new(Arc::new(disk.clone()), dir.to_owned(), 100);
        let id = |n: u128| Uuid::from_u128(n);
        kept.keep_cut(id(1), &*file(101), 10, 101);
        assert_eq!(kept.kept(), Kept::default(), "too large");
        for n in 2..6 {
            kept.keep_cut(id(n), &*file(40), 10, 40);
        }
        assert_eq!(kept.kept().bytes, 80);
        let is_there = |n| exists(&disk, &kept.path(id(n), CUT)).unwrap();
        assert!(is_there(4) && is_there(5));
        for n in 0..2 * KEPT_FILES_MAX as u128 {
            kept.keep_cut(id(100 + n), &*file(1), 10, 1);
        }
        assert!(disk.list(dir).unwrap().len() <= KEPT_FILES_MAX);
    }
}
