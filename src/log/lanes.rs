//! The lanes of the log: segments of few days, and segments of many.
//!
//! ClickHouse writes and syncs a part for every day that an insert has events of. An insert of a few days takes a
//! fraction of a second, one of hundreds of days takes many seconds. So the log has two open segments. The one of the
//! *main* lane takes batches until it has [`OLD_DAYS_MAX`] days that are not recent; batches with further days go to the
//! one of the *scattered* lane. The forwarder inserts the segments of each lane apart from the other's, so that the events
//! of the main lane never wait for a scattered insert. While one runs, the next segment of its lane grows: the more
//! events come, the more of them share the parts of a day.
//!
//! A batch is never split, so that it is durable as a whole or not at all.

use std::collections::BTreeSet;

/// A day, as days since 1970 in UTC.
pub type DayNumber = u32;

/// Days that are not recent, in a segment of the main lane, at most. One part of a day takes ClickHouse about 12 ms.
const OLD_DAYS_MAX: usize = 16;
/// Inserts of the scattered lane under way at a time.
pub const SCATTERED_INSERTS_MAX: usize = 1;
/// Days before that on which a segment was opened, and after it, that are recent. Producers' clocks differ.
const RECENT_DAYS_BEFORE: DayNumber = 2;
const RECENT_DAYS_AFTER: DayNumber = 1;

const MICROS_PER_DAY: u64 = 24 * 60 * 60 * 1_000_000;

/// The lane of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Its events are recent, or of few days.
    Main,
    /// Its events are of many days.
    Scattered,
    /// A former run has left it. It counts as one of the main lane until [`super::EventLog::move_to_scattered`] is called.
    Unknown,
}

impl Lane {
    /// Those that are written to. What the first turns out not to take is handed on to the next.
    pub const WRITTEN: [Self; 2] = [Self::Main, Self::Scattered];

    /// The lane that the segment waits in.
    #[must_use]
    pub const fn waits_in(self) -> Self {
        match self {
            Self::Main | Self::Unknown => Self::Main,
            Self::Scattered => Self::Scattered,
        }
    }
}

/// The days of a segment that are not recent, 16 at most.
#[derive(Debug)]
pub struct OldDays {
    opened_on: DayNumber,
    days: BTreeSet<DayNumber>,
}

impl OldDays {
    /// None, of a segment that is opened at this time, in microseconds since 1970.
    #[must_use]
    pub fn of_segment(opened_at_micros: u64) -> Self {
        let opened_on = DayNumber::try_from(opened_at_micros / MICROS_PER_DAY).unwrap_or(DayNumber::MAX);
        Self { opened_on, days: BTreeSet::new() }
    }

    /// Adds the days of a batch, or none of them if there would be too many. Returns whether they were added.
    pub fn admit(&mut self, days: &[DayNumber]) -> bool {
        let recent =
            self.opened_on.saturating_sub(RECENT_DAYS_BEFORE)..=self.opened_on.saturating_add(RECENT_DAYS_AFTER);
        let new = |day: &&DayNumber| !recent.contains(day) && !self.days.contains(day);
        let new: BTreeSet<DayNumber> = days.iter().filter(new).copied().collect();
        let has_room = self.days.len() + new.len() <= OLD_DAYS_MAX;
        if has_room {
            self.days.extend(new);
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_days_are_always_admitted_and_others_up_to_the_bound() {
        let mut days = OldDays::of_segment(20_000 * MICROS_PER_DAY + 7);
        let bound = DayNumber::try_from(OLD_DAYS_MAX).unwrap();
        assert!(days.admit(&[20_000]));
        assert!(!days.admit(&(0..=bound).collect::<Vec<_>>()), "too many at once");
        assert!(days.admit(&(0..bound).collect::<Vec<_>>()), "none of the refused ones was added");
        assert!(days.admit(&[3, 19_998, 19_999, 20_000, 20_001, 7]));
        for another in [bound, 19_997, 20_002, DayNumber::MAX] {
            assert!(!days.admit(&[20_000, another]), "{another}");
        }
    }

    #[test]
    fn any_time_has_a_day() {
        assert!(OldDays::of_segment(0).admit(&[0, 1, DayNumber::MAX]));
        assert!(OldDays::of_segment(u64::MAX).admit(&[0]));
    }
}
