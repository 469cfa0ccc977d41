//! The pause before a notification is sent again.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};

/// Doublings beyond which every wait is the longest.
const DOUBLINGS_MAX: u32 = 31;

/// Pauses that double up to a maximum, each shortened at random by up to a half, so that receivers
/// that failed together are not called again together.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// The wait after the first attempt.
    pub min: Duration,
    /// The longest wait.
    pub max: Duration,
}

impl Backoff {
    /// The wait after an attempt (from 1).
    #[must_use]
    pub fn wait(&self, attempt: u32) -> Duration {
        // The library's jitter lengthens a wait by up to its own length: of half the length, it makes what is wanted.
        let mut waits = ExponentialBuilder::new()
            .with_min_delay(self.min / 2)
            .with_max_delay(self.max / 2)
            .with_jitter()
            .without_max_times()
            .build();
        let doublings = attempt.saturating_sub(1).min(DOUBLINGS_MAX);
        waits.nth(doublings as usize).unwrap_or(self.max).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BACKOFF: Backoff = Backoff { min: Duration::from_secs(1), max: Duration::from_secs(60) };

    #[test]
    fn waits_double_up_to_the_longest_and_are_shortened_by_at_most_a_half() {
        for (attempt, whole) in [(1, 1), (2, 2), (3, 4), (4, 8), (7, 60), (8, 60), (u32::MAX, 60)] {
            let (whole, wait) = (Duration::from_secs(whole), BACKOFF.wait(attempt));
            assert!((whole / 2..=whole).contains(&wait), "{attempt}: {wait:?} of {whole:?}");
        }
    }

    #[test]
    fn those_who_failed_together_come_back_apart() {
        assert!((0..100).any(|_| BACKOFF.wait(1) != BACKOFF.wait(1)));
    }

    proptest! {
        #[test]
        fn waits_stay_within_their_bounds(attempt in 1_u32..) {
            let wait = BACKOFF.wait(attempt);
            prop_assert!((BACKOFF.min / 2..=BACKOFF.max).contains(&wait), "{:?}", wait);
        }
    }
}
