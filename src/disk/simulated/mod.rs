//! A disk in memory that can lose power.
//!
//! Every operation counts. With a [`CrashPoint`], the operation of that number and all after it fail,
//! as they would for a process whose machine has gone. [`SimulatedDisk::after_power_failure`] is then
//! what the next start finds:
//!
//! - of each file, what was synced, and of the writes since any subset, each write torn at any sector;
//! - of each directory, the names that were synced, and of the changes since any subset. A file that has two names
//!   is one file afterwards, too.
//!
//! That is more than real file systems do, which keep some of the order. A choice is a seed's, so
//! every failure can be looked at again.
//!
//! A process that is killed while the machine goes on is a crash without a loss: [`SimulatedDisk::crash_at`], then
//! [`SimulatedDisk::restart`]. What it wrote and did not sync can be read, and is lost if power fails later.

mod changes;
mod seeds;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

use super::{DirEntry, Disk, DiskFile};
use changes::{ByteChange, NameChange, Names, Survivors};
pub use seeds::Seeds;

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
    /// The operation that fails alone, and the error of the operating system that it fails with.
    failing: Mutex<Option<(u64, i32)>>,
    free_bytes: AtomicU64,
    directories: Mutex<BTreeMap<PathBuf, Directory>>,
}

/// The names in a directory, and which of them are durable.
#[derive(Default)]
struct Directory {
    names: Names,
    durable: Names,
    unsynced: Vec<NameChange>,
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
                failing: Mutex::default(),
                free_bytes: AtomicU64::new(FREE_BYTES),
                directories: Mutex::new(directories),
            }),
        }
    }

    /// Sets when power is lost.
    pub fn crash_at(&self, point: CrashPoint) {
        self.state.crash_point.store(point.0, Ordering::SeqCst);
    }

    /// The process that met its [`CrashPoint`] was killed, and the machine goes on: operations work again, and find
    /// what was written, synced or not.
    pub fn restart(&self) {
        self.crash_at(CrashPoint::NEVER);
    }

    /// Lets the operation of this number fail with an error of the operating system (such as 28, no space left), without
    /// having done anything. Those after it work. Replaces what was set before.
    pub fn fail_at(&self, operation: u64, os_error: i32) {
        *self.state.failing.lock() = Some((operation, os_error));
    }

    /// How many operations there have been: where a [`CrashPoint`] can lie.
    pub fn operations(&self) -> u64 {
        self.state.operations.load(Ordering::SeqCst)
    }

    /// Whether power has been lost.
    pub fn has_crashed(&self) -> bool {
        self.operations() > self.state.crash_point.load(Ordering::SeqCst)
    }

    /// Looks at the disk from outside: operations work whether or not power has been lost, and are not counted.
    pub fn observe<T>(&self, look: impl FnOnce() -> T) -> T {
        let (operations, crash_point) = (self.operations(), self.state.crash_point.load(Ordering::SeqCst));
        self.crash_at(CrashPoint::NEVER);
        let seen = look();
        self.crash_at(CrashPoint(crash_point));
        self.state.operations.store(operations, Ordering::SeqCst);
        seen
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
        // By the file they were: one that has two names stays one.
        let mut files: HashMap<*const Content, Arc<Content>> = HashMap::new();
        for (path, directory) in &*self.state.directories.lock() {
            let mut names = directory.durable.clone();
            let survivors = Survivors::choose(directory.unsynced.len(), &mut random);
            for (position, change) in directory.unsynced.iter().enumerate() {
                if survivors.include(position, &mut random) {
                    change.clone().apply(&mut names);
                }
            }
            for content in names.values_mut() {
                let left = files.entry(Arc::as_ptr(content)).or_insert_with(|| Arc::new(content.left(&mut random)));
                *content = Arc::clone(left);
            }
            let durable = names.clone();
            directories.insert(path.clone(), Directory { names, durable, unsynced: Vec::new() });
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
        if let Some((operation, os_error)) = *self.state.failing.lock()
            && operation == number
        {
            return Err(io::Error::from_raw_os_error(os_error));
        }
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
        let survivors = Survivors::choose(bytes.unsynced.len(), random);
        for (position, change) in bytes.unsynced.iter().enumerate() {
            match survivors {
                Survivors::UpTo(end) if position < end => change.apply(&mut left),
                // The one that was under way.
                Survivors::UpTo(end) if position > end => {}
                Survivors::UpTo(_) | Survivors::Any => change.apply_torn(&mut left, random),
            }
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

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let content = self.content(from)?;
        let (dir, name) = split(to)?;
        self.change_names(dir, |directory| {
            if directory.names.contains_key(name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            directory.change(NameChange::Put(name.to_owned(), content));
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
        // It is not counted: callers ask for it by the clock, and a seed must always mean the same.
        Ok(self.state.free_bytes.load(Ordering::SeqCst))
    }
}

impl std::fmt::Debug for SimulatedDisk {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SimulatedDisk").field("operations", &self.operations()).finish_non_exhaustive()
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

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }
}
