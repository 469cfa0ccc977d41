//! The file of the segment after the open one, made ahead of time.
//!
//! A file and its name are durable after several syncs, which take some
//! milliseconds while ClickHouse inserts. A thread of its own makes them, so
//! that no append waits for them. A file made ahead is empty: who opens the
//! segment writes its header, and a start removes a file that nobody opened.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SendError, SyncSender, sync_channel};
use std::thread::JoinHandle;

use uuid::Uuid;

use super::segment::{SegmentState, segment_path};
use super::writer::sync_dir;
use crate::private_files;

/// An empty file, durable under the name of an open segment.
pub(super) struct SpareFile {
    pub(super) file: File,
    pub(super) id: Uuid,
    pub(super) path: PathBuf,
}

impl SpareFile {
    /// With an id above the last one, also when the clock was set back: the order of the ids is that of the segments.
    fn make(dir: &Path, last_id: &mut u128) -> io::Result<Self> {
        let id = Uuid::from_u128(Uuid::now_v7().as_u128().max(last_id.saturating_add(1)));
        *last_id = id.as_u128();
        let path = segment_path(dir, id, SegmentState::Open);
        // Appending, so that after a cut the next write goes to the new end.
        let file = private_files::options().create_new(true).append(true).open(&path)?;
        let spare = Self { file, id, path };
        if let Err(error) = spare.file.sync_all().and_then(|()| sync_dir(dir)) {
            spare.remove();
            return Err(error);
        }
        Ok(spare)
    }

    fn remove(self) {
        let _ = std::fs::remove_file(&self.path); // The next start removes it too.
    }
}

/// Makes spare files, each as soon as the one before was taken.
pub(super) struct Spares {
    made: Option<Receiver<io::Result<SpareFile>>>,
    thread: Option<JoinHandle<()>>,
}

impl Spares {
    /// Starts with the first. Their ids are above this one.
    pub(super) fn start(dir: PathBuf, ids_above: u128) -> io::Result<Self> {
        let (sender, made) = sync_channel(0);
        let thread =
            std::thread::Builder::new().name("log-spare".to_owned()).spawn(move || make(&dir, ids_above, &sender))?;
        Ok(Self { made: Some(made), thread: Some(thread) })
    }

    /// The file that was made ahead; waits for it only when the last one was
    /// taken just now.
    pub(super) fn take(&self) -> io::Result<SpareFile> {
        // What failed may have failed long ago. The second time tells of now.
        self.next().or_else(|_| self.next())
    }

    fn next(&self) -> io::Result<SpareFile> {
        let made = self.made.as_ref().and_then(|made| made.recv().ok());
        made.unwrap_or_else(|| Err(io::Error::other("the thread that makes segment files has ended")))
    }
}

impl Drop for Spares {
    fn drop(&mut self) {
        drop(self.made.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Makes files until nobody wants them; the last one goes.
fn make(dir: &Path, mut last_id: u128, sender: &SyncSender<io::Result<SpareFile>>) {
    loop {
        if let Err(SendError(unwanted)) = sender.send(SpareFile::make(dir, &mut last_id)) {
            unwanted.map(SpareFile::remove).unwrap_or_default();
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(dir: &Path) -> usize {
        std::fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn files_are_made_one_ahead_and_an_unwanted_one_goes() {
        let dir = tempfile::tempdir().unwrap();
        let spares = Spares::start(dir.path().to_owned(), 0).unwrap();
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
        let spares = Spares::start(dir.clone(), 0).unwrap();
        assert!(spares.take().is_err());
        std::fs::create_dir(&dir).unwrap();
        assert!(spares.take().is_ok());
    }
}
