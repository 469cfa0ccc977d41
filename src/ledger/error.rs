//! Errors of the ledger's files.

use std::io;
use std::path::{Path, PathBuf};

/// How Linux says that a disk or its file system cannot read what it holds: EIO, and EBADMSG and EUCLEAN where a checksum or
/// a structure is wrong.
const UNREADABLE: [i32; 3] = [5, 74, 117];

/// Why the ledger did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The disk failed. What was to be written may have been written.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not hold what was written to it, cannot be read from the disk, or is missing.
    #[error("{path} is damaged: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How that is known.
        what: &'static str,
    },
}

impl LedgerError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::UnexpectedEof => Self::Damaged { path, what: "it ends too early" },
            io::ErrorKind::NotFound => Self::Damaged { path, what: "it is missing" },
            _ => Self::Io { path, source },
        }
    }

    /// Of reading a file: what the disk cannot read is as lost as what it reads wrongly.
    pub(crate) fn read(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.raw_os_error() {
            Some(error) if UNREADABLE.contains(&error) => Self::Damaged { path, what: "the disk cannot read it" },
            _ => Self::io(&path)(source),
        }
    }

    pub(crate) fn damaged(path: &Path, what: &'static str) -> Self {
        Self::Damaged { path: path.to_owned(), what }
    }

    /// The ledger was not read to the end, because the thread that did it has ended.
    pub fn interrupted() -> Self {
        Self::Io { path: PathBuf::new(), source: io::ErrorKind::Interrupted.into() }
    }

    /// Whether a file is damaged, unreadable or missing, so that trying again does not help.
    pub const fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. })
    }
}
