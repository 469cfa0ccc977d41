//! Creates, checks and locks the data directory before anything else starts.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use tallyhouse_disk::create_dir_durably;

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
        create_dir_durably(dir).map_err(|source| DataDirError::NotMade { dir: dir.to_owned(), source })?;
        let failed = |source| DataDirError::NotWritable { dir: dir.to_owned(), source };
        let lock = File::create(dir.join("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(DataDirError::InUse(dir.to_owned())),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
