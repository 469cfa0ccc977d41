//! What the producers know: everything that was sent, and every verdict that
//! came back. It is kept outside the service and learns nothing from it but
//! its answers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::event::Flaw;

/// What the service said of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReportedVerdict {
    Accepted,
    Duplicate,
    Conflict,
    Rejected(Flaw),
    Undecided,
}

/// One event, sent once.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    /// Its position in the plan's drafts.
    pub(crate) draft: usize,
    /// The stream it was sent on, or the producer's calls to one run of the
    /// service.
    pub(crate) session: u64,
    /// Before this moment it had not been sent.
    pub(crate) begun: u64,
    /// At this moment the answer was there, or given up.
    pub(crate) ended: u64,
    /// None: no answer.
    pub(crate) told: Option<ReportedVerdict>,
}

/// Records every event that was sent and every verdict that was received, with their order.
#[derive(Default)]
pub(crate) struct Oracle {
    /// Of each session, attempts are in the order of sending.
    attempts: Mutex<Vec<Attempt>>,
    /// Counts moments: a number that was given out earlier is an earlier one.
    moment: AtomicU64,
    sessions: AtomicU64,
    /// Events that have their final verdict, or whose producer gave up.
    settled: watch::Sender<u64>,
    /// Events that were lost with a damaged frame, and when: what was said of them before is no longer so.
    lost: Mutex<HashMap<String, u64>>,
    /// What a producer was told that nobody should ever be told.
    complaints: Mutex<Vec<String>>,
}

impl Oracle {
    pub(crate) fn now(&self) -> u64 {
        self.moment.fetch_add(1, Ordering::SeqCst)
    }

    pub(crate) fn session(&self) -> u64 {
        self.sessions.fetch_add(1, Ordering::SeqCst)
    }

    /// These events, sent together, were told this.
    pub(crate) fn answered(
        &self,
        session: u64,
        begun: u64,
        told: impl Iterator<Item = (usize, Option<ReportedVerdict>)>,
    ) {
        let ended = self.now();
        let attempts = told.map(|(draft, told)| Attempt { draft, session, begun, ended, told });
        self.attempts.lock().extend(attempts);
    }

    pub(crate) fn settle(&self, events: usize) {
        self.settled.send_modify(|settled| *settled += events as u64);
    }

    /// Waits until so many events are settled.
    pub(crate) async fn settled(&self, events: u64) {
        // The sender is this oracle's own: it is there.
        let _ = self.settled.subscribe().wait_for(|settled| *settled >= events).await;
    }

    /// These ids are lost by now.
    pub(crate) fn lost(&self, ids: impl Iterator<Item = String>) {
        let now = self.now();
        self.lost.lock().extend(ids.map(|id| (id, now)));
    }

    /// The ids that were lost, and when.
    pub(crate) fn lost_before(&self) -> HashMap<String, u64> {
        self.lost.lock().clone()
    }

    pub(crate) fn complain(&self, complaint: String) {
        self.complaints.lock().push(complaint);
    }

    pub(crate) fn complaints(&self) -> Vec<String> {
        self.complaints.lock().clone()
    }

    pub(crate) fn attempts(&self) -> Vec<Attempt> {
        self.attempts.lock().clone()
    }

    pub(crate) fn progress(&self) -> u64 {
        *self.settled.borrow()
    }
}
