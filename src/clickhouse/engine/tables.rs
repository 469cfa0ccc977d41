//! The directories of ClickHouse's tables: `store/PREFIX/UUID` below its data directory, with a directory
//! for each part.

use std::io;
use std::path::{Path, PathBuf};

/// The directory of every table below ClickHouse's data directory.
pub(super) fn table_dirs(data_dir: &Path) -> io::Result<Vec<PathBuf>> {
    let prefixes = subdirectories(&data_dir.join("store"))?;
    let tables = prefixes.iter().map(|prefix| subdirectories(prefix)).collect::<io::Result<Vec<_>>>()?;
    Ok(tables.concat())
}

fn subdirectories(dir: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(names(dir)?.into_iter().map(|name| dir.join(name)).filter(|path| path.is_dir()).collect())
}

/// What is in a directory; nothing if there is none.
pub(super) fn names(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}
