//! What becomes of a batch, for those who wait for it.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use super::fingerprint::{IdFingerprint, PayloadFingerprint};

/// The moment at which the ids of a batch stop being pending. Whoever waited
/// looks each id up again: found, it was taken; not found, it was not.
#[derive(Debug, Default)]
pub struct Fate {
    decided: AtomicBool,
    waiting: Notify,
    found: OnceLock<HashMap<IdFingerprint, PayloadFingerprint>>,
}

impl Fate {
    /// These ids of the batch turned out to be in ClickHouse already, with
    /// these payloads. (They do not enter the index, so waiters could not find
    /// them there.)
    pub fn found(&self, ids: HashMap<IdFingerprint, PayloadFingerprint>) {
        let _ = self.found.set(ids); // A batch asks ClickHouse once.
    }

    /// The payload of an id that turned out to be in ClickHouse already.
    pub fn found_payload(&self, id: IdFingerprint) -> Option<PayloadFingerprint> {
        self.found.get()?.get(&id).copied()
    }

    /// No id of the batch is pending any more.
    pub fn decide(&self) {
        self.decided.store(true, Ordering::Release);
        self.waiting.notify_waiters();
    }

    /// Waits until no id of the batch is pending any more.
    pub async fn decided(&self) {
        let notified = self.waiting.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        if !self.decided.load(Ordering::Acquire) {
            notified.await;
        }
    }
}
