//! Which readings of the wall clock are believed.
//!
//! The wall clock says what time it is; the monotonic clock says how long ago a reading was. Two readings
//! that disagree by more than a bound show a jump, and nothing in the process tells which side of it is
//! right. Until that is known, time goes on from the last believed reading at the pace of the monotonic
//! clock, and whoever would refuse or forget something by the time must not.
//!
//! A jump ends when the wall clock is back where it was, or when it has kept the pace of the monotonic clock
//! for long enough. After the latter, the time from before the jump is still known: a wrong jump that was put
//! right late is believed at once.

use std::time::Duration;

/// 2026-01-01T00:00:00Z, in microseconds since 1970: before the first release, so no clock that is right
/// shows less. One that has lost its battery does.
const EARLIEST_MICROS: i64 = 1_767_225_600_000_000;

/// The bounds of what is believed. See the settings of the same names in [`crate::config::Config`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockBounds {
    /// How far two readings may disagree with the monotonic clock.
    pub step_max: Duration,
    /// How long the wall clock must keep its pace after a larger step.
    pub confirm_after: Duration,
}

impl Default for ClockBounds {
    fn default() -> Self {
        Self { step_max: Duration::from_secs(120), confirm_after: Duration::from_secs(300) }
    }
}

/// Why the wall clock is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClockDoubt {
    /// It has jumped.
    #[error(
        "the service's clock has jumped by {} seconds, more than clock_step_seconds_max ({}): it is believed again when \
         it is put right, or has kept its pace for {} seconds (clock_confirm_seconds)",
        micros / 1_000_000, bounds.step_max.as_secs(), bounds.confirm_after.as_secs()
    )]
    Jumped {
        /// How far it has gone ahead of the believed time; less than 0: behind.
        micros: i64,
        /// The bounds.
        bounds: ClockBounds,
    },
    /// It shows a time from before the first release.
    #[error("the service's clock shows a time before 2026: it is believed again when it is put right")]
    TooEarly,
}

/// The wall clock and the monotonic clock, read at one moment, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    /// Since 1970-01-01T00:00:00Z.
    pub(super) wall: i64,
    /// Since some moment of the past.
    pub(super) monotonic: i64,
}

/// What a reading comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Judged {
    /// The believed time, in microseconds since 1970.
    pub(super) now: i64,
    /// Why it is not the wall clock's.
    pub(super) doubt: Option<ClockDoubt>,
}

/// Judges readings of the wall clock by the monotonic clock. Offsets are the wall clock minus the
/// monotonic clock, in microseconds.
#[derive(Debug)]
pub(super) struct TrustedTime {
    bounds: ClockBounds,
    offset: i64,
    /// From before the last jump that was confirmed.
    previous: Option<i64>,
    suspect: Option<Suspect>,
    /// The latest time told: small steps back make it stand still.
    told: i64,
}

/// An offset that may be confirmed.
#[derive(Clone, Copy, Debug)]
struct Suspect {
    offset: i64,
    /// When it was first seen, by the monotonic clock.
    since: i64,
}

impl TrustedTime {
    /// Believes the first reading.
    pub(super) fn new(bounds: ClockBounds, first: Reading) -> Self {
        let offset = first.wall.saturating_sub(first.monotonic);
        Self { bounds, offset, previous: None, suspect: None, told: i64::MIN }
    }

    /// Takes a reading in. Readings must come in the order of the monotonic clock.
    pub(super) fn read(&mut self, reading: Reading) -> Judged {
        let offset = reading.wall.saturating_sub(reading.monotonic);
        if reading.wall < EARLIEST_MICROS {
            self.suspect = None;
            return self.judged(reading, Some(ClockDoubt::TooEarly));
        }
        // A service that was started with a clock that had lost the time has nothing to keep to.
        let was_too_early = self.offset.saturating_add(reading.monotonic) < EARLIEST_MICROS;
        if was_too_early || self.is_near(offset, self.offset) {
            self.believe(offset, false);
        } else if self.previous.is_some_and(|previous| self.is_near(offset, previous)) || self.is_confirmed(reading) {
            self.believe(offset, true);
        }
        let doubt = self
            .suspect
            .map(|_| ClockDoubt::Jumped { micros: offset.saturating_sub(self.offset), bounds: self.bounds });
        self.judged(reading, doubt)
    }

    fn is_near(&self, one: i64, other: i64) -> bool {
        u128::from(one.abs_diff(other)) <= self.bounds.step_max.as_micros()
    }

    /// Whether a suspect offset has kept its pace for long enough. Remembers it otherwise.
    fn is_confirmed(&mut self, reading: Reading) -> bool {
        let offset = reading.wall.saturating_sub(reading.monotonic);
        let known = self.suspect.filter(|suspect| self.is_near(offset, suspect.offset));
        let suspect = known.unwrap_or(Suspect { offset, since: reading.monotonic });
        self.suspect = Some(suspect);
        u128::from(reading.monotonic.abs_diff(suspect.since)) >= self.bounds.confirm_after.as_micros()
    }

    fn believe(&mut self, offset: i64, jumps: bool) {
        if jumps {
            self.previous = Some(self.offset);
            self.told = i64::MIN;
        }
        self.offset = offset;
        self.suspect = None;
    }

    fn judged(&mut self, reading: Reading, doubt: Option<ClockDoubt>) -> Judged {
        self.told = self.told.max(self.offset.saturating_add(reading.monotonic));
        Judged { now: self.told, doubt }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: i64 = 1_000_000;
    const DAY: i64 = 86_400 * SECOND;
    const START: i64 = EARLIEST_MICROS + 400 * DAY;

    /// A machine whose wall clock can be set.
    struct Machine {
        trusted: TrustedTime,
        monotonic: i64,
        /// How far the wall clock is off.
        error: i64,
    }

    impl Machine {
        fn new() -> Self {
            let first = Reading { wall: START, monotonic: 0 };
            Self { trusted: TrustedTime::new(ClockBounds::default(), first), monotonic: 0, error: 0 }
        }

        fn truth(&self) -> i64 {
            START + self.monotonic
        }

        fn after(&mut self, seconds: i64) -> Judged {
            self.monotonic += seconds * SECOND;
            let reading = Reading { wall: self.truth() + self.error, monotonic: self.monotonic };
            self.trusted.read(reading)
        }
    }

    #[test]
    fn a_jump_is_doubted_and_time_goes_on_until_it_is_put_right() {
        for jump in [800 * DAY, -300 * DAY, 121 * SECOND, -121 * SECOND] {
            let mut machine = Machine::new();
            assert_eq!(machine.after(10), Judged { now: machine.truth(), doubt: None });
            machine.error = jump;
            for _ in 0..20 {
                let judged = machine.after(10);
                assert_eq!(judged.now, machine.truth(), "{jump}");
                assert_eq!(
                    judged.doubt,
                    Some(ClockDoubt::Jumped { micros: jump, bounds: ClockBounds::default() }),
                    "{jump}"
                );
            }
            machine.error = 0;
            assert_eq!(machine.after(1), Judged { now: machine.truth(), doubt: None }, "{jump}");
        }
    }

    #[test]
    fn a_clock_that_keeps_its_pace_is_confirmed_and_the_time_before_is_believed_at_once() {
        let mut machine = Machine::new();
        machine.error = 800 * DAY;
        assert!(machine.after(1).doubt.is_some());
        assert!(machine.after(299).doubt.is_some());
        let confirmed = machine.after(1);
        assert_eq!(confirmed, Judged { now: machine.truth() + 800 * DAY, doubt: None });
        machine.error = 0;
        assert_eq!(machine.after(1), Judged { now: machine.truth(), doubt: None });
    }

    #[test]
    fn a_clock_that_jumps_about_is_never_confirmed() {
        let mut machine = Machine::new();
        for n in 1..200 {
            machine.error = (800 + n % 2) * DAY;
            let judged = machine.after(10);
            assert!(judged.doubt.is_some() && judged.now == machine.truth());
        }
    }

    #[test]
    fn a_clock_that_has_lost_the_time_is_doubted_until_it_has_it() {
        let bounds = ClockBounds::default();
        let at = |seconds: i64| Reading { wall: seconds * SECOND, monotonic: seconds * SECOND };
        let mut trusted = TrustedTime::new(bounds, at(0));
        assert_eq!(trusted.read(at(1)).doubt, Some(ClockDoubt::TooEarly));
        assert_eq!(trusted.read(at(1_000)).doubt, Some(ClockDoubt::TooEarly), "waiting confirms nothing");
        let right = Reading { wall: START, monotonic: 1_001 * SECOND };
        assert_eq!(trusted.read(right), Judged { now: START, doubt: None });
    }

    proptest! {
        #[test]
        fn time_follows_small_steps_never_goes_back_and_is_never_far_off(
            steps in prop::collection::vec((0..100_i64, -100..100_i64), 1..60),
        ) {
            let mut machine = Machine::new();
            let mut last = i64::MIN;
            for (seconds, step) in steps {
                // Each within the bound of the one before, and of the truth.
                machine.error = (machine.error + step * SECOND).clamp(-60 * SECOND, 60 * SECOND);
                let judged = machine.after(seconds);
                prop_assert!(judged.doubt.is_none());
                prop_assert!(judged.now >= last, "back");
                prop_assert!((judged.now - machine.truth()).abs() <= 120 * SECOND);
                last = judged.now;
            }
        }
    }
}
