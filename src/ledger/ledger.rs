//! The ledger: looks up ids in all runs, adds runs, merges and expires them.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tallyhouse_disk::Disk;
use uuid::Uuid;

use super::candidates::{CandidatePage, Candidates};
use super::entry::{Asked, Day, Entry, Fingerprint};
use super::error::LedgerError;
use super::id_time::IdTimes;
use super::manifest::Manifest;
use super::merge;
use super::run::{KeyCheck, Run, run_of};
use super::run_writer::RunWriter;
use super::segment_note::SegmentNote;

/// The ledger's bounds.
#[derive(Clone, Copy, Debug)]
pub struct LedgerSettings {
    /// Ids of an ordinary new run. Smaller runs are merged sooner.
    pub run_ids: u64,
    /// Most ids that are kept. Beyond, those of the oldest days are let go, and the floor rises. Half as many stay in any
    /// case, so that a day with more than that stays until the next has as many. Those of the newest day
    /// stay, those of today and later ones (see [`Ledger::set_today`]), and those of noted segments (see
    /// [`Ledger::note_segment`]). A tenth of it may be ids below the floor.
    pub ids_max: u64,
    /// Which hash key the fingerprints are made with.
    pub key_check: KeyCheck,
}

/// Ids that become a run.
pub struct NewRun<I> {
    /// In ascending order of their ids. Of those with the same id the first stays.
    pub entries: I,
    /// How many they are, about.
    pub expected: u64,
    /// The times within those ids that have one.
    pub id_times: IdTimes,
    /// Some of the ids have no time in them.
    pub has_untimed: bool,
    /// Segments of the log of which, with this run, every id is in the ledger.
    pub covered: Vec<Uuid>,
}

/// How the ledger stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerStatus {
    /// Entries in all runs. An id that is in two runs counts twice until they are merged.
    pub ids: u64,
    /// Runs, each of which may be asked for an id.
    pub runs: usize,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Bytes of memory, about.
    pub memory_bytes: u64,
    /// Whether the ids of all events from the floor's day on are there.
    pub is_complete: bool,
    /// Ids of events before this day may have been let go.
    pub floor: Day,
    /// The day of the oldest event whose id is there.
    pub oldest_day: Option<Day>,
    /// Runs of which a page could not be read as it was written. See [`Ledger::begin_repair`].
    pub damaged_runs: usize,
}

/// Damaged runs on their way to be replaced.
pub struct Repair {
    damaged: Vec<Arc<Run>>,
}

impl Repair {
    /// Whether an id may be in one of them: then it must be added again, if it was taken.
    pub fn may_have_held(&self, asked: &Asked) -> bool {
        self.damaged.iter().any(|run| run.may_hold(asked))
    }

    /// How many ids they have.
    pub fn ids(&self) -> u64 {
        self.damaged.iter().map(|run| run.tail.entries).sum()
    }
}

/// What is asked: it does not change, another takes its place.
pub(super) struct View {
    /// Newest first.
    pub(super) runs: Vec<Arc<Run>>,
    /// The first day from which on the ids of all events are there; none while they are not.
    complete_from: Option<Day>,
}

impl View {
    fn of(manifest: &Manifest, runs: Vec<Arc<Run>>) -> Arc<Self> {
        Arc::new(Self { runs, complete_from: manifest.is_complete.then_some(manifest.floor) })
    }
}

fn remove_if_there(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// See the crate.
pub struct Ledger {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) settings: LedgerSettings,
    pub(super) view: RwLock<Arc<View>>,
    /// What is on disk. Locked while that is changed.
    pub(super) manifest: Mutex<Manifest>,
    /// Locked while runs are merged, which may take long: one merge at a time.
    pub(super) merging: Mutex<()>,
    /// Entries of events before this day need not be kept.
    pub(super) keep_from: Mutex<Day>,
    /// The day that it is, once the owner has said so.
    pub(super) today: Mutex<Option<Day>>,
    /// Files that the manifest in memory does not name, but one on disk may, as a change has failed. They go when the
    /// manifest has been written again. Locked within `manifest`.
    unnamed: Mutex<Vec<PathBuf>>,
}

impl Ledger {
    /// Opens the ledger of a directory, or creates an empty one, which is not complete until
    /// [`Ledger::mark_complete`] says so. Files that no manifest names are removed.
    ///
    /// # Errors
    /// `Io`; `Damaged` when anything is missing or not what was written, or was made with another
    /// key. Nothing has been changed then; [`Ledger::replace`] begins again.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, settings: LedgerSettings) -> Result<Self, LedgerError> {
        disk.create_dir(dir).map_err(LedgerError::io(dir))?;
        // A process that was killed may have renamed a manifest without syncing its name. What this one is about to
        // answer from must survive a power failure, and files go that it does not name.
        disk.sync_dir(dir).map_err(LedgerError::io(dir))?;
        let files = disk.list(dir).map_err(LedgerError::io(dir))?;
        let manifest = match Manifest::read(&*disk, dir, settings.key_check)? {
            Some(manifest) => manifest,
            None if files.iter().any(|file| run_of(&file.name).is_some()) => {
                return Err(LedgerError::damaged(&dir.join("manifest"), "it is missing, and there are runs"));
            }
            None => {
                let manifest = Manifest::default();
                manifest.write(&*disk, dir, settings.key_check)?;
                manifest
            }
        };
        let open = |id: &Uuid| Run::open(&*disk, dir, *id, settings.key_check).map(Arc::new);
        let runs: Vec<_> = manifest.runs.iter().map(open).collect::<Result<_, _>>()?;
        for file in files {
            // Of a run or a note that was being written when the process was killed, or a run that was merged.
            let is_unnamed = run_of(&file.name).is_some_and(|id| !manifest.runs.contains(&id));
            if is_unnamed || file.name.ends_with(".new") {
                let path = dir.join(file.name);
                remove_if_there(&*disk, &path).map_err(LedgerError::io(&path))?;
            }
        }
        Ok(Self {
            disk,
            dir: dir.to_owned(),
            settings,
            view: RwLock::new(View::of(&manifest, runs)),
            manifest: Mutex::new(manifest),
            merging: Mutex::new(()),
            keep_from: Mutex::default(),
            today: Mutex::default(),
            unnamed: Mutex::default(),
        })
    }

    /// Removes whatever is in a directory, and creates an empty ledger that is not complete.
    ///
    /// # Errors
    /// `Io`.
    pub fn replace(disk: Arc<dyn Disk>, dir: &Path, settings: LedgerSettings) -> Result<Self, LedgerError> {
        disk.create_dir(dir).map_err(LedgerError::io(dir))?;
        // Before the files it names go: a manifest without its runs is damage, and found as such.
        for file in disk.list(dir).map_err(LedgerError::io(dir))? {
            let path = dir.join(file.name);
            disk.remove(&path).map_err(LedgerError::io(&path))?;
        }
        Self::open(disk, dir, settings)
    }

    /// What is known of ids: one answer for each, in their order. Reads memory, and the disk for
    /// those that memory does not rule out.
    ///
    /// # Errors
    /// `Io` and `Damaged`: nothing is known of any of them then.
    pub fn find(&self, asked: &[Asked]) -> Result<Vec<Option<Entry>>, LedgerError> {
        let mut found = vec![None; asked.len()];
        let read = self.candidates(asked).read();
        if let Some(error) = read.error {
            return Err(error);
        }
        for (position, entry) in read.found {
            found[position] = Some(entry);
        }
        Ok(found)
    }

    /// Which of these ids memory does not rule out. All others are not there.
    pub fn candidates(&self, asked: &[Asked]) -> Candidates {
        let view = Arc::clone(&self.view.read());
        let mut pages = Vec::new();
        for run in &view.runs {
            // Nothing is waited for within this loop, so that the processor reads many filters at once.
            let held = asked.iter().enumerate().filter(|(_, asked)| run.may_hold(asked));
            pages.extend(held.map(|(position, asked)| CandidatePage { position, id: asked.id, run: Arc::clone(run) }));
        }
        Candidates { pages, complete_from: view.complete_from }
    }

    /// Whether every id of a segment of the log is in a run.
    pub fn covers(&self, segment: Uuid) -> bool {
        self.manifest.lock().covered.contains(&segment)
    }

    /// Adds ids as a run. When it returns, they and what they cover are durable, and found.
    /// `is_in_log` tells which segments still need to be remembered as covered.
    ///
    /// # Errors
    /// `Io`: the ids are not found, and must be added again.
    pub fn add_run<I: Iterator<Item = Entry>>(
        &self,
        new: NewRun<I>,
        is_in_log: impl Fn(Uuid) -> bool,
    ) -> Result<(), LedgerError> {
        self.settle()?;
        let mut writer = RunWriter::create(&self.disk, &self.dir, new.expected, self.settings.key_check)?;
        for entry in new.entries {
            writer.push(entry)?;
        }
        let run = Arc::new(writer.finish(&self.dir, new.id_times, new.has_untimed)?);
        let mut manifest = self.manifest.lock();
        let mut changed = manifest.clone();
        if run.tail.entries > 0 {
            changed.runs.insert(0, run.id);
        }
        changed.covered.retain(|segment| is_in_log(*segment));
        changed.covered.extend(new.covered);
        self.change(&mut manifest, changed, Some(run))
    }

    /// Replaces the manifest, then the runs in memory by those that it names: of those that are there and a new one.
    /// The files of the others are removed.
    fn change(&self, manifest: &mut Manifest, changed: Manifest, new: Option<Arc<Run>>) -> Result<(), LedgerError> {
        // An error says that the old or the new one is on disk. The next change replaces either, and
        // a start that finds the new one finds all of its files.
        if let Err(error) = changed.write(&*self.disk, &self.dir, self.settings.key_check) {
            self.unnamed.lock().extend(new.map(|run| run.path.clone()));
            return Err(error);
        }
        *manifest = changed;
        let all: Vec<Arc<Run>> = self.view.read().runs.iter().cloned().chain(new).collect();
        let by_id = |id: &Uuid| all.iter().find(|run| run.id == *id).cloned();
        let runs = manifest.runs.iter().filter_map(by_id).collect();
        *self.view.write() = View::of(manifest, runs);
        // Whoever still reads one has it open.
        let gone = all.iter().filter(|run| !manifest.runs.contains(&run.id));
        self.unnamed.lock().extend(gone.map(|run| run.path.clone()));
        self.remove_unnamed();
        Ok(())
    }

    /// Must be called before a run is written: if a change has failed, so that a manifest on disk may name a run that
    /// the one in memory does not, the latter is written again, and the run's file is removed. So there is at most one
    /// such file, however often a change fails.
    fn settle(&self) -> Result<(), LedgerError> {
        let manifest = self.manifest.lock();
        if self.unnamed.lock().is_empty() {
            return Ok(());
        }
        manifest.write(&*self.disk, &self.dir, self.settings.key_check)?;
        self.remove_unnamed();
        Ok(())
    }

    /// Removes the files that the manifest on disk does not name. It must have just been written.
    fn remove_unnamed(&self) {
        self.unnamed.lock().retain(|path| {
            let removed = remove_if_there(&*self.disk, path);
            if let Err(error) = &removed {
                tracing::warn!(%error, path = %path.display(), "a file of the id ledger could not be removed; it is tried again");
            }
            removed.is_err()
        });
    }

    /// Whether all ids that were taken, of events from the floor's day on, are there.
    ///
    /// # Errors
    /// `Io`.
    pub fn mark_complete(&self, is_complete: bool) -> Result<(), LedgerError> {
        let mut manifest = self.manifest.lock();
        let changed = Manifest { is_complete, ..manifest.clone() };
        self.change(&mut manifest, changed, None)
    }

    pub(super) fn set_floor(&self, floor: Day) -> Result<(), LedgerError> {
        let mut manifest = self.manifest.lock();
        if floor <= manifest.floor {
            return Ok(());
        }
        let changed = Manifest { floor, ..manifest.clone() };
        self.change(&mut manifest, changed, None)
    }

    /// Puts one run in the place of neighbours. It takes as much of the disk as they, until they have gone: where that
    /// is not free, nothing is begun, as the log needs what is left.
    pub(super) fn rewrite(
        &self,
        runs: &[Arc<Run>],
        keep: impl FnMut(&Entry) -> Result<bool, LedgerError>,
    ) -> Result<(), LedgerError> {
        self.settle()?;
        let bytes: u64 = runs.iter().map(|run| run.disk_bytes).sum();
        if self.disk.free_bytes(&self.dir).map_err(LedgerError::io(&self.dir))? < bytes {
            return Err(LedgerError::io(&self.dir)(io::ErrorKind::StorageFull.into()));
        }
        let merged = merge::merge(&self.disk, &self.dir, runs, keep, self.settings.key_check)?;
        self.swap(runs, Some(Arc::new(merged)))
    }

    /// Takes runs away, and puts another in the place of the first.
    pub(super) fn swap(&self, gone: &[Arc<Run>], merged: Option<Arc<Run>>) -> Result<(), LedgerError> {
        if gone.is_empty() {
            return Ok(());
        }
        let named = merged.as_ref().filter(|run| run.tail.entries > 0).map(|run| run.id);
        let ids: HashSet<Uuid> = gone.iter().map(|run| run.id).collect();
        let mut manifest = self.manifest.lock();
        let mut changed = manifest.clone();
        let place = changed.runs.iter().position(|id| ids.contains(id)).unwrap_or(0);
        changed.runs.retain(|id| !ids.contains(id));
        changed.runs.splice(place..place, named);
        self.change(&mut manifest, changed, merged)
    }

    /// Takes ids of a segment away: their events are lost, and may be taken again. The segment counts as covered no
    /// more, as its file may be put back. The runs that the ids are in are rewritten, which may take minutes. Blocks
    /// on the disk.
    ///
    /// # Errors
    /// `Io` and `Damaged`. Some of them may still be there then.
    pub fn remove(&self, segment: Uuid, lost: &HashSet<Fingerprint>) -> Result<(), LedgerError> {
        {
            let mut manifest = self.manifest.lock();
            if manifest.covered.contains(&segment) {
                let mut changed = manifest.clone();
                changed.covered.retain(|covered| *covered != segment);
                self.change(&mut manifest, changed, None)?;
            }
        }
        let _merging = self.merging.lock();
        let runs = &Arc::clone(&self.view.read()).runs;
        for run in runs {
            let holds = |id: &Fingerprint| -> Result<bool, LedgerError> {
                Ok(run.tail.filters.may_hold(*id) && run.get(*id)?.is_some())
            };
            let mut is_holder = false;
            for id in lost {
                is_holder = is_holder || holds(id)?;
            }
            if is_holder {
                self.rewrite(std::slice::from_ref(run), |entry| Ok(!lost.contains(&entry.id)))?;
            }
        }
        Ok(())
    }

    /// The runs that are damaged now, to be replaced; none when none is. Until then they answer where memory rules an
    /// id out, and their other pages are read.
    pub fn begin_repair(&self) -> Option<Repair> {
        let view = Arc::clone(&self.view.read());
        let damaged: Vec<_> = view.runs.iter().filter(|run| run.is_damaged()).cloned().collect();
        (!damaged.is_empty()).then_some(Repair { damaged })
    }

    /// Takes the damaged runs away. Every id that [`Repair::may_have_held`] says yes to must have been added again.
    ///
    /// # Errors
    /// `Io`: they are still there.
    pub fn finish_repair(&self, repair: &Repair) -> Result<(), LedgerError> {
        let _merging = self.merging.lock();
        self.swap(&repair.damaged, None)
    }

    /// Notes the ids of a segment that is about to be covered while nothing else has its events, so that they can be
    /// told apart should its file be lost. See [`SegmentNote`].
    ///
    /// # Errors
    /// `Io`.
    pub fn note_segment(&self, note: &SegmentNote) -> Result<(), LedgerError> {
        note.write(&*self.disk, &self.dir, self.settings.key_check)
    }

    /// What [`Ledger::note_segment`] has noted of a segment.
    ///
    /// # Errors
    /// `Io` and `Damaged`.
    pub fn segment_note(&self, segment: Uuid) -> Result<Option<SegmentNote>, LedgerError> {
        SegmentNote::read(&*self.disk, &self.dir, segment, self.settings.key_check)
    }

    /// A segment is elsewhere too, or its loss has been dealt with: its note goes.
    ///
    /// # Errors
    /// `Io`.
    pub fn forget_segment(&self, segment: Uuid) -> Result<(), LedgerError> {
        SegmentNote::remove(&*self.disk, &self.dir, segment)
    }

    /// The segments that have notes.
    ///
    /// # Errors
    /// `Io`.
    pub fn noted_segments(&self) -> Result<Vec<Uuid>, LedgerError> {
        Ok(self.note_sizes()?.into_iter().map(|(segment, _)| segment).collect())
    }

    /// The segments that have notes, and how many ids each has.
    pub(super) fn note_sizes(&self) -> Result<Vec<(Uuid, u64)>, LedgerError> {
        SegmentNote::list(&*self.disk, &self.dir)
    }

    /// Reads every page of every run, and says whether all are what was written.
    ///
    /// # Errors
    /// `Io` and `Damaged`.
    pub fn verify(&self) -> Result<(), LedgerError> {
        let view = Arc::clone(&self.view.read());
        view.runs.iter().flat_map(|run| run.entries()).try_for_each(|entry| entry.map(drop))
    }

    /// How it stands.
    pub fn status(&self) -> LedgerStatus {
        let manifest = self.manifest.lock();
        let runs = &Arc::clone(&self.view.read()).runs;
        let sum = |of: fn(&Run) -> u64| runs.iter().map(|run| of(run)).sum();
        LedgerStatus {
            ids: sum(|run| run.tail.entries),
            runs: runs.len(),
            disk_bytes: sum(|run| run.disk_bytes),
            memory_bytes: sum(Run::memory_bytes),
            is_complete: manifest.is_complete,
            floor: manifest.floor,
            damaged_runs: runs.iter().filter(|run| run.is_damaged()).count(),
            oldest_day: runs.iter().filter_map(|run| run.tail.days.first_key_value()).map(|(day, _)| *day).min(),
        }
    }

    /// Ids of an ordinary new run.
    pub const fn run_ids(&self) -> u64 {
        self.settings.run_ids
    }
}
