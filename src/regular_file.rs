//! Reads small files that operators provide and replace while the service runs: key sets, certificates,
//! private keys.

use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Reads a regular file of at most `bytes_max` bytes, off the threads that
/// serve requests. Symbolic links are followed.
///
/// Anything else than a regular file is refused and never waited for: to open
/// a FIFO that nobody writes to would block a thread, and with it the end of
/// the process.
///
/// # Errors
/// Names the path.
pub(crate) async fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>, String> {
    let owned = path.to_owned();
    let read = tokio::task::spawn_blocking(move || read_blocking(&owned, bytes_max)).await;
    let read = read.unwrap_or_else(|error| Err(io::Error::other(error)));
    read.map_err(|error| format!("{}: {error}", path.display()))
}

fn read_blocking(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = std::fs::OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {bytes_max} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[tokio::test]
    async fn only_small_regular_files_are_read_and_nothing_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("file"), b"four").unwrap();
        std::os::unix::fs::symlink(path("file"), path("link")).unwrap();
        assert!(Command::new("mkfifo").arg(path("fifo")).status().unwrap().success());
        assert_eq!(read(&path("file"), 4).await, Ok(b"four".to_vec()));
        assert_eq!(read(&path("link"), 4).await, Ok(b"four".to_vec()));
        for (name, bytes_max, reason) in [
            ("file", 3, "more than 3 bytes"),
            ("fifo", 4, "not a regular file"),
            ("", 4, "not a regular file"),
            ("none", 4, "No such file"),
        ] {
            let error = read(&path(name), bytes_max).await.unwrap_err();
            assert!(error.contains(reason) && error.contains(path(name).to_str().unwrap()), "{error}");
        }
    }
}
