//! The ledger: looks up ids in all runs, adds runs, merges and expires them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tallyhouse_disk::Disk;
use uuid::Uuid;

use super::entry::{Asked, Day, Entry, Fingerprint};
use super::error::LedgerError;
use super::id_time::IdTimes;
use super::manifest::Manifest;
use super::merge;
use super::run::{KeyCheck, Run, run_of};
use super::run_writer::RunWriter;

/// The ledger's bounds.
#[derive(Clone, Copy, Debug)]
pub struct LedgerSettings {
    /// Ids of an ordinary new run. Smaller runs are merged sooner.
    pub run_ids: u64,
    /// Most ids that are kept. Beyond, those of the oldest days are let go, and the floor rises.
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
}

/// Ids that may be there, and where. One in 250 ids that are not there is among them, for each run.
pub struct Candidates {
    /// By run, newest first.
    places: Vec<Place>,
    complete_from: Option<Day>,
}

struct Place {
    position: usize,
    id: Fingerprint,
    run: Arc<Run>,
}

impl Candidates {
    /// Whether an id of this day that is not found has not been taken.
    pub fn is_complete_from(&self, day: Day) -> bool {
        self.complete_from.is_some_and(|first| day >= first)
    }

    /// Whether the ids of all events from some day on are there.
    pub const fn is_complete(&self) -> bool {
        self.complete_from.is_some()
    }

    /// How many places on disk have to be read: a page each.
    pub const fn pages(&self) -> usize {
        self.places.len()
    }

    /// Reads the entries of those that are there: the position of each among the ids that were asked
    /// for, and its entry. Should runs hold an id more than once, the entry that was taken first comes
    /// last. Blocks on the disk.
    ///
    /// # Errors
    /// `Io` and `Damaged`.
    pub fn read(&self) -> Result<Vec<(usize, Entry)>, LedgerError> {
        let mut found = Vec::new();
        for Place { position, id, run } in &self.places {
            found.extend(run.get(*id)?.map(|entry| (*position, entry)));
        }
        Ok(found)
    }
}

/// What is asked: it does not change, another takes its place.
struct View {
    /// Newest first.
    runs: Vec<Arc<Run>>,
    /// The first day from which on the ids of all events are there; none while they are not.
    complete_from: Option<Day>,
}

impl View {
    fn of(manifest: &Manifest, runs: Vec<Arc<Run>>) -> Arc<Self> {
        Arc::new(Self { runs, complete_from: manifest.is_complete.then_some(manifest.floor) })
    }
}

/// See the crate.
pub struct Ledger {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    settings: LedgerSettings,
    view: RwLock<Arc<View>>,
    /// What is on disk. Locked while that is changed.
    manifest: Mutex<Manifest>,
    /// Locked while runs are merged, which may take long: one merge at a time.
    merging: Mutex<()>,
    /// Entries of events before this day need not be kept.
    keep_from: Mutex<Day>,
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
            if run_of(&file.name).is_some_and(|id| !manifest.runs.contains(&id)) {
                let path = dir.join(file.name);
                disk.remove(&path).map_err(LedgerError::io(&path))?;
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
        for (position, entry) in self.candidates(asked).read()? {
            found[position] = Some(entry);
        }
        Ok(found)
    }

    /// Which of these ids memory does not rule out. All others are not there.
    pub fn candidates(&self, asked: &[Asked]) -> Candidates {
        let view = Arc::clone(&self.view.read());
        let mut places = Vec::new();
        for run in &view.runs {
            // Nothing is waited for within this loop, so that the processor reads many filters at once.
            let held = asked.iter().enumerate().filter(|(_, asked)| run.may_hold(asked));
            places.extend(held.map(|(position, asked)| Place { position, id: asked.id, run: Arc::clone(run) }));
        }
        Candidates { places, complete_from: view.complete_from }
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
        let mut writer = RunWriter::create(&*self.disk, &self.dir, new.expected, self.settings.key_check)?;
        for entry in new.entries {
            writer.push(entry)?;
        }
        let run = Arc::new(writer.finish(&*self.disk, &self.dir, new.id_times, new.has_untimed)?);
        let mut manifest = self.manifest.lock();
        let mut changed = manifest.clone();
        if run.tail.entries > 0 {
            changed.runs.insert(0, run.id);
        }
        changed.covered.retain(|segment| is_in_log(*segment));
        changed.covered.extend(new.covered);
        self.change(&mut manifest, changed, |runs| runs.insert(0, Arc::clone(&run)))?;
        Ok(())
    }

    /// Replaces the manifest, then the runs in memory by those that it names. `add` puts in those
    /// that are not there yet.
    fn change(
        &self,
        manifest: &mut Manifest,
        changed: Manifest,
        add: impl FnOnce(&mut Vec<Arc<Run>>),
    ) -> Result<(), LedgerError> {
        // An error says that the old or the new one is on disk. The next change replaces either, and
        // a start that finds the new one finds all of its files.
        changed.write(&*self.disk, &self.dir, self.settings.key_check)?;
        *manifest = changed;
        let mut all = self.view.read().runs.clone();
        add(&mut all);
        let by_id = |id: &Uuid| all.iter().find(|run| run.id == *id).cloned();
        let runs = manifest.runs.iter().filter_map(by_id).collect();
        *self.view.write() = View::of(manifest, runs);
        Ok(())
    }

    /// Whether all ids that were taken, of events from the floor's day on, are there.
    ///
    /// # Errors
    /// `Io`.
    pub fn mark_complete(&self, is_complete: bool) -> Result<(), LedgerError> {
        let mut manifest = self.manifest.lock();
        let changed = Manifest { is_complete, ..manifest.clone() };
        self.change(&mut manifest, changed, |_| {})
    }

    /// Events before this day have expired: their ids may go. Those of runs that hold nothing else go
    /// at once, others when their run is merged.
    ///
    /// # Errors
    /// `Io`.
    pub fn expire(&self, keep_from: Day) -> Result<(), LedgerError> {
        *self.keep_from.lock() = keep_from;
        let _merging = self.merging.lock();
        let gone: Vec<Arc<Run>> = {
            let view = self.view.read();
            view.runs.iter().filter(|run| run.last_day().is_none_or(|day| day < keep_from)).cloned().collect()
        };
        self.swap(&gone, None)
    }

    /// Does the next piece of background work: merges what is due, rewrites a run most of whose ids
    /// have expired, or lets the oldest days go when there are too many ids. Returns whether there was
    /// anything to do. It may take minutes; looking up and adding go on meanwhile.
    ///
    /// # Errors
    /// `Io` and `Damaged`. All is as it was before.
    pub fn maintain(&self) -> Result<bool, LedgerError> {
        let _merging = self.merging.lock();
        let keep_from = *self.keep_from.lock();
        let runs = &Arc::clone(&self.view.read()).runs;
        let sizes: Vec<u64> = runs.iter().map(|run| run.tail.entries).collect();
        if let Some(count) = merge::due(&sizes, self.settings.run_ids) {
            return self.rewrite(&runs[..count], keep_from).map(|()| true);
        }
        if let Some(floor) = self.floor_due(runs, keep_from) {
            return self.raise_floor(runs, floor).map(|()| true);
        }
        let is_mostly_expired = |run: &&Arc<Run>| run.entries_before(keep_from) * 2 > run.tail.entries;
        match runs.iter().find(is_mostly_expired) {
            Some(run) => self.rewrite(std::slice::from_ref(run), keep_from).map(|()| true),
            None => Ok(false),
        }
    }

    /// The day before which ids must be let go, when there are too many: a tenth more than that.
    fn floor_due(&self, runs: &[Arc<Run>], keep_from: Day) -> Option<Day> {
        let ids: u64 = runs.iter().map(|run| run.tail.entries).sum();
        let excess = ids.checked_sub(self.settings.ids_max).filter(|excess| *excess > 0)? + self.settings.ids_max / 10;
        let mut days = std::collections::BTreeMap::<Day, u64>::new();
        for (day, entries) in runs.iter().flat_map(|run| &run.tail.days) {
            *days.entry(*day).or_default() += entries;
        }
        let mut going = 0;
        for (day, entries) in days {
            going += entries;
            if going >= excess {
                return Some(keep_from.max(Day(day.0.saturating_add(1))));
            }
        }
        None
    }

    fn raise_floor(&self, runs: &[Arc<Run>], floor: Day) -> Result<(), LedgerError> {
        tracing::warn!(floor_day = floor.0, "the id ledger is full: ids of the oldest days are dropped");
        {
            // First what is said of them, then the ids.
            let mut manifest = self.manifest.lock();
            let changed = Manifest { floor: floor.max(manifest.floor), ..manifest.clone() };
            self.change(&mut manifest, changed, |_| {})?;
        }
        for run in runs.iter().filter(|run| run.entries_before(floor) > 0) {
            self.rewrite(std::slice::from_ref(run), floor)?;
        }
        Ok(())
    }

    /// Puts one run in the place of neighbours.
    fn rewrite(&self, runs: &[Arc<Run>], keep_from: Day) -> Result<(), LedgerError> {
        let merged = merge::merge(&*self.disk, &self.dir, runs, keep_from, self.settings.key_check)?;
        self.swap(runs, Some(Arc::new(merged)))
    }

    /// Takes runs away, and puts another in the place of the first.
    fn swap(&self, gone: &[Arc<Run>], merged: Option<Arc<Run>>) -> Result<(), LedgerError> {
        if gone.is_empty() {
            return Ok(());
        }
        let merged = merged.filter(|run| run.tail.entries > 0);
        let ids: HashSet<Uuid> = gone.iter().map(|run| run.id).collect();
        let mut manifest = self.manifest.lock();
        let mut changed = manifest.clone();
        let place = changed.runs.iter().position(|id| ids.contains(id)).unwrap_or(0);
        changed.runs.retain(|id| !ids.contains(id));
        changed.runs.splice(place..place, merged.iter().map(|run| run.id));
        self.change(&mut manifest, changed, |runs| runs.extend(merged))?;
        drop(manifest);
        for run in gone {
            // Whoever still reads it has it open. What cannot be removed, the next start removes.
            if let Err(error) = self.disk.remove(&run.path) {
                tracing::warn!(%error, path = %run.path.display(), "a merged run of the id ledger could not be removed");
            }
        }
        Ok(())
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
            oldest_day: runs.iter().filter_map(|run| run.tail.days.first_key_value()).map(|(day, _)| *day).min(),
        }
    }

    /// Ids of an ordinary new run.
    pub const fn run_ids(&self) -> u64 {
        self.settings.run_ids
    }
}
