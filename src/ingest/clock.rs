//! The order of arrival.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::domain::Timestamp;

/// A clock that never goes back, and gives every event its own place in the
/// order of arrival: a number that is the time in microseconds since
/// 1970-01-01T00:00:00Z, moved on where it must be to stay unique and rising.
///
/// When the system's clock is set back, this one waits for it. (A hybrid
/// logical clock, as in Kulkarni et al., "Logical Physical Clocks", 2014, with
/// its counter folded into the microseconds.)
#[derive(Debug, Default)]
pub struct ArrivalClock {
    last: AtomicU64,
}

impl ArrivalClock {
    /// A clock that starts after the given arrival: the last one that a former
    /// run gave out, as far as is known.
    pub const fn after(last: u64) -> Self {
        Self { last: AtomicU64::new(last) }
    }

    /// Takes so many arrivals in a row, and returns the first.
    pub fn arrivals(&self, count: u64) -> u64 {
        let now = system_micros();
        let before = self
            .last
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |last| Some(last.max(now) + count))
            .unwrap_or_else(|last| last); // The closure always gives a value.
        before.max(now) + 1
    }

    /// Now, in microseconds since 1970-01-01T00:00:00Z; not before any arrival
    /// given out so far.
    pub fn micros(&self) -> u64 {
        self.last.load(Ordering::Acquire).max(system_micros())
    }

    /// Now, to the millisecond.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_millis(i64::try_from(self.micros() / 1_000).unwrap_or(i64::MAX))
    }
}

fn system_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_rise_also_when_the_clock_was_set_back() {
        let ahead = system_micros() + 3_600_000_000;
        let clock = ArrivalClock::after(ahead);
        assert_eq!(clock.arrivals(10), ahead + 1);
        assert_eq!(clock.arrivals(1), ahead + 11);
        assert!(clock.micros() >= ahead + 11);
    }

    #[test]
    fn arrivals_are_near_the_time() {
        let clock = ArrivalClock::default();
        let before = system_micros();
        let arrival = clock.arrivals(1);
        assert!((before..before + 60_000_000).contains(&arrival));
    }
}
