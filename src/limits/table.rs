//! The windows of all subjects of a limit, in bounded memory.
//!
//! A subject without events for a window is removed. When the table is full of active subjects, new
//! subjects share windows: one for each organization and shard, so that all of them together may have as
//! much as a few dozen. Known subjects stay, no memory is added, and every limit stays in force. An
//! organization can fill only half of the table, so new subjects of other organizations have the other
//! half.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::window::{Slot, Window};

/// Locks of a table.
const SHARDS: usize = 64;
/// Shared windows in each shard.
const SHARED_WINDOWS: u64 = 64;
/// The part of the table that one owner can fill (as a divisor).
const SHARE: usize = 2;

/// The subject of a window. Both fields are keyed hashes, so callers cannot choose them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    /// The hash of the subject.
    pub(super) key: u64,
    /// The hash of its organization.
    pub(super) owner: u64,
}

/// A charge, for refunding it.
#[derive(Clone, Copy, Debug)]
pub(super) struct WindowCharge {
    subject: Subject,
    count: u32,
    slot: Slot,
    is_shared: bool,
}

struct Entry {
    owner: u64,
    window: Window,
}

#[derive(Default)]
struct Shard {
    entries: HashMap<u64, Entry>,
    /// How many entries an owner has.
    owned: HashMap<u64, usize>,
    crowds: HashMap<u64, Window>,
    swept_in: Slot,
}

/// Holds the windows of all subjects of one limit, in shards with a lock each. Its size is bounded;
/// subjects beyond the bound share windows.
pub(super) struct Table {
    shards: Box<[Mutex<Shard>]>,
    /// The allowance of a subject in a window.
    max: u32,
    /// Most entries of a shard, and most of one owner there.
    entries_max: usize,
    owned_max: usize,
}

impl Table {
    /// A table of subjects with owners (users of organizations), with this allowance.
    pub(super) fn of_owned(max: u32, subjects_max: usize) -> Self {
        let entries_max = (subjects_max / SHARDS).max(SHARE);
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, max, entries_max, owned_max: entries_max / SHARE }
    }

    /// A table of subjects without owners (organizations), with this allowance.
    pub(super) fn of_owners(max: u32, subjects_max: usize) -> Self {
        let table = Self::of_owned(max, subjects_max);
        Self { owned_max: table.entries_max, ..table }
    }

    /// Charges `count` if it fits.
    ///
    /// # Errors
    /// The first slot in which it will fit if nothing else is charged.
    pub(super) fn take(&self, subject: Subject, count: u32, now: Slot) -> Result<WindowCharge, Slot> {
        let mut shard = self.shard(subject).lock();
        let (is_shared, window) = shard.window(subject, self, now);
        let slot = window.take(count, self.max, now)?;
        Ok(WindowCharge { subject, count, slot, is_shared })
    }

    /// Refunds a charge.
    pub(super) fn refund(&self, taken: WindowCharge) {
        let mut shard = self.shard(taken.subject).lock();
        let window = if taken.is_shared {
            shard.crowds.get_mut(&shared_key(taken.subject.owner))
        } else {
            shard.entries.get_mut(&taken.subject.key).map(|entry| &mut entry.window)
        };
        if let Some(window) = window {
            window.refund(taken.count, taken.slot);
        }
    }

    /// The remaining allowance of a subject.
    pub(super) fn left(&self, subject: Subject, now: Slot) -> u32 {
        let mut shard = self.shard(subject).lock();
        shard.entries.get_mut(&subject.key).map_or(self.max, |entry| entry.window.left(self.max, now))
    }

    /// The number of subjects with a separate window.
    pub(super) fn subjects(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().entries.len()).sum()
    }

    #[allow(clippy::cast_possible_truncation, reason = "less than the number of shards")]
    fn shard(&self, subject: Subject) -> &Mutex<Shard> {
        &self.shards[(subject.key >> 32) as usize % SHARDS]
    }
}

impl Shard {
    /// A subject's window, separate or shared.
    fn window(&mut self, subject: Subject, table: &Table, now: Slot) -> (bool, &mut Window) {
        // Seldom enough that a flood of newcomers pays for one sweep a slot.
        let is_due = now > self.swept_in + u64::from(super::window::SLOTS);
        if is_due || now > self.swept_in && !self.has_room(subject, table) {
            self.sweep(now);
        }
        let has_room = self.has_room(subject, table);
        if !self.entries.contains_key(&subject.key) && !has_room {
            return (true, self.crowds.entry(shared_key(subject.owner)).or_default());
        }
        let entry = self.entries.entry(subject.key).or_insert_with(|| {
            *self.owned.entry(subject.owner).or_default() += 1;
            Entry { owner: subject.owner, window: Window::default() }
        });
        (false, &mut entry.window)
    }

    fn has_room(&self, subject: Subject, table: &Table) -> bool {
        let owned = self.owned.get(&subject.owner).copied().unwrap_or_default();
        self.entries.len() < table.entries_max && owned < table.owned_max
    }

    /// Removes subjects without charges in the window.
    fn sweep(&mut self, now: Slot) {
        let owned = &mut self.owned;
        self.entries.retain(|_, entry| {
            let stays = !entry.window.is_empty(now);
            if !stays && let Some(count) = owned.get_mut(&entry.owner) {
                *count -= 1;
            }
            stays
        });
        owned.retain(|_, count| *count > 0);
        self.crowds.retain(|_, window| !window.is_empty(now));
        self.entries.shrink_to(2 * self.entries.len());
        self.swept_in = now;
    }
}

/// The shared window of an owner.
const fn shared_key(owner: u64) -> u64 {
    owner % SHARED_WINDOWS
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: Subject = Subject { key: 7, owner: 1 };

    /// So many subjects of one shard.
    fn others(owner: u64, count: u64) -> impl Iterator<Item = Subject> {
        (100..100 + count).map(move |key| Subject { key: key + owner * 10_000, owner })
    }

    #[test]
    fn a_flood_of_newcomers_neither_frees_nor_binds_those_who_were_there() {
        let table = Table::of_owned(2, 8 * SHARDS);
        table.take(ANN, 2, 1).expect("room");
        let taken = others(2, 1_000).filter(|subject| table.take(*subject, 1, 1).is_ok()).count();
        // Four windows of their own, and two in the one they share.
        assert_eq!(taken, 4 + 2);
        assert!(table.subjects() <= 5);
        assert!(table.take(ANN, 1, 1).is_err(), "ann is still bound");
        let newcomer = Subject { key: 8, owner: 3 };
        assert!(table.take(newcomer, 2, 1).is_ok(), "another organization's newcomer has room");
        assert!(table.take(newcomer, 1, 1).is_err());
    }

    #[test]
    fn who_has_taken_nothing_for_a_window_is_forgotten() {
        let table = Table::of_owned(2, 8 * SHARDS);
        for subject in others(2, 4) {
            table.take(subject, 1, 1).expect("room");
        }
        assert_eq!(table.subjects(), 4);
        table.take(ANN, 1, 20).expect("room");
        assert_eq!(table.subjects(), 1);
        assert_eq!((table.left(ANN, 20), table.left(ANN, 40)), (1, 2));
    }

    #[test]
    fn what_is_given_back_is_free_also_in_a_shared_window() {
        let table = Table::of_owned(2, 4 * SHARDS);
        let all: Vec<Subject> = others(2, 5).collect();
        let taken: Vec<WindowCharge> =
            all.iter().map(|subject| table.take(*subject, 1, 1).expect("room")).take(4).collect();
        assert!(table.take(all[4], 1, 1).is_err(), "the shared window is full");
        table.refund(taken[3]);
        assert!(table.take(all[4], 1, 1).is_ok());
    }

    #[test]
    fn threads_together_take_no_more_than_is_allowed() {
        let table = Table::of_owned(1_000, 100);
        let taken: u32 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let mut kept = 0;
                        for turn in 0..1_000 {
                            match table.take(ANN, 1, 1) {
                                Ok(taken) if turn % 3 == 0 => table.refund(taken),
                                Ok(_) => kept += 1,
                                Err(_) => {}
                            }
                        }
                        kept
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("a thread")).sum()
        });
        assert!(taken <= 1_000, "{taken}");
        assert_eq!(table.left(ANN, 1), 1_000 - taken);
    }
}
