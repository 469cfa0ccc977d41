//! Creates files and directories that only the service's own user can read: they contain events,
//! idempotency keys and signing keys.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Mode of directories: everything for the owner, nothing for others.
const DIR_MODE: u32 = 0o700;
/// Mode of files: to read and write for the owner, nothing for others.
const FILE_MODE: u32 = 0o600;
/// What the owner's group and others may do.
const OF_OTHERS: u32 = 0o077;

/// Creates a directory and its parents with mode 0700. Removes the access of others to an existing
/// one; if the service does not own it, a warning is logged instead.
pub(crate) fn create_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(path)?;
    let mode = path.metadata()?.mode();
    if mode & OF_OTHERS == 0 {
        return Ok(());
    }
    match std::fs::set_permissions(path, Permissions::from_mode(mode & !OF_OTHERS)) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            tracing::warn!(path = %path.display(), "a directory of the service is accessible to other users, and does not belong to the service's user");
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Options that create files with mode 0600.
pub(crate) fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(FILE_MODE);
    options
}

/// Creates a file with mode 0600, or empties it.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    options().write(true).create(true).truncate(true).open(path)
}

/// Removes the access of others to a file, if it exists.
pub(crate) fn close_to_others(path: &Path) -> io::Result<()> {
    match path.metadata() {
        Ok(metadata) if metadata.mode() & OF_OTHERS != 0 => {
            std::fs::set_permissions(path, Permissions::from_mode(metadata.mode() & !OF_OTHERS))
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// The process that holds the lock (`flock`) of a file, as text, if it can be determined: "process
/// 4711 (tallyhouse), user id 1000".
pub(crate) fn lock_holder(path: &Path) -> Option<String> {
    let inode = path.metadata().ok()?.ino();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let process = locks.lines().find_map(|line| flock_holder(line, inode))?;
    let name = std::fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
    let name = if name.is_empty() { String::new() } else { format!(" ({})", name.trim_end()) };
    let owner = std::fs::metadata(format!("/proc/{process}")).ok();
    let owner = owner.map_or_else(String::new, |owner| format!(", user id {}", owner.uid()));
    Some(format!("process {process}{name}{owner}"))
}

/// The process of a line of `/proc/locks`, such as
/// `1: FLOCK  ADVISORY  WRITE 4711 08:02:131 0 EOF`, if it is about this inode.
fn flock_holder(line: &str, inode: u64) -> Option<u32> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let is_flock = words.next()? == "FLOCK";
    let process = words.nth(2)?.parse().ok().filter(|process| *process > 0)?;
    let locked: u64 = words.next()?.rsplit(':').next()?.parse().ok()?;
    (is_flock && locked == inode).then_some(process)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().mode() & 0o777
    }

    #[test]
    fn what_is_open_to_others_is_closed() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("a/b");
        create_dir(&dir).unwrap();
        assert_eq!((mode(&dir), mode(&parent.path().join("a"))), (0o700, 0o700));
        std::fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
        create_dir(&dir).unwrap();
        assert_eq!(mode(&dir), 0o700);
        let file = dir.join("file");
        create(&file).unwrap();
        assert_eq!(mode(&file), 0o600);
        std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        close_to_others(&file).unwrap();
        assert_eq!(mode(&file), 0o600);
        close_to_others(&dir.join("none")).unwrap();
    }

    #[test]
    fn who_holds_a_lock_is_said() {
        assert_eq!(flock_holder("1: FLOCK  ADVISORY  WRITE 4711 08:02:131 0 EOF", 131), Some(4711));
        assert_eq!(flock_holder("1: FLOCK  ADVISORY  WRITE 4711 08:02:131 0 EOF", 132), None);
        assert_eq!(flock_holder("1: POSIX  ADVISORY  WRITE 4711 08:02:131 0 EOF", 131), None);
        assert_eq!(flock_holder("1: -> FLOCK", 131), None);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = create(&path).unwrap();
        lock.lock().unwrap();
        let holder = lock_holder(&path).unwrap();
        assert!(holder.starts_with(&format!("process {} (", std::process::id())), "{holder}");
    }
}
