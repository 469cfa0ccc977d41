//! The sliding window of one subject.
//!
//! The window is divided into slots, each with a count. A count is charged until its whole slot has left
//! the window, so that no window of that length ever exceeds the limit, wherever it begins. An event is
//! charged for one window and at most one slot more.

/// Slots of a window: a charge counts for at most an eighth of the window too long.
pub(super) const SLOTS: u32 = 8;
/// Slots that are counted: those of a window, and the one it partly covers.
const COUNTED: usize = SLOTS as usize + 1;

/// The number of a slot, from the start of the service.
pub(super) type Slot = u64;

/// Counts what one subject has used in a sliding window of slots. No window of the configured
/// length ever holds more than the limit. 48 bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Window {
    counts: [u32; COUNTED],
    /// The last slot that is counted.
    newest: Slot,
}

impl Window {
    /// Charges `count` if it fits, and returns the slot.
    ///
    /// # Errors
    /// The first slot in which it will fit if nothing else is charged. (`count` must not be more
    /// than `max`.)
    pub(super) fn take(&mut self, count: u32, max: u32, now: Slot) -> Result<Slot, Slot> {
        self.move_on(now);
        let taken = self.taken();
        if taken + u64::from(count) <= u64::from(max) {
            self.counts[place(self.newest)] += count;
            return Ok(self.newest);
        }
        let mut too_many = taken + u64::from(count) - u64::from(max);
        for slot in self.newest.saturating_sub(COUNTED as u64 - 1)..=self.newest {
            let leaves = u64::from(self.counts[place(slot)]);
            if leaves >= too_many {
                return Err(slot + COUNTED as u64);
            }
            too_many -= leaves;
        }
        Err(self.newest + COUNTED as u64)
    }

    /// Refunds a charge in a slot.
    pub(super) fn refund(&mut self, count: u32, slot: Slot) {
        if slot <= self.newest && self.newest - slot < COUNTED as u64 {
            let counted = &mut self.counts[place(slot)];
            *counted = counted.saturating_sub(count);
        }
    }

    /// The remaining allowance.
    pub(super) fn left(&mut self, max: u32, now: Slot) -> u32 {
        self.move_on(now);
        u32::try_from(u64::from(max).saturating_sub(self.taken())).unwrap_or(max)
    }

    /// Whether nothing is counted any more.
    pub(super) fn is_empty(&self, now: Slot) -> bool {
        now >= self.newest + COUNTED as u64 || self.taken() == 0
    }

    fn taken(&self) -> u64 {
        self.counts.iter().map(|count| u64::from(*count)).sum()
    }

    /// Removes slots that have left the window. (Threads may arrive in another order than they read
    /// the time, so the slot never goes back.)
    fn move_on(&mut self, now: Slot) {
        if now >= self.newest + COUNTED as u64 {
            self.counts = [0; COUNTED];
        } else {
            for slot in self.newest + 1..=now {
                self.counts[place(slot)] = 0;
            }
        }
        self.newest = self.newest.max(now);
    }
}

#[allow(clippy::cast_possible_truncation, reason = "less than COUNTED")]
const fn place(slot: Slot) -> usize {
    (slot % COUNTED as u64) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every taking with its exact time: a slot is `TICKS` long.
    #[derive(Default)]
    struct SlidingLog(Vec<(u64, u32)>);

    const TICKS: u64 = 10;
    const WINDOW_TICKS: u64 = TICKS * SLOTS as u64;

    impl SlidingLog {
        /// How many were taken in the last `ticks`.
        fn taken(&self, now: u64, ticks: u64) -> u64 {
            let within = self.0.iter().filter(|(at, _)| at + ticks > now);
            within.map(|(_, count)| u64::from(*count)).sum()
        }
    }

    proptest! {
        /// The bound itself is exact. What is refused beyond it would have been
        /// refused by a window that is one slot longer.
        #[test]
        fn it_never_allows_more_and_errs_by_one_slot(
            steps in prop::collection::vec((0..25_u64, 1..8_u32, any::<bool>()), 1..200), max in 8..30_u32,
        ) {
            let (mut window, mut log, mut now) = (Window::default(), SlidingLog::default(), 0);
            for (wait, count, is_given_back) in steps {
                now += wait;
                let (before, longer) = (log.taken(now, WINDOW_TICKS), log.taken(now, WINDOW_TICKS + TICKS));
                match window.take(count, max, now / TICKS) {
                    Ok(slot) => {
                        prop_assert!(before + u64::from(count) <= u64::from(max), "{before} + {count} of {max}");
                        if is_given_back {
                            window.refund(count, slot);
                        } else {
                            log.0.push((now, count));
                        }
                    }
                    Err(free_in) => {
                        prop_assert!(longer + u64::from(count) > u64::from(max), "{longer} + {count} of {max}");
                        prop_assert!(free_in > now / TICKS);
                        let (mut then, mut sooner) = (window, window);
                        prop_assert!(sooner.take(count, max, free_in - 1).is_err(), "it was free sooner");
                        prop_assert!(then.take(count, max, free_in).is_ok(), "it was not free then");
                    }
                }
            }
        }

        #[test]
        fn what_is_left_can_be_taken_and_no_more(
            steps in prop::collection::vec((0..5_u64, 0..9_u32), 0..50), max in 10..40_u32,
        ) {
            let (mut window, mut now) = (Window::default(), 0);
            for (wait, count) in steps {
                now += wait;
                let _ = window.take(count, max, now);
            }
            let left = window.left(max, now);
            prop_assert!(window.clone().take(left + 1, max, now).is_err());
            prop_assert!(window.take(left, max, now).is_ok());
        }
    }

    #[test]
    fn a_slot_that_has_passed_is_not_given_back_into_another() {
        let mut window = Window::default();
        let slot = window.take(5, 5, 3).expect("room");
        assert_eq!(window.take(5, 5, 3 + COUNTED as u64), Ok(3 + COUNTED as u64));
        window.refund(5, slot);
        assert_eq!(window.left(5, 3 + COUNTED as u64), 0);
        assert!(!window.is_empty(4));
        assert!(window.is_empty(3 + 2 * COUNTED as u64));
    }
}
