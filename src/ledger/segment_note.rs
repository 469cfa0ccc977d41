//! The ids of a segment of the log whose events are not known to be stored.
//!
//! If the segment's file is damaged, the damaged part does not tell which ids it had. Without the note, ids that are in the
//! ledger would stay duplicates although nothing has their events, and ids that an insert has stored would be taken for
//! new after a restart. So the ids are noted beside the runs, before either happens, until the segment is stored.

use std::io;
use std::path::{Path, PathBuf};

use tallyhouse_disk::{DirEntry, Disk, replace_file};
use uuid::Uuid;

use super::codec::{Reader, Writer};
use super::entry::Fingerprint;
use super::error::LedgerError;
use super::run::KeyCheck;

const MAGIC: u64 = u64::from_le_bytes(*b"tallynot");
const SUFFIX: &str = ".ids";
/// Bytes of a note without ids, and of each id in it.
const EMPTY_BYTES: u64 = 44;
const ID_BYTES: usize = Fingerprint::BYTES + 4;

/// The recorded ids of one segment, until its events are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentNote {
    /// The segment.
    pub segment: Uuid,
    /// Its ids, each with the minute of its event since 1970.
    pub ids: Vec<(Fingerprint, u32)>,
}

fn path(dir: &Path, segment: Uuid) -> PathBuf {
    dir.join(format!("{segment}{SUFFIX}"))
}

impl SegmentNote {
    pub(crate) fn write(&self, disk: &dyn Disk, dir: &Path, key_check: KeyCheck) -> Result<(), LedgerError> {
        let path = path(dir, self.segment);
        let written = replace_file(disk, &path, &self.encode(key_check));
        if written.is_err() {
            // On a full disk, what was begun takes room that the log needs.
            let _ = disk.remove(&path.with_extension("new"));
        }
        written.map_err(LedgerError::io(&path))
    }

    pub(crate) fn read(
        disk: &dyn Disk,
        dir: &Path,
        segment: Uuid,
        key_check: KeyCheck,
    ) -> Result<Option<Self>, LedgerError> {
        let path = path(dir, segment);
        let file = match disk.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(LedgerError::read(&path))?,
        };
        let damaged = || LedgerError::damaged(&path, "it is not what was written");
        let bytes = file.bytes().map_err(LedgerError::read(&path))?;
        let mut content = vec![0; usize::try_from(bytes).map_err(|_| damaged())?];
        file.read_exact_at(&mut content, 0).map_err(LedgerError::read(&path))?;
        Self::decode(&content, segment, key_check).map(Some).ok_or_else(damaged)
    }

    pub(crate) fn remove(disk: &dyn Disk, dir: &Path, segment: Uuid) -> Result<(), LedgerError> {
        let path = path(dir, segment);
        match disk.remove(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(LedgerError::io(&path)),
        }
    }

    /// The segments that have notes, and how many ids these have, by their lengths.
    pub(crate) fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<(Uuid, u64)>, LedgerError> {
        let files = disk.list(dir).map_err(LedgerError::io(dir))?;
        let note = |file: &DirEntry| {
            let segment = Uuid::parse_str(file.name.strip_suffix(SUFFIX)?).ok()?;
            Some((segment, file.bytes.saturating_sub(EMPTY_BYTES) / ID_BYTES as u64))
        };
        Ok(files.iter().filter_map(note).collect())
    }

    fn encode(&self, key_check: KeyCheck) -> Vec<u8> {
        let mut to = Writer::default();
        to.u64(MAGIC);
        to.u64(key_check);
        to.bytes(self.segment.as_bytes());
        to.u64(self.ids.len() as u64);
        for (id, minute) in &self.ids {
            to.bytes(&id.encode());
            to.u32(*minute);
        }
        to.into_checked()
    }

    fn decode(bytes: &[u8], segment: Uuid, key_check: KeyCheck) -> Option<Self> {
        let mut from = Reader::checked(bytes)?;
        let is_ours = from.u64()? == MAGIC && from.u64()? == key_check && from.chunk()? == segment.as_bytes();
        let count = from.count(ID_BYTES)?;
        let ids =
            (0..count).map(|_| Some((Fingerprint::decode(*from.chunk()?), from.u32()?))).collect::<Option<_>>()?;
        (is_ours && from.is_empty()).then_some(Self { segment, ids })
    }
}

#[cfg(test)]
mod tests {
    use tallyhouse_disk::SimulatedDisk;

    use super::*;

    #[test]
    fn a_note_is_found_until_it_is_removed_and_no_changed_one_is_accepted() {
        let (disk, dir) = (SimulatedDisk::new(), Path::new("/ledger"));
        disk.create_dir(dir).unwrap();
        let ids = (1..100).map(|n| (Fingerprint::of_hash(u128::from(n) << 77), n)).collect();
        let note = SegmentNote { segment: Uuid::now_v7(), ids };
        let read = |key_check| SegmentNote::read(&disk, dir, note.segment, key_check);
        assert_eq!(read(1).unwrap(), None);
        note.write(&disk, dir, 1).unwrap();
        assert_eq!(read(1).unwrap().as_ref(), Some(&note));
        assert_eq!(SegmentNote::list(&disk, dir).unwrap(), [(note.segment, 99)]);
        assert!(read(2).unwrap_err().is_damage(), "of another key");
        disk.corrupt(&path(dir, note.segment), |bytes| bytes[40] ^= 4).unwrap();
        assert!(read(1).unwrap_err().is_damage());
        SegmentNote::remove(&disk, dir, note.segment).unwrap();
        assert_eq!(read(1).unwrap(), None);
    }
}
