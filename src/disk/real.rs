//! The operating system's file operations.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{DirEntry, Disk, DiskFile};

/// Files are for the service's own user.
const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;

/// The operating system's file systems.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(FILE_MODE).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        match OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(Arc::new(RealFile(File::open(path)?))),
            opened => Ok(Arc::new(RealFile(opened?))),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                // Removed since the directory was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            // A name that is not UTF-8 is none of ours.
            if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
                entries.push(DirEntry { name, bytes: metadata.len() });
            }
        }
        entries.sort();
        Ok(entries)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        create_dir_durably(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.0.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}

/// Creates a directory and its parents, for their owner alone (mode 0700), so that they survive a power failure: the
/// entry of a directory is durable when its parent has been synced.
///
/// # Errors
/// If one cannot be created or synced.
pub fn create_dir_durably(dir: &Path) -> io::Result<()> {
    let holders = holders(dir);
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir)?;
    holders.iter().try_for_each(|holder| File::open(holder)?.sync_all())
}

/// The directories that hold this one and those above it that are missing; the
/// lowest first. That of `dir` itself is among them though it is there: who made
/// it may not have synced it.
fn holders(dir: &Path) -> Vec<PathBuf> {
    let mut holders = Vec::new();
    let mut below = dir.to_owned();
    loop {
        let holder = match below.parent() {
            Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
            Some(parent) => parent.to_owned(),
            None => break, // The root.
        };
        let is_there = holder.is_dir();
        holders.push(holder.clone());
        if is_there {
            break;
        }
        below = holder;
    }
    holders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_directory_that_gets_an_entry_is_synced() {
        let there = tempfile::tempdir().unwrap();
        let base = there.path();
        let paths = |names: &[&str]| names.iter().map(|name| base.join(name)).collect::<Vec<_>>();
        assert_eq!(holders(&base.join("a/b/c")), paths(&["a/b", "a", ""]));
        assert_eq!(holders(&base.join("a")), paths(&[""]));
        create_dir_durably(&base.join("a/b/c")).unwrap();
        assert_eq!(holders(&base.join("a/b/c")), paths(&["a/b"]));
        assert_eq!(holders(Path::new("data")), [PathBuf::from(".")]);
        assert_eq!(holders(Path::new("/")), Vec::<PathBuf>::new());
    }
}
