//! The pause before a notification is sent again.

use std::time::Duration;

/// Doublings beyond which every wait is the longest.
const DOUBLINGS_MAX: u32 = 31;

/// Pauses that double, up to a maximum.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// The wait after the first attempt.
    pub min: Duration,
    /// The longest wait.
    pub max: Duration,
}

impl Backoff {
    /// The wait after an attempt (from 1). `jitter`, 0 to 1, shortens it by up
    /// to a half, so that those who failed together do not come back together.
    #[must_use]
    pub fn wait(&self, attempt: u32, jitter: f64) -> Duration {
        let doublings = attempt.saturating_sub(1).min(DOUBLINGS_MAX);
        let whole = self.min.saturating_mul(1 << doublings).min(self.max);
        whole.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BACKOFF: Backoff = Backoff { min: Duration::from_secs(1), max: Duration::from_secs(60) };

    #[test]
    fn waits_double_up_to_the_longest() {
        let waits = [1, 2, 3, 4, 7, 8, u32::MAX].map(|attempt| BACKOFF.wait(attempt, 0.0).as_secs());
        assert_eq!(waits, [1, 2, 4, 8, 60, 60, 60]);
    }

    proptest! {
        #[test]
        fn jitter_takes_at_most_a_half(attempt in 1_u32.., jitter in 0.0_f64..=1.0) {
            let (whole, wait) = (BACKOFF.wait(attempt, 0.0), BACKOFF.wait(attempt, jitter));
            prop_assert!(wait <= whole && wait >= whole / 2);
        }
    }
}
