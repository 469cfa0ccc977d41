//! What a backup holds: written last, so that a backup without it is known to be
//! incomplete; checked before anything is restored.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::private_files;
use crate::secret::hex;

/// Its file in a backup's directory.
const FILE: &str = "backup.json";
/// The form that this version writes and reads.
const FORMAT: u32 = 1;
/// Bytes that are read at a time.
const CHUNK_BYTES: usize = 1 << 16;

/// Why a backup cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// There is none.
    #[error("{0} is no backup, or one that was not completed: it has no {FILE}")]
    Missing(PathBuf),
    /// It was written by a newer version.
    #[error("the backup has form {found}, and this version reads up to {FORMAT}: use the version that made it")]
    Newer {
        /// Its form.
        found: u32,
    },
    /// A file is not what it was.
    #[error("{0} of the backup is missing or has changed")]
    Changed(String),
    /// It cannot be read as JSON.
    #[error("{FILE} cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// The disk failed.
    #[error("the backup cannot be read or written: {0}")]
    Io(#[from] io::Error),
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    format: u32,
    /// Version of the service that made it.
    pub version: String,
    /// When it was begun, in microseconds since 1970.
    pub began_at_micros: u64,
    /// The database in ClickHouse.
    pub database: String,
    /// Where ClickHouse has written its part; none when it is among the files.
    pub clickhouse: Option<String>,
    /// Events in ClickHouse when it was complete.
    pub events: u64,
    files: Vec<FileEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FileEntry {
    /// Below the backup's directory.
    path: String,
    bytes: u64,
    sha256: String,
}

impl Manifest {
    /// Of a backup whose files are all there.
    ///
    /// # Errors
    /// The disk's.
    pub fn of(
        backup: &Path,
        began_at_micros: u64,
        database: &str,
        clickhouse: Option<String>,
        events: u64,
    ) -> io::Result<Self> {
        let mut files = Vec::new();
        list(backup, backup, &mut files)?;
        files.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(Self {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            began_at_micros,
            database: database.to_owned(),
            clickhouse,
            events,
            files,
        })
    }

    /// Writes it, durably.
    ///
    /// # Errors
    /// The disk's.
    pub fn write(&self, backup: &Path) -> Result<(), ManifestError> {
        let partial = backup.join(format!("{FILE}.partial"));
        let mut file = private_files::create(&partial)?;
        file.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(partial, backup.join(FILE))?;
        Ok(File::open(backup)?.sync_all()?)
    }

    /// Reads it, and checks every file.
    ///
    /// # Errors
    /// When the backup is not complete, or is not what it was.
    pub fn read_checked(backup: &Path) -> Result<Self, ManifestError> {
        let text = match std::fs::read_to_string(backup.join(FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ManifestError::Missing(backup.to_owned()));
            }
            Err(error) => return Err(error.into()),
        };
        let manifest: Self = serde_json::from_str(&text)?;
        if manifest.format > FORMAT {
            return Err(ManifestError::Newer { found: manifest.format });
        }
        for entry in &manifest.files {
            let found = FileEntry::of(backup, &backup.join(&entry.path));
            if !found.is_ok_and(|found| found == *entry) {
                return Err(ManifestError::Changed(entry.path.clone()));
            }
        }
        Ok(manifest)
    }

    /// Bytes of the files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

impl FileEntry {
    fn of(backup: &Path, path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let (mut hash, mut bytes) = (Sha256::new(), 0);
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let read = file.read(&mut chunk)?;
            if read == 0 {
                break;
            }
            hash.update(&chunk[..read]);
            bytes += read as u64;
        }
        let below = path.strip_prefix(backup).unwrap_or(path);
        Ok(Self { path: below.to_string_lossy().into_owned(), bytes, sha256: hex(&hash.finalize()) })
    }
}

fn list(backup: &Path, dir: &Path, files: &mut Vec<FileEntry>) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            list(backup, &path, files)?;
        } else {
            files.push(FileEntry::of(backup, &path)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_that_has_changed_is_refused_with_the_file() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("log")).unwrap();
        std::fs::write(dir.path().join("log/a"), "rows").unwrap();
        assert!(matches!(Manifest::read_checked(dir.path()), Err(ManifestError::Missing(_))));
        let manifest = Manifest::of(dir.path(), 7, "tallyhouse", None, 3).unwrap();
        manifest.write(dir.path()).unwrap();
        assert_eq!(Manifest::read_checked(dir.path()).unwrap(), manifest);
        assert_eq!(manifest.bytes(), 4);
        for change in ["rowz", "rows and more"] {
            std::fs::write(dir.path().join("log/a"), change).unwrap();
            let error = Manifest::read_checked(dir.path()).unwrap_err().to_string();
            assert!(error.contains("log/a"), "{error}");
        }
        std::fs::remove_file(dir.path().join("log/a")).unwrap();
        assert!(matches!(Manifest::read_checked(dir.path()), Err(ManifestError::Changed(_))));
    }

    #[test]
    fn a_backup_of_a_newer_form_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let newer = Manifest { format: 2, ..Manifest::of(dir.path(), 0, "tallyhouse", None, 0).unwrap() };
        newer.write(dir.path()).unwrap();
        assert!(matches!(Manifest::read_checked(dir.path()), Err(ManifestError::Newer { found: 2 })));
    }
}
