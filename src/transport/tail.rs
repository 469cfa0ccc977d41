//! The live tail: verdicts for watchers, as they occur.
//!
//! It never slows down ingest. A watcher that falls behind misses outcomes and is told how many; without
//! watchers it costs one atomic load per batch. Each organization has a separate channel, so watchers are
//! independent of other organizations.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::config::Config;
use crate::domain::{Error, OrgId, VerdictCounts};
use crate::fairness::{FairPermit, FairSemaphore, Shares, Tenant};
use crate::ingest::outcome::{Outcome, OutcomeSink};

/// How long a refused watcher is told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Distributes verdicts to watchers, with a channel for each watched organization. Bounded by
/// `watchers_max` and `watcher_outcomes_max`; a slow watcher misses outcomes and is told how many.
pub struct LiveTail {
    channels: Arc<Channels>,
    watchers: Arc<FairSemaphore>,
    shares: Shares,
    outcomes_max: usize,
}

/// The channels of the organizations that are watched.
type Channels = RwLock<HashMap<OrgId, broadcast::Sender<Arc<Outcome>>>>;

impl LiveTail {
    /// A tail for at most [`Config::watchers_max`] watchers, of one organization
    /// at most [`Config::organization_share_percent`] of them, each of which may
    /// fall [`Config::watcher_outcomes_max`] outcomes behind.
    pub fn new(config: &Config) -> Self {
        let shares = Shares::new(config.watchers_max as u64, config.share_percent());
        Self {
            channels: Arc::default(),
            watchers: FairSemaphore::new(shares),
            shares,
            outcomes_max: config.watcher_outcomes_max.max(1),
        }
    }

    /// Watches an organization from now on.
    ///
    /// # Errors
    /// `Exhausted` when there are too many watchers, or too many of this
    /// organization.
    pub(super) fn watch(&self, org_id: &OrgId) -> Result<Watcher, Error> {
        let Some(permit) = self.watchers.try_acquire(&Tenant::from(org_id), 1) else {
            let (max, org_max) = (self.shares.total(), self.shares.tenant_max());
            let message = format!("at most {max} may watch at a time, and at most {org_max} of one organization");
            return Err(Error::exhausted(message, RETRY_AFTER));
        };
        let mut channels = self.channels.write();
        let channel =
            channels.entry(org_id.clone()).or_insert_with(|| broadcast::Sender::new(self.outcomes_max)).subscribe();
        let seat = WatcherPermit { channels: Arc::clone(&self.channels), org_id: org_id.clone(), _permit: permit };
        Ok(Watcher { outcomes: channel, _seat: seat })
    }
}

impl OutcomeSink for LiveTail {
    fn counted(&self, _: &OrgId, _: VerdictCounts) {}

    fn wants_outcomes(&self) -> bool {
        self.watchers.taken() > 0
    }

    fn happened(&self, outcomes: &[Arc<Outcome>]) {
        // A batch is of one organization, mostly an unwatched one.
        let Some(org_id) = outcomes.first().map(|outcome| &outcome.org_id) else { return };
        let Some(channel) = self.channels.read().get(org_id).cloned() else { return };
        for outcome in outcomes.iter().filter(|outcome| outcome.org_id == *org_id) {
            // An error means that the last watcher has just gone.
            if channel.send(Arc::clone(outcome)).is_err() {
                return;
            }
        }
    }
}

/// A watcher's place, until it is dropped, after the watcher's receiver.
struct WatcherPermit {
    channels: Arc<Channels>,
    org_id: OrgId,
    _permit: FairPermit,
}

impl Drop for WatcherPermit {
    fn drop(&mut self) {
        let mut channels = self.channels.write();
        if channels.get(&self.org_id).is_some_and(|channel| channel.receiver_count() == 0) {
            channels.remove(&self.org_id);
        }
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
    // In this order: the last receiver's end is the channel's.
    outcomes: broadcast::Receiver<Arc<Outcome>>,
    _seat: WatcherPermit,
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
    use crate::config::Secret;
    use crate::domain::{Timestamp, Verdict};

    fn org(name: &str) -> OrgId {
        OrgId::parse(name).expect("an organization")
    }

    fn outcomes(org_id: &str, ids: std::ops::Range<u32>) -> Vec<Arc<Outcome>> {
        let outcome = |id: u32| Outcome {
            org_id: org(org_id),
            at: Timestamp::from_millis(0),
            event_id: id.to_string(),
            event_type: "click".to_owned(),
            campaign_id: String::new(),
            verdict: Verdict::Accepted,
        };
        ids.map(|id| Arc::new(outcome(id))).collect()
    }

    fn tail(watchers_max: usize) -> LiveTail {
        // With authentication there are several organizations.
        let auth_hs256_secret = Secret::new("of a test".to_owned());
        LiveTail::new(&Config { watchers_max, watcher_outcomes_max: 4, auth_hs256_secret, ..Config::default() })
    }

    #[tokio::test]
    async fn a_slow_watcher_is_told_what_it_missed_of_its_own_and_goes_on() {
        let tail = tail(1);
        let Ok(mut watcher) = tail.watch(&org("a")) else { panic!("no seat") };
        tail.happened(&outcomes("b", 0..9));
        tail.happened(&outcomes("a", 0..6));
        assert!(matches!(watcher.next().await, Some(Report::Missed(2))));
        assert!(matches!(watcher.next().await, Some(Report::Outcome(outcome)) if outcome.event_id == "2"));
    }

    #[test]
    fn nobody_pays_when_nobody_watches_and_seats_are_bounded() {
        let tail = tail(1);
        assert!(!tail.wants_outcomes());
        tail.happened(&outcomes("a", 0..1));
        let watcher = tail.watch(&org("a")).ok();
        assert!(watcher.is_some() && tail.wants_outcomes());
        assert!(tail.watch(&org("a")).is_err());
        drop(watcher);
        assert!(!tail.wants_outcomes() && tail.channels.read().is_empty());
        assert!(tail.watch(&org("a")).is_ok());
    }

    #[test]
    fn one_organization_cannot_take_every_seat() {
        let tail = tail(8);
        let seats: Vec<_> = std::iter::from_fn(|| tail.watch(&org("a")).ok()).take(20).collect();
        assert_eq!(seats.len(), 4);
        let others: Vec<_> = ["b", "c", "d"].into_iter().map(|name| tail.watch(&org(name)).ok()).collect();
        assert!(others.iter().all(Option::is_some));
    }
}
