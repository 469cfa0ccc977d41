//! Merging runs, and letting ids go: those of expired events, and the oldest ones when there are too many.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::entry::{Day, Fingerprint};
use super::error::LedgerError;
use super::ledger::Ledger;
use super::merge;
use super::run::Run;

impl Ledger {
    /// Events before this day have expired: their ids may go, and the floor rises. Those of runs that hold nothing
    /// else go at once, others when their run is merged.
    ///
    /// # Errors
    /// `Io`.
    pub fn expire(&self, keep_from: Day) -> Result<(), LedgerError> {
        // First what is said of them, then the ids.
        self.set_floor(keep_from)?;
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
        if runs.iter().any(|run| run.is_damaged()) {
            return Ok(false); // It can be neither merged nor rewritten before it is repaired.
        }
        let sizes: Vec<u64> = runs.iter().map(|run| run.tail.entries).collect();
        if let Some(count) = merge::due(&sizes, self.settings.run_ids) {
            return self.rewrite(&runs[..count], |entry| entry.day >= keep_from).map(|()| true);
        }
        if let Some(floor) = self.floor_due(runs, keep_from) {
            return self.raise_floor(runs, floor).map(|()| true);
        }
        if self.drop_what_was_noted(runs)? {
            return Ok(true);
        }
        let is_mostly_expired = |run: &&Arc<Run>| run.entries_before(keep_from) * 2 > run.tail.entries;
        match runs.iter().find(is_mostly_expired) {
            Some(run) => self.rewrite(std::slice::from_ref(run), |entry| entry.day >= keep_from).map(|()| true),
            None => Ok(false),
        }
    }

    /// The day before which ids must be let go, when there are too many: a tenth more than that.
    fn floor_due(&self, runs: &[Arc<Run>], keep_from: Day) -> Option<Day> {
        let ids: u64 = runs.iter().map(|run| run.tail.entries).sum();
        let excess = ids.checked_sub(self.settings.ids_max).filter(|excess| *excess > 0)? + self.settings.ids_max / 10;
        let mut days = BTreeMap::<Day, u64>::new();
        for (day, entries) in runs.iter().flat_map(|run| &run.tail.days) {
            *days.entry(*day).or_default() += entries;
        }
        let mut going = 0;
        // The newest day stays whatever it holds: else every new event would have to be looked up.
        let newest = days.last_key_value().map(|(day, _)| *day)?;
        for (day, entries) in days {
            going += entries;
            if going >= excess || day == newest {
                let floor = keep_from.max(Day(day.0.saturating_add(1)).min(newest));
                return (floor > self.manifest.lock().floor).then_some(floor);
            }
        }
        None
    }

    fn raise_floor(&self, runs: &[Arc<Run>], floor: Day) -> Result<(), LedgerError> {
        tracing::warn!(floor_day = floor.0, "the id ledger is full: ids of the oldest days are dropped");
        // First what is said of them, then the ids.
        self.set_floor(floor)?;
        // Below the floor ClickHouse is asked. It does not know these yet.
        let noted = self.noted_ids()?;
        for run in runs.iter().filter(|run| run.entries_before(floor) > 0) {
            self.rewrite(std::slice::from_ref(run), |entry| entry.day >= floor || noted.contains(&entry.id))?;
        }
        Ok(())
    }

    /// Drops ids below the floor that stayed because their segments had notes, once no segment has any.
    fn drop_what_was_noted(&self, runs: &[Arc<Run>]) -> Result<bool, LedgerError> {
        let floor = self.manifest.lock().floor;
        let ids: u64 = runs.iter().map(|run| run.tail.entries).sum();
        let is_below = |run: &&Arc<Run>| run.entries_before(floor) > 0;
        if ids <= self.settings.ids_max || !runs.iter().any(|run| is_below(&run)) || !self.noted_segments()?.is_empty()
        {
            return Ok(false);
        }
        for run in runs.iter().filter(is_below) {
            self.rewrite(std::slice::from_ref(run), |entry| entry.day >= floor)?;
        }
        Ok(true)
    }

    /// The ids of all segments that have notes.
    fn noted_ids(&self) -> Result<HashSet<Fingerprint>, LedgerError> {
        let mut ids = HashSet::new();
        for segment in self.noted_segments()? {
            ids.extend(self.segment_note(segment)?.into_iter().flat_map(|note| note.ids).map(|(id, _)| id));
        }
        Ok(ids)
    }
}
