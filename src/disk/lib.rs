//! File operations behind one interface, with two implementations.
//!
//! What must survive a power failure (the log, the id ledger, the idempotency keys) reaches its files through [`Disk`] and
//! [`DiskFile`] alone. [`RealDisk`] passes each call to the operating system. [`SimulatedDisk`] keeps
//! everything in memory, knows what has been synced, and can lose power before any operation: what is
//! left then is a seeded choice of the writes and directory changes that were not synced, torn pages
//! included. A recovery that is right on every such disk is right after a real power failure, as far
//! as the disk keeps what it has confirmed as synced.
//!
//! The interface promises what POSIX promises, and no more:
//!
//! - Bytes are durable once [`DiskFile::sync`] has returned, and not before.
//! - A name in a directory (a file created, renamed or removed) is durable once [`Disk::sync_dir`] of
//!   that directory has returned, and not before. Syncing the file does not sync its name.
//! - A rename replaces an existing file in one step: whoever looks finds the old file or the new one.
//!
//! - A directory that was created is durable when [`Disk::create_dir`] has returned.
//!
//! All calls block. Call them from a thread that may.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed test is the point"))]

mod reader;
mod real;
mod simulated;

use std::io;
use std::path::Path;
use std::sync::Arc;

pub use reader::DiskReader;
pub use real::{RealDisk, create_dir_durably};
pub use simulated::{CrashPoint, Seeds, SimulatedDisk};

/// One file of a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// Its name within the directory.
    pub name: String,
    /// Its length, in bytes.
    pub bytes: u64,
}

/// The operations on names.
///
/// # Errors
/// Every operation returns the operating system's error. After an error the operation may or may not
/// have happened.
pub trait Disk: std::fmt::Debug + Send + Sync + 'static {
    /// Creates a file, for reading and writing. Fails with `AlreadyExists` where there is one.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file for reading and writing, or for reading if the service may not write to it. Fails with `NotFound`
    /// where there is none.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file another name in the same directory, in place of the file that had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file a second name, also in another directory. Fails with `AlreadyExists` where there is a file.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name. Open handles stay good.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Lists the files of a directory by name. Directories in it are left out.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;

    /// Creates a directory for its owner alone (mode 0700), and those above it where they are missing, durably.
    /// Makes one durable that is there.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Bytes that an ordinary user may still write on the file system of this path.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
}

/// The operations on one open file.
///
/// # Errors
/// Every operation returns the operating system's error. After an error the operation may have
/// happened in part.
pub trait DiskFile: Send + Sync {
    /// Reads at most so many bytes from an offset, and returns how many; fewer only at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all bytes at an offset. A gap before it reads as zeros.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Cuts the file, or extends it by zeros.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// The file's length, in bytes.
    fn bytes(&self) -> io::Result<u64>;

    /// Makes the bytes durable, and the length as far as they need it (`fdatasync`).
    fn sync(&self) -> io::Result<()>;

    /// Makes everything about the file durable, also that it was cut (`fsync`).
    fn sync_all(&self) -> io::Result<()>;

    /// Fills the buffer from an offset.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file ends before.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_at(&mut buffer[filled..], offset + filled as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => filled += read,
            }
        }
        Ok(())
    }
}

/// Whether there is a file of this name.
///
/// # Errors
/// The operating system's.
pub fn exists(disk: &dyn Disk, path: &Path) -> io::Result<bool> {
    match disk.open(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reads a whole file into memory.
///
/// # Errors
/// The operating system's.
pub fn read_file(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path)?;
    let bytes = usize::try_from(file.bytes()?).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    let mut content = vec![0; bytes];
    file.read_exact_at(&mut content, 0)?;
    Ok(content)
}

/// Creates a file that must be whole when it is opened, unless there is one with content: `make` makes it under another
/// name beside it. After a power failure there is a whole file or none. `make` must leave the file synced and closed.
///
/// # Errors
/// The operating system's, and those of `make`.
pub fn create_in_one_step<E: From<io::Error>>(
    disk: &dyn Disk,
    path: &Path,
    make: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let has_content = match disk.open(path) {
        Ok(file) => file.bytes()? > 0,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error.into()),
    };
    if !has_content {
        let beside = path.with_extension("new");
        make(&beside)?;
        disk.rename(&beside, path)?;
    }
    // A process that was killed may have left a name that is not synced.
    Ok(disk.sync_dir(path.parent().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?)?)
}

/// Creates a file, in place of one of the same name.
///
/// # Errors
/// The operating system's.
pub fn create_anew(disk: &dyn Disk, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => disk.create(path),
    }
}

/// Creates or replaces a whole file in one durable step: after a power failure it is the old one or
/// the new one, whole.
///
/// The new content is written to a file beside it, synced, renamed, and the directory synced.
///
/// # Errors
/// The operating system's. The old file may have been replaced or not.
pub fn replace_file(disk: &dyn Disk, path: &Path, content: &[u8]) -> io::Result<()> {
    let dir = path.parent().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let beside = path.with_extension("new");
    let file = create_anew(disk, &beside)?;
    file.write_all_at(content, 0)?;
    file.sync()?;
    disk.rename(&beside, path)?;
    disk.sync_dir(dir)
}
