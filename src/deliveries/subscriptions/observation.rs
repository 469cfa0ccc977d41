//! Sums over all subscriptions, for metrics and health: they name neither organizations nor subscriptions.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tallyhouse_delivery::domain::{SubscriptionId, SubscriptionStatus};
use tallyhouse_delivery::engine::Engine;

use super::{Entry, Subscriptions};

/// Time between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// Sums over all subscriptions, as of the last look, at most about a second ago.
#[derive(Clone, Debug, Default)]
pub struct DeliveryTotals {
    /// Subscriptions by the kind of their handler.
    pub by_handler: BTreeMap<&'static str, u64>,
    /// Subscriptions that are paused.
    pub paused: u64,
    /// Subscriptions that are not paused and whose handler cannot be called.
    pub failing: u64,
    /// Subscriptions for which segments of the log were deleted before they had read them, since the start of the service.
    pub missing: u64,
    /// Events that wait.
    pub waiting: u64,
    /// Events among them that came before their turn.
    pub buffered: u64,
    /// Events among them that a handler has.
    pub in_flight: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// The longest that an event of a subscription that is not paused has been waiting, in milliseconds.
    pub lag_ms: u64,
    /// Events that were handled since the start of the service.
    pub processed: u64,
    /// Events that were given up since then.
    pub failed: u64,
    /// Attempts that failed and were repeated since then.
    pub retries: u64,
    /// Gaps that were skipped since then.
    pub skipped: u64,
}

/// What was seen.
#[derive(Default)]
pub(super) struct Observed {
    totals: DeliveryTotals,
    /// The counts of each engine when it was last looked at. They begin again when its handler is replaced.
    last: HashMap<SubscriptionId, SubscriptionStatus>,
}

impl Observed {
    /// Takes in the states of all.
    fn take(&mut self, seen: Vec<(SubscriptionId, &'static str, SubscriptionStatus)>) {
        let before = &self.totals;
        let mut totals = DeliveryTotals {
            processed: before.processed,
            failed: before.failed,
            retries: before.retries,
            skipped: before.skipped,
            ..DeliveryTotals::default()
        };
        let mut last = HashMap::with_capacity(seen.len());
        for (id, handler, status) in seen {
            *totals.by_handler.entry(handler).or_default() += 1;
            totals.paused += u64::from(status.is_paused);
            totals.failing += u64::from(!status.is_paused && !status.handler_error.is_empty());
            totals.missing += u64::from(status.missed_since_start > 0);
            totals.waiting += status.waiting;
            totals.buffered += status.buffered;
            totals.in_flight += status.in_flight;
            totals.dead_letters += status.dead_letters;
            if !status.is_paused {
                totals.lag_ms = totals.lag_ms.max(status.oldest_ms);
            }
            let former = self.last.remove(&id).unwrap_or_default();
            totals.processed += risen(former.processed, status.processed);
            totals.failed += risen(former.failed, status.failed);
            totals.retries += risen(former.retries, status.retries);
            totals.skipped += risen(former.skipped, status.skipped);
            last.insert(id, status);
        }
        *self = Self { totals, last };
    }
}

/// By how much a count has risen that may have begun again.
const fn risen(before: u64, now: u64) -> u64 {
    if now >= before { now - before } else { now }
}

impl Subscriptions {
    /// The sums as of the last look.
    pub fn totals(&self) -> DeliveryTotals {
        self.observed.lock().totals.clone()
    }

    /// Looks again and again, for ever.
    pub(super) async fn keep_observed(&self) {
        loop {
            self.look().await;
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn look(&self) {
        let entries: Vec<Arc<Entry>> = self.entries.read().values().cloned().collect();
        let mut seen = Vec::with_capacity(entries.len());
        for entry in entries {
            let (id, kind, engine): (_, _, Engine) = {
                let running = entry.running.lock();
                (running.record.id, running.handler.kind(), running.engine.clone())
            };
            if let Ok(status) = engine.status().await {
                seen.push((id, kind, status));
            }
        }
        self.observed.lock().take(seen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_never_fall_when_an_engine_begins_again_or_goes() {
        let status = |processed: u64, is_paused: bool| SubscriptionStatus {
            processed,
            is_paused,
            waiting: 1,
            oldest_ms: processed,
            handler_error: "gone".to_owned(),
            ..SubscriptionStatus::default()
        };
        let mut observed = Observed::default();
        let check = |observed: &mut Observed, seen: Vec<_>, processed: u64, lag_ms: u64| {
            observed.take(seen);
            assert_eq!((observed.totals.processed, observed.totals.lag_ms), (processed, lag_ms));
        };
        check(&mut observed, vec![(16, "pull", status(5, false)), (17, "trial", status(7, true))], 12, 5);
        assert_eq!((observed.totals.paused, observed.totals.failing, observed.totals.waiting), (1, 1, 2));
        check(&mut observed, vec![(16, "webhook", status(2, false)), (17, "trial", status(8, true))], 15, 2);
        check(&mut observed, vec![(17, "trial", status(8, false))], 15, 8);
        assert_eq!(observed.totals.by_handler, BTreeMap::from([("trial", 1)]));
        check(&mut observed, vec![], 15, 0);
    }
}
