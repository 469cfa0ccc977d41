//! Makes the directory of the log ready, and locks it for this process.

use std::fs::File;
use std::path::Path;

use tallyhouse_disk::create_dir_durably;

use super::OpenError;
use super::recovery::segment_files;
use crate::private_files;

/// Creates the directory, closes it and its segments to other users, and locks it.
///
/// # Errors
/// When another process has locked it, or the disk fails.
pub(super) fn claim(dir: &Path) -> Result<File, OpenError> {
    let failed = |source| OpenError::Io { dir: dir.to_owned(), source };
    create_dir_durably(dir).map_err(failed)?;
    private_files::create_dir(dir).map_err(failed)?;
    // In a directory that others cannot enter: whoever can open it could lock it.
    let path = dir.join("lock");
    private_files::close_to_others(&path).map_err(failed)?;
    let lock = private_files::create(&path).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => {
            let holder = private_files::lock_holder(&path);
            let holder = holder.unwrap_or_else(|| "another process, which cannot be seen from here".to_owned());
            return Err(OpenError::InUse { dir: dir.to_owned(), holder });
        }
        Err(std::fs::TryLockError::Error(error)) => return Err(failed(error)),
    }
    // A former release has made files readable for others.
    let files = segment_files(dir).map_err(failed)?;
    files.iter().try_for_each(|file| private_files::close_to_others(file)).map_err(failed)?;
    Ok(lock)
}
