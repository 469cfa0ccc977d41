//! Creates, checks and locks the data directory before anything else starts.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// Why a directory cannot be used. Errors name the path and the setting.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process uses it.
    #[error("the data directory {0} is in use by another tallyhouse: stop that one, or name another with data_dir")]
    InUse(PathBuf),
    /// It is a file.
    #[error("the data directory {0} (data_dir) is not a directory")]
    NotADirectory(PathBuf),
    /// It cannot be made.
    #[error("the data directory {dir} (data_dir) cannot be made: {source}")]
    NotMade {
        /// The directory.
        dir: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It cannot be written.
    #[error("the data directory {dir} (data_dir) cannot be written: {source}")]
    NotWritable {
        /// The directory.
        dir: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A locked directory. It is released when this is dropped or the process ends.
#[derive(Debug)]
pub struct DataDir {
    _lock: File,
}

impl DataDir {
    /// Creates the directory if it is missing, and locks it for this process.
    ///
    /// # Errors
    /// If another process has locked it, or it cannot be created or written.
    pub fn claim(dir: &Path) -> Result<Self, DataDirError> {
        if dir.exists() && !dir.is_dir() {
            return Err(DataDirError::NotADirectory(dir.to_owned()));
        }
        make_durably(dir).map_err(|source| DataDirError::NotMade { dir: dir.to_owned(), source })?;
        let failed = |source| DataDirError::NotWritable { dir: dir.to_owned(), source };
        let lock = File::create(dir.join("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(DataDirError::InUse(dir.to_owned())),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}

/// Creates a directory and its parents so that they survive a power failure: the entry of a
/// directory is durable when its parent has been synced.
///
/// # Errors
/// If one cannot be created or synced.
pub fn make_durably(dir: &Path) -> io::Result<()> {
    let holders = holders(dir);
    std::fs::create_dir_all(dir)?;
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
        make_durably(&base.join("a/b/c")).unwrap();
        assert_eq!(holders(&base.join("a/b/c")), paths(&["a/b"]));
        assert_eq!(holders(Path::new("data")), [PathBuf::from(".")]);
        assert_eq!(holders(Path::new("/")), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_directory_has_one_owner_until_it_is_dropped() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("a/b");
        let first = DataDir::claim(&dir).unwrap();
        let error = DataDir::claim(&dir).unwrap_err().to_string();
        assert!(error.contains("in use") && error.contains(&dir.display().to_string()), "{error}");
        drop(first);
        DataDir::claim(&dir).unwrap();
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        std::fs::write(&file, "").unwrap();
        for dir in [file.clone(), file.join("below"), PathBuf::from("/proc/tallyhouse")] {
            let error = DataDir::claim(&dir).unwrap_err().to_string();
            assert!(error.contains(&dir.display().to_string()) && error.contains("data_dir"), "{error}");
        }
    }
}
