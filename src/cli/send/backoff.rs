//! The pause before a batch is sent again.

use std::time::Duration;

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// The service may request a longer pause than [`PAUSE_MAX`], up to this.
const ASKED_PAUSE_MAX: Duration = Duration::from_secs(60);

/// Pauses that double from 100 ms to 5 s, each shortened at random by up to a
/// half, so that many senders do not come back at the same moment.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Resets after a success.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Whether there was no failure since the last success.
    pub(super) const fn is_fresh(&self) -> bool {
        self.failures == 0
    }

    /// The next pause; at least as long as the service `asked` for. `chance`
    /// is from 0 to 1.
    pub(super) fn next_pause(&mut self, asked: Option<Duration>, chance: f64) -> Duration {
        let full = PAUSE_MIN.saturating_mul(2_u32.saturating_pow(self.failures)).min(PAUSE_MAX);
        self.failures = self.failures.saturating_add(1);
        let pause = full.mul_f64(1.0 - chance.clamp(0.0, 1.0) / 2.0);
        pause.max(asked.unwrap_or_default().min(ASKED_PAUSE_MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pauses_stay_within_their_bounds(chances in prop::collection::vec(-1.0..2.0_f64, 1..100)) {
            let mut backoff = Backoff::default();
            for chance in chances {
                let pause = backoff.next_pause(None, chance);
                prop_assert!((PAUSE_MIN / 2..=PAUSE_MAX).contains(&pause), "{:?}", pause);
            }
        }
    }

    #[test]
    fn pauses_double_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..8).map(|_| backoff.next_pause(None, 0.0).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        backoff.reset();
        assert!(backoff.is_fresh());
        assert_eq!(backoff.next_pause(Some(Duration::from_secs(2)), 0.0).as_millis(), 2_000);
        assert_eq!(backoff.next_pause(Some(Duration::from_secs(1 << 40)), 0.0), ASKED_PAUSE_MAX);
    }
}
