//! A disk in memory that can lose power.
//!
//! Every operation counts. With a [`CrashPoint`], the operation of that number and all after it fail,
//! as they would for a process whose machine has gone. [`SimulatedDisk::after_power_failure`] is then
//! what the next start finds:
//!
//! - of each file, what was synced, and of the writes since any subset, each write torn at any sector;
//! - of each directory, the names that were synced, and of the changes since any subset.
//!
//! That is more than real file systems do, which keep some of the order. A choice is a seed's, so
//! every failure can be looked at again.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::{DirEntry, Disk, DiskFile};

/// What a disk writes as one, in bytes.
const SECTOR_BYTES: usize = 512;
/// Free space that is reported, in bytes, unless it is set.
const FREE_BYTES: u64 = 1 << 40;

/// When power is lost: before the operation of this number, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrashPoint(pub u64);

impl CrashPoint {
    /// Power stays.
    pub const NEVER: Self = Self(u64::MAX);
}

/// A disk in memory that can lose power. Clones share the same contents.
#[derive(Clone)]
pub struct SimulatedDisk {
    state: Arc<State>,
}

struct State {
    operations: AtomicU64,
    crash_point: AtomicU64,
    free_bytes: AtomicU64,
    directories: Mutex<BTreeMap<PathBuf, Directory>>,
}

/// The names in a directory, and which of them are durable.
#[derive(Default)]
struct Directory {
    names: BTreeMap<String, Arc<Content>>,
    durable: BTreeMap<String, Arc<Content>>,
    unsynced: Vec<NameChange>,
}

#[derive(Clone)]
enum NameChange {
    Put(String, Arc<Content>),
    Remove(String),
    Rename { from: String, to: String, content: Arc<Content> },
}

impl NameChange {
    fn apply(self, names: &mut BTreeMap<String, Arc<Content>>) {
        match self {
            Self::Put(name, content) => _ = names.insert(name, content),
            Self::Remove(name) => _ = names.remove(&name),
            Self::Rename { from, to, content } => {
                names.remove(&from);
                names.insert(to, content);
            }
        }
    }
}

/// A file's bytes, and which of them are durable.
#[derive(Default)]
struct Content(Mutex<Bytes>);

#[derive(Default)]
struct Bytes {
    current: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<ByteChange>,
}

#[derive(Clone)]
enum ByteChange {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

impl ByteChange {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes: written } => {
                let end = offset + written.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset..end].copy_from_slice(written);
            }
            Self::SetLen(len) => bytes.resize(*len, 0),
        }
    }

    /// Of a write, any subset of the sectors it touches. A change of length is whole or nothing.
    fn apply_torn(&self, bytes: &mut Vec<u8>, random: &mut SmallRng) {
        let Self::Write { offset, bytes: written } = self else {
            if random.random_bool(0.5) {
                self.apply(bytes);
            }
            return;
        };
        // Most losses are of all or nothing; the rest are torn.
        let share = [0.0, 1.0, 0.5, 0.9][random.random_range(0..4)];
        let mut at = 0;
        while at < written.len() {
            let to_boundary = SECTOR_BYTES - (offset + at) % SECTOR_BYTES;
            let end = written.len().min(at + to_boundary);
            if random.random_bool(share) {
                Self::Write { offset: offset + at, bytes: written[at..end].to_vec() }.apply(bytes);
            }
            at = end;
        }
    }
}

impl Default for SimulatedDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl SimulatedDisk {
    /// An empty disk whose power stays.
    pub fn new() -> Self {
        Self::with_directories(BTreeMap::new())
    }

    fn with_directories(directories: BTreeMap<PathBuf, Directory>) -> Self {
        Self {
            state: Arc::new(State {
                operations: AtomicU64::new(0),
                crash_point: AtomicU64::new(CrashPoint::NEVER.0),
                free_bytes: AtomicU64::new(FREE_BYTES),
                directories: Mutex::new(directories),
            }),
        }
    }

    /// Sets when power is lost.
    pub fn crash_at(&self, point: CrashPoint) {
        self.state.crash_point.store(point.0, Ordering::SeqCst);
    }

    /// How many operations there have been: where a [`CrashPoint`] can lie.
    pub fn operations(&self) -> u64 {
        self.state.operations.load(Ordering::SeqCst)
    }

    /// Whether power has been lost.
    pub fn has_crashed(&self) -> bool {
        self.operations() > self.state.crash_point.load(Ordering::SeqCst)
    }

    /// Sets the free space that is reported, in bytes.
    pub fn set_free_bytes(&self, bytes: u64) {
        self.state.free_bytes.store(bytes, Ordering::SeqCst);
    }

    /// What a start after a power failure finds: a disk of its own, with this seed's choice of what
    /// was not synced.
    pub fn after_power_failure(&self, seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut directories = BTreeMap::new();
        for (path, directory) in &*self.state.directories.lock() {
            let mut names = directory.durable.clone();
            for change in &directory.unsynced {
                if random.random_bool(0.5) {
                    change.clone().apply(&mut names);
                }
            }
            let kept: BTreeMap<String, Arc<Content>> =
                names.into_iter().map(|(name, content)| (name, Arc::new(content.left(&mut random)))).collect();
            let durable = kept.clone();
            directories.insert(path.clone(), Directory { names: kept, durable, unsynced: Vec::new() });
        }
        Self::with_directories(directories)
    }

    /// Changes a file's bytes behind everybody's back, as a failing disk does.
    ///
    /// # Errors
    /// `NotFound` where there is no such file.
    pub fn corrupt(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let content = self.content(path)?;
        let mut bytes = content.0.lock();
        change(&mut bytes.current);
        bytes.durable = bytes.current.clone();
        bytes.unsynced.clear();
        Ok(())
    }

    /// Counts an operation, which fails once power is lost.
    fn operate(&self) -> io::Result<()> {
        let number = self.state.operations.fetch_add(1, Ordering::SeqCst);
        if number < self.state.crash_point.load(Ordering::SeqCst) {
            return Ok(());
        }
        Err(io::Error::other("the power has failed"))
    }

    fn content(&self, path: &Path) -> io::Result<Arc<Content>> {
        let (dir, name) = split(path)?;
        let directories = self.state.directories.lock();
        let directory = directories.get(dir).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::clone(directory.names.get(name).ok_or(io::ErrorKind::NotFound)?))
    }

    fn change_names<T>(&self, dir: &Path, change: impl FnOnce(&mut Directory) -> io::Result<T>) -> io::Result<T> {
        self.operate()?;
        let mut directories = self.state.directories.lock();
        change(directories.get_mut(dir).ok_or(io::ErrorKind::NotFound)?)
    }

    fn handle(&self, content: Arc<Content>) -> Arc<dyn DiskFile> {
        Arc::new(SimulatedFile { disk: self.clone(), content })
    }
}

impl Content {
    fn left(&self, random: &mut SmallRng) -> Self {
        let bytes = self.0.lock();
        let mut left = bytes.durable.clone();
        for change in &bytes.unsynced {
            change.apply_torn(&mut left, random);
        }
        Self(Mutex::new(Bytes { current: left.clone(), durable: left, unsynced: Vec::new() }))
    }
}

impl Directory {
    fn change(&mut self, change: NameChange) {
        change.clone().apply(&mut self.names);
        self.unsynced.push(change);
    }

    fn get(&self, name: &str) -> io::Result<Arc<Content>> {
        Ok(Arc::clone(self.names.get(name).ok_or(io::ErrorKind::NotFound)?))
    }
}

fn split(path: &Path) -> io::Result<(&Path, &str)> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(invalid)?;
    Ok((path.parent().ok_or_else(invalid)?, name))
}

impl Disk for SimulatedDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let (dir, name) = split(path)?;
        let content = self.change_names(dir, |directory| {
            if directory.names.contains_key(name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let content = Arc::new(Content::default());
            directory.change(NameChange::Put(name.to_owned(), Arc::clone(&content)));
            Ok(content)
        })?;
        Ok(self.handle(content))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.operate()?;
        Ok(self.handle(self.content(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let ((dir, from), (_, to)) = (split(from)?, split(to)?);
        self.change_names(dir, |directory| {
            let content = directory.get(from)?;
            directory.change(NameChange::Rename { from: from.to_owned(), to: to.to_owned(), content });
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let (dir, name) = split(path)?;
        self.change_names(dir, |directory| {
            directory.get(name)?;
            directory.change(NameChange::Remove(name.to_owned()));
            Ok(())
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.change_names(dir, |directory| {
            let entry = |(name, content): (&String, &Arc<Content>)| DirEntry {
                name: name.clone(),
                bytes: content.0.lock().current.len() as u64,
            };
            Ok(directory.names.iter().map(entry).collect())
        })
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.operate()?;
        self.state.directories.lock().entry(dir.to_owned()).or_default();
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.change_names(dir, |directory| {
            directory.durable = directory.names.clone();
            directory.unsynced.clear();
            Ok(())
        })
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        self.operate()?;
        Ok(self.state.free_bytes.load(Ordering::SeqCst))
    }
}

struct SimulatedFile {
    disk: SimulatedDisk,
    content: Arc<Content>,
}

impl SimulatedFile {
    fn change(&self, change: ByteChange) -> io::Result<()> {
        self.disk.operate()?;
        let mut bytes = self.content.0.lock();
        change.apply(&mut bytes.current);
        bytes.unsynced.push(change);
        Ok(())
    }
}

fn index(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}

impl DiskFile for SimulatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.operate()?;
        let bytes = self.content.0.lock();
        let rest = bytes.current.get(index(offset)?..).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.change(ByteChange::Write { offset: index(offset)?, bytes: bytes.to_vec() })
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.change(ByteChange::SetLen(index(bytes)?))
    }

    fn bytes(&self) -> io::Result<u64> {
        self.disk.operate()?;
        Ok(self.content.0.lock().current.len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.operate()?;
        let mut bytes = self.content.0.lock();
        bytes.durable = bytes.current.clone();
        bytes.unsynced.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIR: &str = "/d";

    fn path(name: &str) -> PathBuf {
        Path::new(DIR).join(name)
    }

    fn disk() -> SimulatedDisk {
        let disk = SimulatedDisk::new();
        disk.create_dir(Path::new(DIR)).unwrap();
        disk
    }

    fn content(disk: &SimulatedDisk, name: &str) -> Option<Vec<u8>> {
        let file = disk.open(&path(name)).ok()?;
        let mut bytes = vec![0; usize::try_from(file.bytes().unwrap()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        Some(bytes)
    }

    #[test]
    fn what_is_synced_survives_every_power_failure() {
        let disk = disk();
        let file = disk.create(&path("a")).unwrap();
        file.write_all_at(&[7; 2_000], 0).unwrap();
        file.sync().unwrap();
        disk.sync_dir(Path::new(DIR)).unwrap();
        for seed in 0..100 {
            assert_eq!(content(&disk.after_power_failure(seed), "a"), Some(vec![7; 2_000]));
        }
    }

    #[test]
    fn a_name_that_is_not_synced_may_be_lost_though_its_bytes_are_synced() {
        let disk = disk();
        disk.create(&path("a")).unwrap().sync().unwrap();
        let survives: Vec<bool> =
            (0..100).map(|seed| content(&disk.after_power_failure(seed), "a").is_some()).collect();
        assert!(survives.contains(&true) && survives.contains(&false));
    }

    #[test]
    fn a_write_that_is_not_synced_may_be_whole_torn_or_lost() {
        let disk = disk();
        let file = disk.create(&path("a")).unwrap();
        file.set_len(2_048).unwrap();
        file.sync().unwrap();
        disk.sync_dir(Path::new(DIR)).unwrap();
        file.write_all_at(&[7; 2_048], 0).unwrap();
        let sevens = |seed| {
            let left = content(&disk.after_power_failure(seed), "a").unwrap();
            left.chunks(SECTOR_BYTES).filter(|sector| sector[0] == 7).count()
        };
        let seen: Vec<usize> = (0..200).map(sevens).collect();
        assert!((0..=4).all(|sectors| seen.contains(&sectors)), "{seen:?}");
    }

    #[test]
    fn a_replaced_file_is_the_old_one_or_the_new_one_wherever_power_fails() {
        for point in 0.. {
            let disk = disk();
            super::super::replace_file(&disk, &path("a"), b"old").unwrap();
            let before = disk.operations();
            disk.crash_at(CrashPoint(before + point));
            let replaced = super::super::replace_file(&disk, &path("a"), b"new");
            for seed in 0..50 {
                let left = content(&disk.after_power_failure(seed), "a").unwrap();
                assert!(left == b"old" || left == b"new", "{left:?} at {point}, seed {seed}");
                assert!(replaced.is_err() || left == b"new", "what was confirmed must stay");
            }
            if replaced.is_ok() {
                return;
            }
        }
    }

    #[test]
    fn nothing_works_after_a_power_failure() {
        let disk = disk();
        let file = disk.create(&path("a")).unwrap();
        disk.crash_at(CrashPoint(disk.operations()));
        assert!(file.write_all_at(b"x", 0).is_err() && file.sync().is_err() && disk.open(&path("a")).is_err());
        assert!(disk.has_crashed());
    }
}
