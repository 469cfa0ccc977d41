//! The completion of a batch: when its ids stop being pending, for batches that repeat one of them.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use super::fingerprint::{IdFingerprint, PayloadFingerprint};

/// Signals that no id of a batch is pending any more. Whoever waited looks each id up again: an id that is found was
/// taken, one that is not found was given back.
#[derive(Debug, Default)]
pub struct BatchCompletion {
    is_complete: AtomicBool,
    waiting: Notify,
    stored: OnceLock<HashMap<IdFingerprint, PayloadFingerprint>>,
}

impl BatchCompletion {
    /// Records ids of the batch that are in ClickHouse already, with their payloads. They do not enter the index, so
    /// those who wait could not find them there. Only the first call counts.
    pub fn note_stored(&self, ids: HashMap<IdFingerprint, PayloadFingerprint>) {
        let _ = self.stored.set(ids); // A batch asks ClickHouse once.
    }

    /// The payload of an id that was found in ClickHouse; none for any other id.
    pub fn stored_payload(&self, id: IdFingerprint) -> Option<PayloadFingerprint> {
        self.stored.get()?.get(&id).copied()
    }

    /// Ends the wait: no id of the batch is pending any more.
    pub fn complete(&self) {
        self.is_complete.store(true, Ordering::Release);
        self.waiting.notify_waiters();
    }

    /// Waits until no id of the batch is pending any more.
    pub async fn completed(&self) {
        let notified = self.waiting.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        if !self.is_complete.load(Ordering::Acquire) {
            notified.await;
        }
    }
}
