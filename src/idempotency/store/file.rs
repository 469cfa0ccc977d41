//! The file of the store, behind the interface through which everything that must survive a power failure is written.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use redb::{Builder, Database, StorageBackend};
use tallyhouse_disk::{Disk, DiskFile, create_anew, create_in_one_step};

use super::KeyStoreError;

/// Opens the file, or creates it in one durable step: redb cannot open a file that it has not finished making. An empty
/// file is one that was created by an earlier release and not written to any more. (The file is synced by the transaction
/// that makes its tables at every start.)
///
/// The file is not locked: the data directory is, and has one owner.
pub(super) fn open(disk: &dyn Disk, path: &Path, cache_bytes: usize) -> Result<Database, KeyStoreError> {
    create_in_one_step(disk, path, |beside| {
        open_file(create_anew(disk, beside)?, cache_bytes)?; // Dropped, and so closed, before it gets its name.
        Ok::<_, KeyStoreError>(())
    })?;
    open_file(disk.open(path)?, cache_bytes)
}

fn open_file(file: Arc<dyn DiskFile>, cache_bytes: usize) -> Result<Database, KeyStoreError> {
    Ok(Builder::new().set_cache_size(cache_bytes).create_with_backend(RedbFile(file))?)
}

/// A file as redb wants it.
struct RedbFile(Arc<dyn DiskFile>);

impl fmt::Debug for RedbFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("RedbFile").finish_non_exhaustive()
    }
}

impl StorageBackend for RedbFile {
    fn len(&self) -> io::Result<u64> {
        self.0.bytes()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}
