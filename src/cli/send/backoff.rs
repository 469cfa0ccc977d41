//! The pause before a batch is sent again.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// The service may request a longer pause than [`PAUSE_MAX`], up to this.
const ASKED_PAUSE_MAX: Duration = Duration::from_secs(60);

/// Pauses that double from 100 ms to 5 s, each shortened at random by up to a
/// half, so that many senders do not come back at the same moment.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    /// None until something goes wrong.
    pauses: Option<ExponentialBackoff>,
}

impl Backoff {
    /// Resets after a success.
    pub(super) fn reset(&mut self) {
        self.pauses = None;
    }

    /// Whether there was no failure since the last success.
    pub(super) const fn is_fresh(&self) -> bool {
        self.pauses.is_none()
    }

    /// The next pause; at least as long as the service `asked` for.
    pub(super) fn next_pause(&mut self, asked: Option<Duration>) -> Duration {
        let pause = self.pauses.get_or_insert_with(pauses).next().unwrap_or(PAUSE_MAX);
        pause.max(asked.unwrap_or_default().min(ASKED_PAUSE_MAX))
    }
}

/// The library's jitter lengthens a pause by up to its own length: of half the length, it makes what is wanted.
fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(PAUSE_MIN / 2)
        .with_max_delay(PAUSE_MAX / 2)
        .with_jitter()
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_are_shortened_by_at_most_a_half() {
        let whole = [100, 200, 400, 800, 1_600, 3_200].into_iter().chain(std::iter::repeat_n(5_000, 100));
        let mut backoff = Backoff::default();
        for whole in whole.map(Duration::from_millis) {
            let pause = backoff.next_pause(None);
            assert!((whole / 2..=whole).contains(&pause), "{pause:?} of {whole:?}");
        }
    }

    #[test]
    fn pauses_differ_between_senders() {
        let first = || Backoff::default().next_pause(None);
        assert!((0..100).any(|_| first() != first()));
    }

    #[test]
    fn pauses_begin_anew_after_a_success() {
        let mut backoff = Backoff::default();
        assert!(backoff.is_fresh());
        let longest = (0..8).map(|_| backoff.next_pause(None)).max();
        assert!(longest > Some(PAUSE_MAX / 2));
        assert!(!backoff.is_fresh());
        backoff.reset();
        assert!(backoff.is_fresh());
        assert!(backoff.next_pause(None) <= PAUSE_MIN);
    }

    #[test]
    fn the_service_may_ask_for_a_longer_pause_within_a_bound() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.next_pause(Some(Duration::from_secs(2))).as_millis(), 2_000);
        assert_eq!(backoff.next_pause(Some(Duration::from_secs(1 << 40))), ASKED_PAUSE_MAX);
    }
}
