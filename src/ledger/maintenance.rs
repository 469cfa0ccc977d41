//! Merging runs, and letting ids go: those of expired events, and the oldest ones when there are too many.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::entry::Day;
use super::error::LedgerError;
use super::ledger::Ledger;
use super::merge;
use super::noted_ids::{NOTED_IDS_AT_A_TIME, NotedIds};
use super::run::Run;

impl Ledger {
    /// Says which day it is. However many ids there are, those of events from this day on stay: producers may be ahead,
    /// and the ids of one event of tomorrow must not take the place of all of today's. Until it has been said, the
    /// floor rises with [`Ledger::expire`] alone.
    pub fn set_today(&self, today: Day) {
        *self.today.lock() = Some(today);
    }

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
    /// have expired, or lets ids go when there are too many. Returns whether there was
    /// anything to do. It may take minutes; looking up and adding go on meanwhile.
    ///
    /// # Errors
    /// `Io` and `Damaged`. Nothing that must be kept is gone then.
    pub fn maintain(&self) -> Result<bool, LedgerError> {
        let _merging = self.merging.lock();
        let keep_from = *self.keep_from.lock();
        let runs = &Arc::clone(&self.view.read()).runs;
        if runs.iter().any(|run| run.is_damaged()) {
            return Ok(false); // It can be neither merged nor rewritten before it is repaired.
        }
        let sizes: Vec<u64> = runs.iter().map(|run| run.tail.entries).collect();
        let is_mostly_expired = |run: &&Arc<Run>| run.entries_before(keep_from) * 2 > run.tail.entries;
        let due = match merge::due(&sizes, self.settings.run_ids) {
            Some(count) => &runs[..count],
            None => runs.iter().find(is_mostly_expired).map_or(&[][..], std::slice::from_ref),
        };
        if due.is_empty() {
            return self.keep_to_bound(runs);
        }
        self.rewrite(due, |entry| Ok(entry.day >= keep_from))?;
        Ok(true)
    }

    /// Lets ids go when there are more than `ids_max`: first those that are below the floor already, then repeated ones,
    /// and then those of the oldest days, for which the floor rises. A tenth of `ids_max` is what is worth the work: each
    /// of these steps writes all runs anew.
    fn keep_to_bound(&self, runs: &[Arc<Run>]) -> Result<bool, LedgerError> {
        let ids: u64 = runs.iter().map(|run| run.tail.entries).sum();
        let Some(excess) = ids.checked_sub(self.settings.ids_max).filter(|excess| *excess > 0) else {
            return Ok(false);
        };
        let (floor, tenth) = (self.manifest.lock().floor, (self.settings.ids_max / 10).max(1));
        if self.can_go_below(floor, runs)? >= tenth {
            self.rewrite_from(floor, runs, &mut self.noted_ids()?)?;
            return Ok(true);
        }
        let Some(raised) = self.floor_due(floor, runs, excess + tenth) else { return Ok(false) };
        // An id can be in two runs, when it was read from ClickHouse again. At least as many ids as the largest run has
        // are different ones.
        let different = runs.iter().map(|run| run.tail.entries).max().unwrap_or_default();
        let mut noted = self.noted_ids()?;
        if different <= self.settings.ids_max && ids - different > tenth {
            self.rewrite_from(floor, runs, &mut noted)?;
            return Ok(true);
        }
        tracing::warn!(floor_day = raised.0, "the id ledger is full: ids of the oldest days are dropped");
        // First what is said of them, then the ids.
        self.set_floor(raised)?;
        self.rewrite_from(raised, runs, &mut noted)?;
        Ok(true)
    }

    /// How many ids before the floor there are at least that no note has.
    fn can_go_below(&self, floor: Day, runs: &[Arc<Run>]) -> Result<u64, LedgerError> {
        let below: u64 = runs.iter().map(|run| run.entries_before(floor)).sum();
        if below == 0 {
            return Ok(0);
        }
        let noted: u64 = self.note_sizes()?.into_iter().map(|(_, ids)| ids).sum();
        Ok(below.saturating_sub(noted))
    }

    /// The day that the floor must rise to so that so many ids go, or as many as may; none when it stays. Those of today
    /// and of the newest day stay whatever they are: else every new event would have to be looked up. And half of
    /// `ids_max` stay: else, with many ids a day, those of the last seconds of a day would go as the next one begins.
    fn floor_due(&self, floor: Day, runs: &[Arc<Run>], excess: u64) -> Option<Day> {
        let mut days = BTreeMap::<Day, u64>::new();
        for (day, entries) in runs.iter().flat_map(|run| &run.tail.days) {
            *days.entry(*day).or_default() += entries;
        }
        let newest = days.last_key_value().map(|(day, _)| *day)?;
        let staying_from = newest.min((*self.today.lock())?);
        let mut staying: u64 = days.values().sum();
        let (goal, mut raised) = (staying.saturating_sub(excess), floor);
        for (day, entries) in days.range(..staying_from) {
            staying -= entries;
            if staying < self.settings.ids_max / 2 {
                break;
            }
            raised = Day(day.0.saturating_add(1));
            if staying <= goal {
                break;
            }
        }
        (raised > floor).then_some(raised)
    }

    /// Writes one run in the place of all, without the ids before a day. ClickHouse is asked for these, and does not know
    /// those of noted segments yet: they stay.
    fn rewrite_from(&self, day: Day, runs: &[Arc<Run>], noted: &mut NotedIds<'_>) -> Result<(), LedgerError> {
        self.rewrite(runs, |entry| Ok(entry.day >= day || noted.contains(entry.id)?))
    }

    fn noted_ids(&self) -> Result<NotedIds<'_>, LedgerError> {
        NotedIds::read(&*self.disk, &self.dir, self.settings.key_check, NOTED_IDS_AT_A_TIME)
    }
}
