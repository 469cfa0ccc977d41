//! The file of the segment after the open one, made ahead of time.
//!
//! A file and its name are durable after several syncs, which take some
//! milliseconds while ClickHouse inserts. A thread of its own makes them, so
//! that no append waits for them. A file made ahead is empty: who opens the
//! segment writes its header, and a start removes a file that nobody opened.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SendError, SyncSender, sync_channel};
use std::thread::JoinHandle;

use tallyhouse_disk::{Disk, DiskFile};
use uuid::Uuid;

use super::segment::SegmentState;
use super::segment_file::segment_path;

/// An empty file, durable under the name of an open segment.
pub(super) struct SpareFile {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) id: Uuid,
    pub(super) path: PathBuf,
}

/// Makes spare files in a directory, with ids above the last one, also when the clock was set back: the order of the
/// ids is that of the segments.
struct SpareMaker {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    last_id: u128,
}

impl SpareMaker {
    fn make(&mut self) -> io::Result<SpareFile> {
        let id = Uuid::from_u128(Uuid::now_v7().as_u128().max(self.last_id.saturating_add(1)));
        self.last_id = id.as_u128();
        let path = segment_path(&self.dir, id, SegmentState::Open);
        let spare = SpareFile { file: self.disk.create(&path)?, id, path };
        if let Err(error) = spare.file.sync_all().and_then(|()| self.disk.sync_dir(&self.dir)) {
            self.remove(&spare);
            return Err(error);
        }
        Ok(spare)
    }

    fn remove(&self, spare: &SpareFile) {
        let _ = self.disk.remove(&spare.path); // The next start removes it too.
    }
}

/// Makes spare files, each as soon as the one before was taken.
pub(super) enum Spares {
    /// On a thread of its own.
    Thread(SpareThread),
    /// When it is told to, or else when one is needed.
    #[cfg(test)]
    Stepped(SteppedSpares),
}

impl Spares {
    /// Starts with the first. Their ids are above this one.
    pub(super) fn start(disk: Arc<dyn Disk>, dir: PathBuf, ids_above: u128) -> io::Result<Self> {
        let mut maker = SpareMaker { disk, dir, last_id: ids_above };
        let (sender, made) = sync_channel(0);
        let thread = std::thread::Builder::new().name("log-spare".to_owned());
        let thread = thread.spawn(move || make(&mut maker, &sender))?;
        Ok(Self::Thread(SpareThread { made: Some(made), thread: Some(thread) }))
    }

    /// The file that was made ahead; waits for it only when the last one was
    /// taken just now.
    pub(super) fn take(&mut self) -> io::Result<SpareFile> {
        match self {
            // What failed may have failed long ago. The second time tells of now.
            Self::Thread(thread) => thread.next().or_else(|_| thread.next()),
            #[cfg(test)]
            Self::Stepped(spares) => spares.next.take().map_or_else(|| spares.maker.make(), Ok),
        }
    }
}

/// The thread that makes spare files.
pub(super) struct SpareThread {
    made: Option<Receiver<io::Result<SpareFile>>>,
    thread: Option<JoinHandle<()>>,
}

impl SpareThread {
    fn next(&self) -> io::Result<SpareFile> {
        let made = self.made.as_ref().and_then(|made| made.recv().ok());
        made.unwrap_or_else(|| Err(io::Error::other("the thread that makes segment files has ended")))
    }
}

impl Drop for SpareThread {
    fn drop(&mut self) {
        drop(self.made.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Makes files until nobody wants them; the last one goes.
fn make(maker: &mut SpareMaker, sender: &SyncSender<io::Result<SpareFile>>) {
    loop {
        if let Err(SendError(unwanted)) = sender.send(maker.make()) {
            unwanted.iter().for_each(|spare| maker.remove(spare));
            return;
        }
    }
}

/// Makes spare files at moments that a simulation chooses.
#[cfg(test)]
pub(super) struct SteppedSpares {
    maker: SpareMaker,
    next: Option<SpareFile>,
}

#[cfg(test)]
impl SteppedSpares {
    pub(super) fn new(disk: Arc<dyn Disk>, dir: PathBuf, ids_above: u128) -> Self {
        Self { maker: SpareMaker { disk, dir, last_id: ids_above }, next: None }
    }

    /// Makes the next one, if there is none.
    pub(super) fn make(&mut self) {
        if self.next.is_none() {
            self.next = self.maker.make().ok();
        }
    }

    /// The unwanted one goes.
    pub(super) fn end(self) {
        self.next.iter().for_each(|spare| self.maker.remove(spare));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tallyhouse_disk::RealDisk;

    use super::*;

    fn files(dir: &Path) -> usize {
        std::fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn files_are_made_one_ahead_and_an_unwanted_one_goes() {
        let dir = tempfile::tempdir().unwrap();
        let mut spares = Spares::start(Arc::new(RealDisk), dir.path().to_owned(), 0).unwrap();
        let (first, second) = (spares.take().unwrap(), spares.take().unwrap());
        assert!(first.id < second.id, "ids tell the order in which segments are opened");
        assert_eq!(second.path.metadata().unwrap().len(), 0);
        drop(spares);
        assert_eq!(files(dir.path()), 2);
    }

    #[test]
    fn what_failed_before_does_not_fail_now() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("log");
        let mut spares = Spares::start(Arc::new(RealDisk), dir.clone(), 0).unwrap();
        assert!(spares.take().is_err());
        std::fs::create_dir(&dir).unwrap();
        assert!(spares.take().is_ok());
    }
}
