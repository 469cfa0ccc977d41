//! The manifest: the runs of the ledger, and the segments that they cover.
//!
//! It is replaced in one durable step. A run that it does not name was never finished, or has been merged
//! into another, and is removed at the next start.

use std::io;
use std::path::{Path, PathBuf};

use tallyhouse_disk::{Disk, replace_file};
use uuid::Uuid;

use super::codec::{Reader, Writer};
use super::entry::Day;
use super::error::LedgerError;
use super::run::KeyCheck;

const MAGIC: u64 = u64::from_le_bytes(*b"tallyman");
const FORMAT: u32 = 1;

/// The runs and the covered segments of a ledger. It is written as a whole and replaced in one
/// durable step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// Newest first.
    pub(crate) runs: Vec<Uuid>,
    /// Segments of the log of which every id is in a run.
    pub(crate) covered: Vec<Uuid>,
    /// All ids that were taken are there, as far as their events are of the floor's day or later.
    pub(crate) is_complete: bool,
    /// Ids of events before this day may have been let go.
    pub(crate) floor: Day,
}

fn path(dir: &Path) -> PathBuf {
    dir.join("manifest")
}

impl Manifest {
    /// The manifest of a directory; none where there is none.
    ///
    /// # Errors
    /// `Io`; `Damaged` when the file is not what was written, or of another key.
    pub(crate) fn read(disk: &dyn Disk, dir: &Path, key_check: KeyCheck) -> Result<Option<Self>, LedgerError> {
        let path = path(dir);
        let file = match disk.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LedgerError::read(&path)(error)),
        };
        let bytes = file.bytes().map_err(LedgerError::read(&path))?;
        let damaged = || LedgerError::damaged(&path, "it is not what was written");
        let mut content = vec![0; usize::try_from(bytes).map_err(|_| damaged())?];
        file.read_exact_at(&mut content, 0).map_err(LedgerError::read(&path))?;
        Self::decode(&content, key_check).ok_or_else(damaged).map(Some)
    }

    /// Replaces the manifest of a directory, and makes all names in it durable.
    ///
    /// # Errors
    /// `Io`: the old one or this one is there.
    pub(crate) fn write(&self, disk: &dyn Disk, dir: &Path, key_check: KeyCheck) -> Result<(), LedgerError> {
        let path = path(dir);
        replace_file(disk, &path, &self.encode(key_check)).map_err(|source| LedgerError::Io { path, source })
    }

    fn encode(&self, key_check: KeyCheck) -> Vec<u8> {
        let mut to = Writer::default();
        to.u64(MAGIC);
        to.u32(FORMAT);
        to.u64(key_check);
        to.u32(self.is_complete.into());
        to.u32(self.floor.0.into());
        for ids in [&self.runs, &self.covered] {
            to.u64(ids.len() as u64);
            ids.iter().for_each(|id| to.bytes(id.as_bytes()));
        }
        to.into_checked()
    }

    fn decode(bytes: &[u8], key_check: KeyCheck) -> Option<Self> {
        let mut from = Reader::checked(bytes)?;
        let is_ours = from.u64()? == MAGIC && from.u32()? == FORMAT && from.u64()? == key_check;
        let (is_complete, floor) = (from.u32()? != 0, Day(u16::try_from(from.u32()?).ok()?));
        let mut ids = || (0..from.count(16)?).map(|_| from.chunk().map(|bytes| Uuid::from_bytes(*bytes))).collect();
        let (runs, covered): (Option<Vec<Uuid>>, Option<Vec<Uuid>>) = (ids(), ids());
        let manifest = Self { runs: runs?, covered: covered?, is_complete, floor };
        (is_ours && from.is_empty()).then_some(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_survives_its_encoding_and_no_changed_one_is_accepted() {
        let ids = |count| (0..count).map(|_| Uuid::now_v7()).collect();
        let manifest = Manifest { runs: ids(3), covered: ids(2), is_complete: true, floor: Day(9) };
        let mut bytes = manifest.encode(5);
        assert_eq!(Manifest::decode(&bytes, 5).as_ref(), Some(&manifest));
        assert_eq!(Manifest::decode(&bytes, 6), None, "of another key");
        for end in 0..bytes.len() {
            assert_eq!(Manifest::decode(&bytes[..end], 5), None);
        }
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Manifest::decode(&bytes, 5), None);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
