//! The live tail: verdicts for those who watch, as they are made.
//!
//! It never slows ingest down. A watcher that falls behind misses outcomes and
//! is told how many; without watchers it costs one look at a number per batch.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::config::Config;
use crate::domain::{Error, OrgId, VerdictCounts};
use crate::ingest::outcome::{Outcome, OutcomeSink};

/// How long a refused watcher is told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// See the module.
pub struct LiveTail {
    outcomes: broadcast::Sender<Arc<Outcome>>,
    watchers: Arc<AtomicUsize>,
    watchers_max: usize,
}

impl LiveTail {
    /// A tail for at most [`Config::watchers_max`] watchers, each of which may
    /// fall [`Config::watcher_outcomes_max`] outcomes behind.
    pub fn new(config: &Config) -> Self {
        let outcomes = broadcast::Sender::new(config.watcher_outcomes_max.max(1));
        Self { outcomes, watchers: Arc::default(), watchers_max: config.watchers_max }
    }

    /// Watches from now on.
    ///
    /// # Errors
    /// `Exhausted` when there are too many watchers.
    pub(super) fn watch(&self) -> Result<Watcher, Error> {
        let before = self.watchers.fetch_add(1, Ordering::Relaxed);
        let seat = Seat(Arc::clone(&self.watchers));
        if before >= self.watchers_max {
            let message = format!("at most {} may watch at a time", self.watchers_max);
            return Err(Error::exhausted(message, RETRY_AFTER));
        }
        Ok(Watcher { outcomes: self.outcomes.subscribe(), _seat: seat })
    }
}

impl OutcomeSink for LiveTail {
    fn counted(&self, _: &OrgId, _: VerdictCounts) {}

    fn wants_outcomes(&self) -> bool {
        self.watchers.load(Ordering::Relaxed) > 0
    }

    fn happened(&self, outcomes: &[Arc<Outcome>]) {
        for outcome in outcomes {
            // An error means that the last watcher has just gone.
            if self.outcomes.send(Arc::clone(outcome)).is_err() {
                return;
            }
        }
    }
}

/// A watcher's place among the watchers, until it is dropped.
struct Seat(Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a watcher is told.
#[derive(Debug)]
pub(super) enum Report {
    /// An event got its verdict.
    Outcome(Arc<Outcome>),
    /// So many outcomes were missed here.
    Missed(u64),
}

/// Somebody who watches, until it is dropped.
pub(super) struct Watcher {
    outcomes: broadcast::Receiver<Arc<Outcome>>,
    _seat: Seat,
}

impl Watcher {
    /// The next report; none when there will be no more.
    pub(super) async fn next(&mut self) -> Option<Report> {
        match self.outcomes.recv().await {
            Ok(outcome) => Some(Report::Outcome(outcome)),
            Err(RecvError::Lagged(missed)) => Some(Report::Missed(missed)),
            Err(RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Timestamp, Verdict};

    fn outcomes(ids: std::ops::Range<u32>) -> Vec<Arc<Outcome>> {
        let outcome = |id: u32| Outcome {
            org_id: OrgId::default_org(),
            at: Timestamp::from_millis(0),
            event_id: id.to_string(),
            event_type: "click".to_owned(),
            campaign_id: String::new(),
            verdict: Verdict::Accepted,
        };
        ids.map(|id| Arc::new(outcome(id))).collect()
    }

    fn tail(watchers_max: usize) -> LiveTail {
        LiveTail::new(&Config { watchers_max, watcher_outcomes_max: 4, ..Config::default() })
    }

    #[tokio::test]
    async fn a_slow_watcher_is_told_what_it_missed_and_goes_on() {
        let tail = tail(1);
        let Ok(mut watcher) = tail.watch() else { panic!("no seat") };
        tail.happened(&outcomes(0..6));
        assert!(matches!(watcher.next().await, Some(Report::Missed(2))));
        assert!(matches!(watcher.next().await, Some(Report::Outcome(outcome)) if outcome.event_id == "2"));
    }

    #[test]
    fn nobody_pays_when_nobody_watches_and_seats_are_bounded() {
        let tail = tail(1);
        assert!(!tail.wants_outcomes());
        tail.happened(&outcomes(0..1));
        let watcher = tail.watch().ok();
        assert!(watcher.is_some() && tail.wants_outcomes());
        assert!(tail.watch().is_err());
        drop(watcher);
        assert!(!tail.wants_outcomes() && tail.watch().is_ok());
    }
}
