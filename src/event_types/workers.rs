//! Threads for expensive work on schemas, shared fairly among organizations.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::{Error, OrgId};
use crate::fairness::{FairSemaphore, Shares, Tenant};

/// Smallest number of threads.
const THREADS_MIN: usize = 2;
/// The `retry_after` for calls that had no turn.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Threads on which schemas are compiled, compared, and checked against events if that is
/// expensive. Organizations use them in turns.
pub(super) struct SchemaWorkers {
    turns: Arc<FairSemaphore>,
}

impl SchemaWorkers {
    /// Creates workers: `threads_max` of them, or one for every two processors and at least two if
    /// it is 0. An organization uses at most its share, in percent.
    pub(super) fn new(threads_max: usize, share_percent: u32) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if threads_max == 0 { (processors / 2).max(THREADS_MIN) } else { threads_max };
        Self { turns: FairSemaphore::new(Shares::new(threads as u64, share_percent)) }
    }

    /// Runs work on a thread when it is the organization's turn; none if that is not before the
    /// deadline. Work that has begun continues after the caller disconnects, and keeps its thread
    /// until it ends.
    pub(super) async fn run_before<T: Send + 'static>(
        &self,
        deadline: Instant,
        org_id: &OrgId,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let tenant = Tenant::from(org_id);
        let turn = tokio::time::timeout_at(deadline, self.turns.acquire(&tenant, 1)).await;
        let Ok(Ok(turn)) = turn else { return None };
        let worked = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        worked.await.inspect_err(|error| tracing::error!(%error, "a task for a schema failed")).ok()
    }

    /// The same for callers that can retry.
    ///
    /// # Errors
    /// `Exhausted` if it is not the organization's turn in time.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        deadline: Instant,
        org_id: &OrgId,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let busy = || Error::exhausted("too many schemas of this organization are being worked on", RETRY_AFTER);
        self.run_before(deadline, org_id, work).await.ok_or_else(busy)
    }
}
