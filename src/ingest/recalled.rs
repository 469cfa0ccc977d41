//! Which minutes below the index's floor are in memory again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::RwLock;

use super::mark::Minute;

/// Minutes below the floor of which memory holds every id, or will in a
/// moment. Late events come in runs (a producer that was cut off for a day, a
/// history that is filled in), so what one of them needs the next ones need
/// too.
#[derive(Default)]
pub(super) struct Recalled {
    minutes: RwLock<HashMap<Minute, State>>,
    /// How many they are: usually none, and then nobody needs to look.
    len: AtomicUsize,
    /// Counts questions, so that it is known which minute was asked about
    /// last.
    asked: AtomicU64,
}

#[derive(Default)]
struct State {
    /// Every id is there. Until then ids of the minute are kept, but one that
    /// is not found may still be stored.
    is_complete: AtomicBool,
    asked_last: AtomicU64,
}

impl Recalled {
    /// From now on no id of these minutes may be let go.
    pub(super) fn begin(&self, minutes: &[Minute]) {
        let mut states = self.minutes.write();
        for minute in minutes {
            let asked_last = AtomicU64::new(self.asked.load(Ordering::Relaxed));
            states.entry(*minute).or_insert_with(|| State { asked_last, ..State::default() });
        }
        self.len.store(states.len(), Ordering::Release);
    }

    /// All ids of these minutes are there now.
    pub(super) fn complete(&self, minutes: &[Minute]) {
        let states = self.minutes.read();
        for state in minutes.iter().filter_map(|minute| states.get(minute)) {
            state.is_complete.store(true, Ordering::Release);
        }
    }

    /// From now on ids of these minutes may be let go.
    pub(super) fn forget(&self, minutes: &[Minute]) {
        let mut states = self.minutes.write();
        for minute in minutes {
            states.remove(minute);
        }
        self.len.store(states.len(), Ordering::Release);
    }

    /// Whether an id of this minute that is not found is new.
    pub(super) fn is_complete(&self, minute: Minute) -> bool {
        if self.is_empty() {
            return false;
        }
        let states = self.minutes.read();
        let Some(state) = states.get(&minute) else { return false };
        state.asked_last.store(self.asked.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        state.is_complete.load(Ordering::Acquire)
    }

    /// Whether ids of this minute must be kept.
    pub(super) fn keeps(&self, minute: Minute) -> bool {
        !self.is_empty() && self.minutes.read().contains_key(&minute)
    }

    /// The complete ones, those first that nobody has asked about for longest.
    pub(super) fn idle_longest_first(&self) -> Vec<Minute> {
        let states = self.minutes.read();
        let complete = states.iter().filter(|(_, state)| state.is_complete.load(Ordering::Acquire));
        let mut minutes: Vec<_> =
            complete.map(|(minute, state)| (state.asked_last.load(Ordering::Relaxed), *minute)).collect();
        minutes.sort_unstable();
        minutes.into_iter().map(|(_, minute)| minute).collect()
    }

    fn is_empty(&self) -> bool {
        self.len.load(Ordering::Acquire) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_is_kept_from_its_beginning_and_complete_at_its_end() {
        let recalled = Recalled::default();
        let minutes = [Minute(1), Minute(2), Minute(3)];
        recalled.begin(&minutes);
        assert!(recalled.keeps(Minute(1)) && !recalled.is_complete(Minute(1)));
        assert!(recalled.idle_longest_first().is_empty(), "what is not complete must stay");
        recalled.complete(&minutes);
        assert!(recalled.is_complete(Minute(2)) && recalled.is_complete(Minute(1)));
        assert_eq!(recalled.idle_longest_first().last(), Some(&Minute(1)));
        recalled.forget(&[Minute(1)]);
        assert!(!recalled.keeps(Minute(1)) && !recalled.is_complete(Minute(1)) && recalled.is_complete(Minute(3)));
    }
}
